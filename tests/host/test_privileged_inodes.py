"""Owners, devices, capabilities and labels, which only root can give: read, copied, written."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings

from bootc.formats.digest import Algorithm, Digest
from bootc.formats.dumpfile import write_dumpfile
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.imgref import ImageReference
from bootc.formats.tree import (
    BlockDevice,
    CharDevice,
    Directory,
    External,
    Fifo,
    Inline,
    Leaf,
    Socket,
    Stat,
    Symlink,
)
from bootc.formats.verity import verity_digest
from bootc.fs.dir import Dir
from bootc.fs.tree_copy import copy_tree
from bootc.fs.tree_read import read_tree
from bootc.fs.tree_write import write_tree
from bootc.kernel import mount
from bootc.oci.layoutdir import open_layout
from bootc.oci.local import directory_tree
from bootc.repository.repository import Repository
from bootc.repository.sink import DigestOnly
from support import images, require
from support.cfs import Cfs
from support.images import compute_image_id, directory, file, hardlink, symlink
from support.trees import text_of
from support.writable import CAPABILITY, check_written_and_read_again, trees

pytestmark = pytest.mark.host

LARGE = b"0123456789" * 100_000
#: rw for the owner and user 7, r for the group and others, mask rw.
ACL = bytes.fromhex(
    "0200000001000600ffffffff020006000700000004000400ffffffff10000600ffffffff20000400ffffffff"
)


@pytest.fixture(autouse=True, scope="module")
def _only_as_root() -> None:
    require.root()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir()
    return path


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    path = tmp_path / "full"
    path.mkdir()
    mount.mount("tmpfs", str(path), "tmpfs", 0, "size=64k")
    yield path
    mount.umount2(str(path), 0)


def read(top: Path) -> Directory:
    with Dir.open(top) as opened:
        return read_tree(opened, DigestOnly(Algorithm.SHA512))


def copy(source: Path, target: Path) -> None:
    with Dir.open(source) as from_dir, Dir.open(target) as to_dir:
        copy_tree(from_dir, to_dir)


def leaf(root: Directory, path: str) -> Leaf:
    node = root.lookup(path)
    assert isinstance(node, Leaf)
    return node


def test_devices_are_read(source: Path) -> None:
    os.mknod(source / "char", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(source / "block", stat.S_IFBLK | 0o600, os.makedev(259, 300))
    root = read(source)
    assert leaf(root, "char").content == CharDevice(os.makedev(1, 3))
    assert leaf(root, "block").content == BlockDevice(os.makedev(259, 300))


def test_owners_capabilities_and_attributes_of_links_are_read(source: Path) -> None:
    (source / "f").touch()
    (source / "l").symlink_to("f")
    os.chown(source / "f", 1, 2**32 - 2)
    os.setxattr(source / "f", "security.capability", CAPABILITY)
    os.setxattr(source / "l", "trusted.l", b"link", follow_symlinks=False)
    root = read(source)
    found = leaf(root, "f").stat
    assert (found.uid, found.gid) == (1, 2**32 - 2)
    assert found.xattrs == {b"security.capability": CAPABILITY}
    assert leaf(root, "l").stat.xattrs == {b"trusted.l": b"link"}


def test_owners_arrive_for_every_kind(source: Path, target: Path) -> None:
    (source / "file").write_bytes(b"x")
    (source / "directory").mkdir()
    (source / "symlink").symlink_to("file")
    os.mkfifo(source / "fifo")
    names = ("file", "directory", "symlink", "fifo")
    for number, name in enumerate(names, 1):
        os.chown(source / name, 1000 + number, 2000 + number, follow_symlinks=False)
    os.chmod(source / "file", 0o6755)  # a change of owner after it would drop these bits

    copy(source, target)

    for number, name in enumerate(names, 1):
        new = os.lstat(target / name)
        assert (new.st_uid, new.st_gid) == (1000 + number, 2000 + number)
    assert stat.S_IMODE(os.lstat(target / "file").st_mode) == 0o6755


def test_capabilities_and_attributes_of_links_arrive(source: Path, target: Path) -> None:
    (source / "file").write_bytes(b"x")
    (source / "symlink").symlink_to("file")
    os.setxattr(source / "file", "security.capability", CAPABILITY)
    os.setxattr(source / "symlink", "trusted.note", b"link", follow_symlinks=False)

    copy(source, target)

    assert os.getxattr(target / "file", "security.capability") == CAPABILITY
    assert os.getxattr(target / "symlink", "trusted.note", follow_symlinks=False) == b"link"


def test_devices_arrive(source: Path, target: Path) -> None:
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(source / "disk", stat.S_IFBLK | 0o660, os.makedev(8, 17))

    copy(source, target)

    assert os.lstat(target / "null").st_rdev == os.makedev(1, 3)
    assert stat.S_ISCHR(os.lstat(target / "null").st_mode)
    assert os.lstat(target / "disk").st_rdev == os.makedev(8, 17)
    assert stat.S_ISBLK(os.lstat(target / "disk").st_mode)


def test_no_space_names_the_path(source: Path, full_disk: Path) -> None:
    (source / "etc").mkdir()
    (source / "etc/big").write_bytes(b"x" * (1 << 20))

    with pytest.raises(OSError, match="No space left") as caught:
        copy(source, full_disk)

    assert caught.value.errno == errno.ENOSPC
    assert caught.value.__notes__ == ["Copying 'etc/big'"]


def test_everything_an_inode_can_say(target: Path) -> None:
    def meta(mode: int, uid: int = 0, gid: int = 0, **xattrs: bytes) -> Stat:
        names = {name.replace("__", ".").encode(): value for name, value in xattrs.items()}
        return Stat(mode, uid, gid, 1_600_000_000, 123_456_789, names)

    def open_content(content: External) -> int:
        fd = os.memfd_create("content")
        os.write(fd, LARGE)
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    large = External(verity_digest(LARGE, Algorithm.SHA512), len(LARGE))
    linked = Leaf(meta(0o4755, 12, 34, security__capability=CAPABILITY), large)
    acls = {b"system.posix_acl_access": ACL, b"user.large": b"v" * 300}
    below = Directory(
        Stat(0o3711, 5, 6, 1, 2, {b"system.posix_acl_default": ACL, b"user.x": b""}),
        {
            b"again": linked,
            b"small": Leaf(meta(0o400, 7), Inline(b"s")),
            b"acl": Leaf(Stat(0o664, 0, 0, 3, 4, acls), Inline(b"")),
            b"\xff\n": Leaf(meta(0o2755, 1, 1), Inline(b"setgid")),
        },
    )
    root = Directory(
        meta(0o1751, 3, 4, user__top=b"t"),
        {
            b"a": linked,
            b"below": below,
            b"link": Leaf(meta(0o777, 8, 9), Symlink(b"/nowhere/\xfe")),
            b"null": Leaf(meta(0o666), CharDevice(os.makedev(1, 3))),
            b"loop": Leaf(meta(0o660, 0, 6), BlockDevice(os.makedev(7, 300))),
            b"pipe": Leaf(meta(0o622, 1), Fifo()),
            b"socket": Leaf(meta(0o755), Socket()),
        },
    )

    with Dir.open(target) as opened:
        write_tree(root, opened, open_content)

    assert text_of(read(target)) == text_of(root)
    assert (target / "a").read_bytes() == LARGE
    assert os.stat(target / "a").st_ino == os.stat(target / "below/again").st_ino


@settings(deadline=None, max_examples=60)
@given(tree=trees(root=True))
def test_written_and_read_again(tree: Directory) -> None:
    check_written_and_read_again(tree)


def test_a_label_without_a_policy(source: Path) -> None:
    for name in ("boot", "sysroot", "usr"):
        (source / name).mkdir()
    os.setxattr(source / "boot", "security.selinux", b"of_the_builder")
    with Dir.open(source) as top:
        plain = directory_tree(top, bootable=False, as_container=False).root
        booted = directory_tree(top, as_container=False).root
    labelled = [path for path, node in plain.walk() if node.stat.xattrs]
    assert labelled == [b"/boot"]
    assert not any(node.stat.xattrs for _, node in booted.walk())


def test_a_label_is_the_images_own_or_none(
    source: Path,
    tmp_path: Path,
    capsysbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("boot", "sysroot", "usr"):
        (source / name).mkdir()
    (source / "usr/large").write_bytes(LARGE)
    os.setxattr(source / "usr/large", "user.kept", b"or not")
    os.setxattr(source / "usr/large", "security.selinux", b"of_the_builder")
    with Dir.open(tmp_path) as parent:
        Repository.create(parent, name="store", secure=False).close()
    cfs = Cfs(tmp_path / "store", capsysbinary, monkeypatch)
    asis = "--no-propagate-usr-to-root"
    assert "of_the_builder" in cfs("create-dumpfile", asis, source)
    assert "of_the_builder" not in cfs("create-dumpfile", "--bootable", asis, source)
    assert "user.kept" in cfs("create-dumpfile", "--bootable", asis, source)


def test_the_id_is_that_of_the_layers(tmp_path: Path) -> None:
    """The same files, once in layers and once in a directory; times have nanoseconds."""
    times = {"mtime": "1234567890.123456789"}
    members = [
        *(directory(name, pax_headers=times) for name in ("usr", "boot", "sysroot", "var")),
        directory("usr/bin", 0o711, uid=7, pax_headers={"mtime": "0.000000001"}),
        file("usr/bin/a", b"a" * 4097, 0o4755, gid=8, pax_headers={"mtime": "9.5"}),
        hardlink("usr/bin/z", "usr/bin/a"),
        file("usr/bin/small", b"s", 0o600, pax_headers=times),
        symlink("usr/bin/link", "../x", pax_headers={"mtime": "3.000000003"}),
        file("boot/gone", b"b" * 100),
    ]
    layout = images.single(tmp_path / "layout", images.layer(*members))
    with open_layout(ImageReference.parse(layout.reference()), images.ARCHITECTURE) as opened:
        expected: Digest = compute_image_id(opened)

    made = tmp_path / "made"
    for name in ("usr/bin", "boot", "sysroot", "var"):
        (made / name).mkdir(parents=True)
    (made / "usr/bin/a").write_bytes(b"a" * 4097)
    os.link(made / "usr/bin/a", made / "usr/bin/z")
    (made / "usr/bin/small").write_bytes(b"s")
    (made / "usr/bin/link").symlink_to("../x")
    os.chown(made / "usr/bin", 7, 0)
    os.chown(made / "usr/bin/a", 0, 8)
    for name, mode in (("usr/bin", 0o711), ("usr/bin/a", 0o4755), ("usr/bin/small", 0o600)):
        os.chmod(made / name, mode)
    for name in ("usr", "boot", "sysroot", "var"):
        os.chmod(made / name, 0o755)
    usual = 1234567890_123456789
    for name, time in {
        **{"usr/bin/a": 9_500_000_000, "usr/bin/small": usual, "usr/bin/link": 3_000_000_003},
        **{"usr/bin": 1, "usr": usual, "boot": usual, "sysroot": usual, "var": usual},
    }.items():
        os.utime(made / name, ns=(time, time), follow_symlinks=False)
    with Dir.open(made) as top:
        tree = directory_tree(top).root
    assert verity_digest(mkfs_erofs(tree), Algorithm.SHA512) == expected, [*write_dumpfile(tree)]
