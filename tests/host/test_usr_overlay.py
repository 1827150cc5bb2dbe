"""The overlay over ``/usr``, over another directory: each case in a mount namespace of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bootc
from support import require

pytestmark = pytest.mark.host

SRC = str(Path(bootc.__file__).parents[1])

PROGRAM = f"""
import json, os, sys
sys.path.append({SRC!r})
from bootc.deploy.host.usr_overlay import overlay
from bootc.fs.mounts import private_mount_namespace, read_mounts
from bootc.kernel.mount import MS_BIND, MS_REMOUNT, MS_RDONLY, mount

path = sys.argv[1]
private_mount_namespace()
# As an image is mounted: nothing below can be written.
mount(path, path, None, MS_BIND)
mount(None, path, None, MS_BIND | MS_REMOUNT | MS_RDONLY)
overlay(path, read_only=sys.argv[2] == "ro")
try:
    with open(f"{{path}}/new", "w") as file:
        file.write("new")
    said = None
except OSError as exc:
    said = exc.strerror
top = [entry for entry in read_mounts() if entry.path == path][-1]
info = os.stat(path)
try:
    label = os.getxattr(path, "security.selinux").decode()
except OSError as exc:
    label = exc.strerror
print(json.dumps({{
    "names": sorted(os.listdir(path)),
    "said": said,
    "mount": [top.fstype, top.source],
    "mode": oct(info.st_mode & 0o7777),
    "label": label,
    "layers": [name for name in os.listdir("/run") if name.startswith("bootc-layer")],
}}))
"""


@pytest.fixture
def usr(tmp_path: Path) -> Path:
    require.root()
    path = tmp_path / "usr"
    path.mkdir(mode=0o755)
    (path / "bin").mkdir()
    return path


def overlaid(usr: Path, mode: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(usr), mode],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return value


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_what_is_written_stays_above(usr: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        found = overlaid(usr, "rw")
    finally:
        os.umask(before)
    assert found["names"] == ["bin", "new"]
    assert found["said"] is None
    assert found["mount"] == ["overlay", "transient"]
    assert found["mode"] == "0o755"
    assert found["layers"] == []
    assert os.listdir(usr) == ["bin"]


def test_read_only_refuses_writes(usr: Path) -> None:
    found = overlaid(usr, "ro")
    assert found["names"] == ["bin"]
    assert found["said"] == "Read-only file system"


def test_the_label_is_that_of_what_is_covered(usr: Path) -> None:
    os.setxattr(usr, "security.selinux", b"system_u:object_r:usr_t:s0")
    assert overlaid(usr, "rw")["label"] == "system_u:object_r:usr_t:s0"
