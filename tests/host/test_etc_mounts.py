"""What is mounted on a live ``/etc`` is no configuration: it is neither read nor copied."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import require

pytestmark = pytest.mark.host

#: As a booted machine: the deployment's etc is mounted at /etc, in the same peer group as the
#: physical root, and then something is mounted on three places of the live /etc.
SCRIPT = """
import os, sys
from pathlib import Path
from bootc.deploy.etc.apply import read_etc, replace_etc
from bootc.formats.digest import Algorithm
from bootc.formats.tree import Directory, Inline
from bootc.fs import mounts
from bootc.fs.dir import Dir
from bootc.kernel.mount import MS_BIND, mount, mount_setattr

MS_SHARED = 1 << 20

base = Path(sys.argv[1])
sysroot, live = base / "sysroot", base / "etc"
mounts.private_mount_namespace()
mount("none", str(sysroot), "tmpfs", 0)
fd = os.open(sysroot, os.O_PATH)
mount_setattr(fd, propagation=MS_SHARED)
os.close(fd)
state = sysroot / "state/deploy/id"
(state / "etc/d").mkdir(parents=True)
(state / "etc/resolv.conf").write_text("own\\n")
(state / "etc/large").write_text("own\\n" * 100)
(state / "etc/d/own").write_text("")
mount(str(state / "etc"), str(live), None, MS_BIND)
(base / "foreign").write_text("foreign\\n" * 100)
mount(str(base / "foreign"), str(live / "resolv.conf"), None, MS_BIND)
mount(str(base / "foreign"), str(live / "large"), None, MS_BIND)
mount("none", str(live / "d"), "tmpfs", 0)
(live / "d/foreign").write_text("")
assert (state / "etc/large").read_text() == "foreign\\n" * 100, "the mounts did not propagate"

with Dir.open(state) as directory, read_etc(directory, Algorithm.SHA512) as current:
    assert sorted(current.tree.entries) == [b"d", b"large", b"resolv.conf"]
    assert current.tree.entries[b"resolv.conf"].content == Inline(b"own\\n")
    assert sorted(current.tree.entries[b"d"].entries) == [b"own"]
    (sysroot / "state/deploy/next/etc").mkdir(parents=True)
    with Dir.open(sysroot / "state/deploy/next") as target:
        replace_etc(target, current.tree, current.open_content)
copy = sysroot / "state/deploy/next/etc"
assert (copy / "large").read_text() == "own\\n" * 100
assert (copy / "resolv.conf").read_text() == "own\\n"
assert os.listdir(copy / "d") == ["own"]
"""


def test_mounts_over_etc_are_not_copied(tmp_path: Path) -> None:
    require.root()
    for name in ("sysroot", "etc"):
        (tmp_path / name).mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], check=True, env=environment)
    assert os.listdir(tmp_path / "sysroot") == []
