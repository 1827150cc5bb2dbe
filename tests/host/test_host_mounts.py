"""Directories of the host in a container: a process that has mounts of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support import require

pytestmark = pytest.mark.host

#: A container: a process with mounts of its own. Its parent is a process of the host.
CONTAINER = """
import os, sys
from bootc.errors import Error
from bootc.fs import host_mounts, mounts
from bootc.kernel import mount

place, host = sys.argv[1], os.getppid()
mounts.private_mount_namespace()
"""


def in_container(script: str, *arguments: str) -> str:
    require.root()
    argv = [sys.executable, "-c", CONTAINER + script, *arguments]
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    return done.stdout


def test_a_directory_of_the_host_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "whose").write_text("host")
    (tmp_path / "sub").mkdir()
    said = in_container(
        """
mount.mount("tmpfs", place, "tmpfs", 0)
print(host_mounts.is_host_visible(host), os.listdir(place))
print(host_mounts.attach_from_host([place, "/no/such/directory"], host) == [place])
print(sorted(os.listdir(place)), os.path.exists("/no"))
print(host_mounts.attach_from_host([place], host))
""",
        str(tmp_path),
    )
    assert said.splitlines() == ["True []", "True", "['sub', 'whose'] False", "[]"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sub", "whose"]


def test_mounts_below_come_along(tmp_path: Path) -> None:
    require.root()
    (tmp_path / "sub").mkdir()
    tool = require.tool("mount")
    subprocess.run([tool, "-t", "tmpfs", "tmpfs", str(tmp_path / "sub")], check=True)
    try:
        (tmp_path / "sub/file").write_text("below")
        said = in_container(
            """
mount.mount("tmpfs", place, "tmpfs", 0)
host_mounts.attach_from_host([place], host)
print(open(f"{place}/sub/file").read())
""",
            str(tmp_path),
        )
    finally:
        subprocess.run([require.tool("umount"), str(tmp_path / "sub")], check=True)
    assert said == "below\n"


def test_what_is_no_directory_of_the_host_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    said = in_container(
        """
mount.mount("tmpfs", place, "tmpfs", 0)
try:
    host_mounts.attach_from_host([f"{place}/file/below"], host)
except (Error, OSError) as exc:
    print(exc)
""",
        str(tmp_path),
    )
    assert said == f"the host's {tmp_path}/file/below cannot be mounted: Not a directory\n"


def test_new_device_nodes_appear(tmp_path: Path) -> None:
    said = in_container(
        """
mount.mount("tmpfs", "/dev", "tmpfs", 0)
before = os.path.exists("/dev/null")
host_mounts.mount_devices()
print(before, os.path.exists("/dev/null"))
again = len(mounts.read_mounts())
host_mounts.mount_devices()
print(len(mounts.read_mounts()) - again)
""",
        str(tmp_path),
    )
    assert said.splitlines() == ["False True", "0"]


def test_the_root_of_the_host_is_mounted_for_a_while(tmp_path: Path) -> None:
    (tmp_path / "whose").write_text("host")
    said = in_container(
        """
mount.mount("tmpfs", place, "tmpfs", 0)
before = len(mounts.read_mounts())
with host_mounts.attached_host_root(host) as root:
    print(os.listdir(root + place))
    with mounts.attach(mount.open_tree(-100, root, mount.OPEN_TREE_CLONE)) as copy:
        print(sorted(os.listdir("/")) == sorted(os.listdir(copy)))
with host_mounts.attached_host_root(os.getpid()) as root:
    print(os.listdir(root + place))
print(len(mounts.read_mounts()) == before)
""",
        str(tmp_path),
    )
    assert said.splitlines() == ["['whose']", "True", "[]", "True"]
