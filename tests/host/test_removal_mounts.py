"""What is mounted in a tree that is removed or copied keeps its files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import require

pytestmark = pytest.mark.host

PRELUDE = """
import errno, os, sys
from pathlib import Path
from bootc.errors import one_line
from bootc.fs import mounts
from bootc.fs.descent import MountPoint
from bootc.fs.dir import Dir
from bootc.fs.tree_copy import copy_tree
from bootc.kernel import files
from bootc.kernel.mount import MS_BIND, mount, umount2

base = Path(sys.argv[1])
mounts.private_mount_namespace()
tree, other = base / "tree", base / "other"
for path in (tree / "a/b", tree / "c", other):
    path.mkdir(parents=True)
for path in (tree / "a/file", tree / "a/b/covered", tree / "c/f", other / "key"):
    path.write_text("the only copy")

def refused(work):
    try:
        work()
    except MountPoint as exc:
        return one_line(exc)
    raise AssertionError("nobody noticed")
"""

#: How something gets onto ``a/b``, or the file ``a/file``.
MOUNTS = {
    "bind": 'mount(str(other), str(tree / "a/b"), None, MS_BIND); at = "a/b"',
    "tmpfs": 'mount("none", str(tree / "a/b"), "tmpfs", 0); at = "a/b"\n'
    '(tree / "a/b/key").write_text("the only copy"); other = tree / "a/b"',
    "file": 'mount(str(other / "key"), str(tree / "a/file"), None, MS_BIND); at = "a/file"',
    "top": 'mount(str(other), str(tree), None, MS_BIND); at = "."',
    "through another mount": """
live = base / "live"
live.mkdir()
mount("none", str(base / "tree"), "tmpfs", 0)
(tree / "a/b").mkdir(parents=True)
(tree / "c").mkdir()
mount(str(tree), str(live), None, MS_BIND)
mount(None, str(live), None, 1 << 18)
mount(str(other), str(live / "a/b"), None, MS_BIND)
at = "a/b"
base, tree = tree, tree / "a"
assert os.listdir(tree / "b") == [], "it shows here as well"
tree.rename(base / "tree")
tree, at = base / "tree", "b"
""",
}

REMOVE = """
with Dir.open(base) as directory:
    said = refused(lambda: directory.remove_tree("tree"))
assert said == (
    f"{os.path.normpath(tree / at)}: something is mounted on it; unmount that first "
    "(findmnt lists what is mounted)"
), said
assert (other / "key").read_text() == "the only copy"
assert not (tree / "c").exists() or at == "."
"""

WITHOUT_OPENAT2 = """
def missing(*args):
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
files.openat2 = missing
"""


def run(tmp_path: Path, *parts: str) -> None:
    require.root()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    script = "\n".join((PRELUDE, *parts))
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, env=environment)


@pytest.mark.parametrize("fallback", [False, True])
@pytest.mark.parametrize("how", MOUNTS)
def test_removing_enters_no_mount(tmp_path: Path, how: str, fallback: bool) -> None:
    run(tmp_path, MOUNTS[how], WITHOUT_OPENAT2 if fallback else "", REMOVE)


@pytest.mark.parametrize("how", ["bind", "tmpfs"])
def test_copying_enters_no_mount(tmp_path: Path, how: str) -> None:
    run(
        tmp_path,
        MOUNTS[how],
        """
(base / "copy").mkdir()
with Dir.open(tree) as source, Dir.open(base / "copy") as target:
    said = refused(lambda: copy_tree(source, target))
assert said.startswith(f"Copying 'a/b': {tree}/a/b: something is mounted on it"), said
assert not (base / "copy/a/b/key").exists()
""",
    )


LISTED = {
    "bind": ["tree/a/b"],
    "tmpfs": ["tree/a/b"],
    "file": ["tree/a/file"],
    "top": ["tree"],
    "through another mount": ["live/tree/b"],
}


@pytest.mark.parametrize("how", MOUNTS)
def test_mount_points_are_listed(tmp_path: Path, how: str) -> None:
    run(
        tmp_path,
        MOUNTS[how],
        f"""
top = Path(sys.argv[1])
with Dir.open(base) as directory:
    found = mounts.mount_points_below(directory, "tree")
    assert found == [str(top / path) for path in {LISTED[how]!r}], found
    assert mounts.mount_points_below(directory, "tre") == []
""",
    )
