from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootc.formats.digest import Algorithm
from bootc.formats.tree import Directory, External, Inline, Leaf
from bootc.formats.verity import verity_digest
from bootc.fs.dir import Dir
from bootc.fs.tree_read import TreeChanged, read_tree
from bootc.oci.local import ActiveRoot, directory_tree
from bootc.oci.names import XattrMode
from bootc.oci.seal import SealError
from bootc.oci.selabel import LabelError
from bootc.repository.repository import Repository

NOTE = b"# " + b"x" * 100 + b"\n"
FILES = "etc/selinux/mine/contexts/files"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A bootable root directory with a policy that labels everything."""
    path = tmp_path / "root"
    for name in ("boot", "sysroot", "usr/bin", FILES):
        (path / name).mkdir(parents=True)
    (path / "boot/vmlinuz").write_bytes(b"kernel" * 100)
    (path / "usr/bin/tool").write_bytes(b"tool" * 100)
    (path / "etc/selinux/config").write_bytes(NOTE + b"SELINUXTYPE=mine\n")
    (path / FILES / "file_contexts").write_bytes(NOTE + b"/.* any\n/usr/bin/.* bin\n")
    return path


def test_a_bootable_directory(root: Path) -> None:
    with Dir.open(root) as top:
        tree = directory_tree(top)
        tool = tree.root.lookup("usr/bin/tool")
        assert isinstance(tool, Leaf)
        assert isinstance(tool.content, External)
        assert tool.content.digest.algorithm is Algorithm.SHA512
        assert tree.read_content(tool.content) == b"tool" * 100
        assert tree.read_content(Inline(b"x")) == b"x"
    assert tool.stat.xattrs == {b"security.selinux": b"bin"}
    assert tree.root.lookup("boot/vmlinuz") is None
    assert tree.root.stat.xattrs == {b"security.selinux": b"any"}


def test_a_plain_directory(root: Path) -> None:
    os.setxattr(root / "usr", "user.x", b"y")
    with Dir.open(root) as top:
        plain = directory_tree(top, bootable=False, algorithm=Algorithm.SHA256).root
        kept = directory_tree(top, bootable=False, xattrs=XattrMode.KEEP_USER_XATTRS).root
    kernel = plain.lookup("boot/vmlinuz")
    assert isinstance(kernel, Leaf)
    assert kernel.content == External(verity_digest(b"kernel" * 100, Algorithm.SHA256), 600)
    assert kept.stat.xattrs == {b"user.x": b"y"}
    kept.stat.xattrs.clear()
    assert not any(node.stat.xattrs for _, node in plain.walk())


def test_a_directory_as_it_is(root: Path) -> None:
    os.setxattr(root / "boot", "user.x", b"y")
    (root / "usr").chmod(0o700)
    with Dir.open(root) as top:
        plain = directory_tree(top, bootable=False, as_container=False).root
        booted = directory_tree(top, as_container=False).root
    for tree in (plain, booted):
        boot = tree.lookup("boot")
        assert isinstance(boot, Directory)
        assert boot.stat.xattrs[b"user.x"] == b"y"
        assert tree.stat.mode == 0o755
        assert (b"vmlinuz" in boot.entries) == (tree is plain)
    assert booted.stat.xattrs == {b"security.selinux": b"any"}


def test_a_directory_that_is_kept(root: Path, tmp_path: Path) -> None:
    with (
        Dir.open(tmp_path) as parent,
        Repository.create(parent, algorithm=Algorithm.SHA256, secure=False) as repository,
        Dir.open(root) as top,
    ):
        tool = directory_tree(top, objects=repository.objects).root.lookup("usr/bin/tool")
        assert isinstance(tool, Leaf)
        assert tool.content == External(verity_digest(b"tool" * 100, Algorithm.SHA256), 400)
        assert repository.objects.read(tool.content.digest) == b"tool" * 100


def test_refusals(root: Path) -> None:
    with Dir.open("/") as top, pytest.raises(ActiveRoot, match=r"^Cannot operate on active root"):
        directory_tree(top)
    (root / FILES / "file_contexts").unlink()
    with Dir.open(root) as top, pytest.raises(LabelError, match="'mine' but has no"):
        directory_tree(top)
    (root / "sysroot").rmdir()
    with Dir.open(root) as top, pytest.raises(SealError, match="no directory /sysroot"):
        directory_tree(top)


def test_content_that_changed_since(root: Path) -> None:
    with Dir.open(root) as top:
        tree = directory_tree(top)
        tool = tree.root.lookup("usr/bin/tool")
        assert isinstance(tool, Leaf)
        assert isinstance(tool.content, External)
        (root / "usr/bin/tool").write_bytes(b"TOOL" * 100)
        with pytest.raises(TreeChanged, match=f"^{root}/usr/bin/tool changed while"):
            tree.read_content(tool.content)


def test_the_walk_can_store_what_it_reads(root: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    with (
        Dir.open(store) as target,
        Repository.create(target, algorithm=Algorithm.SHA512, secure=False) as repository,
        Dir.open(root) as top,
    ):
        tree = read_tree(top, repository.objects)
        tool = tree.lookup("usr/bin/tool")
        assert isinstance(tool, Leaf)
        assert isinstance(tool.content, External)
        assert repository.objects.read(tool.content.digest) == b"tool" * 100
