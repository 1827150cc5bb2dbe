"""The kernel mounts our images and shows what the tree holds: raw, and through overlayfs."""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.formats.digest import Algorithm, Digest
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.tree import (
    BlockDevice,
    CharDevice,
    Directory,
    External,
    Fifo,
    Inline,
    Leaf,
    Socket,
    Sparse,
    Stat,
    Symlink,
    Unverified,
)
from bootc.formats.verity import verity_digest
from support import require

pytestmark = pytest.mark.host

LABEL = {b"security.selinux": b"system_u:object_r:usr_t:s0\0"}
#: Owner read and write, group and others read, as the kernel's binary form.
ACL = struct.pack("<I HHI HHI HHI", 2, 1, 6, 2**32 - 1, 4, 4, 2**32 - 1, 32, 4, 2**32 - 1)
TYPES = {
    Symlink: stat.S_IFLNK,
    BlockDevice: stat.S_IFBLK,
    CharDevice: stat.S_IFCHR,
    Fifo: stat.S_IFIFO,
    Socket: stat.S_IFSOCK,
}


def tree() -> Directory:
    linked = Leaf(Stat(0o4755, 1000, 65536, 1_700_000_000, 999_999_999), Inline(b"linked"))
    contents = {
        b"empty": Inline(b""),
        b"inline": Inline(b"small"),
        **{b"inline-%d" % n: Inline(bytes(i % 251 for i in range(n))) for n in (2048, 2049, 9999)},
        b"sha256": External(Digest(Algorithm.SHA256, b"\x5a" * 32), 1 << 33),
        b"sha512": External(Digest(Algorithm.SHA512, b"\xa5" * 64), 65),
        b"unverified": Unverified(b"ab/cd.file", 4097),
        b"sparse": Sparse(1 << 40),
        b"char": CharDevice(os.makedev(1, 3)),
        b"block": BlockDevice(os.makedev(259, 1048575)),
        b"fifo": Fifo(),
        b"socket": Socket(),
        **{b"link-%d" % n: Symlink(b"t" * n) for n in (1, 500, 2000, 4000, 4064, 4095)},
    }
    return Directory(
        Stat(0o755, xattrs=dict(LABEL)),
        {
            b"contents": Directory(
                Stat(0o1777, 2**32 - 2, 1, 2**33, 7, dict(LABEL)),
                {n: Leaf(Stat(0o640, xattrs=dict(LABEL)), c) for n, c in contents.items()},
            ),
            b"crowd": Directory(
                Stat(0o700),
                {b"%0200d" % i: Leaf(Stat(0o600), Inline(b"%d" % i)) for i in range(1000)},
            ),
            b"half-block": Directory(
                Stat(0o700), {b"%060d" % i: Leaf(Stat(), Fifo()) for i in range(30)}
            ),
            b"linked": Directory(Stat(0o755), {b"z": linked}),
            b"also-linked": linked,
            b"xattrs": Leaf(
                Stat(
                    0o644,
                    xattrs={
                        b"user.text": b"value",
                        b"user.empty": b"",
                        b"user.long": b"v" * 5000,
                        b"trusted.overlay.opaque": b"the user's",
                        b"security.capability": b"\1\0\0\2" + bytes(16),
                        b"system.posix_acl_access": ACL,
                    },
                ),
                Inline(b"x" * 64),
            ),
            b"whiteouts": Directory(Stat(0o755), {b"gone": Leaf(Stat(0o600), CharDevice(0))}),
            b"\xff not utf-8 \n": Directory(Stat(0o755)),
        },
    )


def tree_for_version_2() -> Directory:
    """The tree without what version 2 has no room for."""
    root = tree()
    for _, node in root.walk():
        node.stat.mtime_ns = 0
        if isinstance(node, Directory):
            node.entries = {
                name: child
                for name, child in node.entries.items()
                if isinstance(child, Directory)
                or not isinstance(child.content, Inline | Symlink)
                or size_of(child) <= 512
            }
    return root


@contextlib.contextmanager
def mounted(options: list[str | Path], point: Path) -> Iterator[bytes]:
    require.root()
    point.mkdir()
    subprocess.run(["mount", *options, point], check=True)
    try:
        yield os.fsencode(point)
    finally:
        subprocess.run(["umount", point], check=True)


@contextlib.contextmanager
def mounted_image(image: bytes, directory: Path) -> Iterator[bytes]:
    file = directory / "image"
    file.write_bytes(image)
    with mounted(["-t", "erofs", "-o", "loop,ro", file], directory / "mnt") as point:
        yield point


def xattrs_of(path: bytes) -> dict[bytes, bytes]:
    return {
        os.fsencode(name): os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
    }


def stored_xattrs(node: Directory | Leaf) -> dict[bytes, bytes]:
    """What overlayfs is to find below: the user's, escaped, and where the content is."""
    prefix = b"trusted.overlay."
    xattrs = {
        prefix + b"overlay." + k[len(prefix) :] if k.startswith(prefix) else k: v
        for k, v in node.stat.xattrs.items()
    }
    match node:
        case Leaf(content=External(digest=digest)):
            size = 4 + len(digest.raw)
            header = bytes([0, size, 0, digest.algorithm.value])
            xattrs[b"trusted.overlay.metacopy"] = header + digest.raw
            xattrs[b"trusted.overlay.redirect"] = b"/" + digest.object_path.encode()
        case Leaf(content=Unverified(path=path)):
            xattrs[b"trusted.overlay.metacopy"] = b""
            xattrs[b"trusted.overlay.redirect"] = b"/" + path
        case Leaf(content=Sparse()):
            xattrs[b"trusted.overlay.metacopy"] = b""
    return xattrs


def size_of(leaf: Leaf) -> int:
    match leaf.content:
        case Inline(data=data) | Symlink(target=data):
            return len(data)
        case External(size_bytes=size) | Unverified(size_bytes=size) | Sparse(size_bytes=size):
            return size
        case _:
            return 0


def check(path: bytes, node: Directory | Leaf, nlink: int) -> None:
    seen = os.lstat(path)
    meta = node.stat
    file_type = stat.S_IFREG
    if isinstance(node, Directory):
        file_type = stat.S_IFDIR
    else:
        file_type = TYPES.get(type(node.content), stat.S_IFREG)
        assert seen.st_size == size_of(node), path
        if isinstance(node.content, Symlink):
            assert os.readlink(path) == node.content.target
        elif isinstance(node.content, Inline):
            with open(path, "rb") as file:
                assert file.read() == node.content.data, path
        elif isinstance(node.content, CharDevice | BlockDevice):
            assert seen.st_rdev == node.content.rdev
    assert seen.st_mode == file_type | meta.mode, path
    assert (seen.st_uid, seen.st_gid, seen.st_nlink) == (meta.uid, meta.gid, nlink), path
    assert seen.st_mtime_ns == meta.mtime_s * 10**9 + meta.mtime_ns, path
    assert xattrs_of(path) == stored_xattrs(node), path


def link_counts(root: Directory) -> dict[int, int]:
    links = {id(node): 0 for _, node in root.walk()}
    for _, node in root.walk():
        links[id(node)] += 1
        if isinstance(node, Directory):
            subdirectories = [n for n in node.entries.values() if isinstance(n, Directory)]
            links[id(node)] = 2 + len(subdirectories)
    return links


def test_the_kernel_shows_version_1(tmp_path: Path) -> None:
    root = tree()
    links = link_counts(root)
    walked = 0
    with mounted_image(mkfs_erofs(root), tmp_path) as point:
        for path, node in root.walk():
            if path in (b"/", b"/whiteouts", b"/whiteouts/gone"):
                continue
            if isinstance(node, Directory):
                assert sorted(os.listdir(point + path)) == sorted(node.entries)
            check(point + path, node, links[id(node)])
            walked += 1
        check_additions(point, root)
    assert walked == 1057


def check_additions(point: bytes, root: Directory) -> None:
    """See what version 1 adds to the tree."""
    marks = {b"trusted.overlay.overlay.opaque": b"x", b"trusted.overlay.overlay.whiteouts": b""}
    marks |= {b"user.overlay.opaque": b"x", b"user.overlay.whiteouts": b""}
    stubs = {b"%02x" % i for i in range(256)}
    assert set(os.listdir(point)) == set(root.entries) | stubs
    assert xattrs_of(point) == LABEL | {b"trusted.overlay.opaque": b"y"}
    assert os.lstat(point).st_nlink == 2 + 6
    stub = os.lstat(point + b"/7f")
    assert (stub.st_mode, stub.st_rdev) == (stat.S_IFCHR | 0o644, 0)
    assert xattrs_of(point + b"/7f") == LABEL
    assert xattrs_of(point + b"/whiteouts") == marks
    gone = os.lstat(point + b"/whiteouts/gone")
    assert (gone.st_mode, gone.st_size) == (stat.S_IFREG | 0o600, 0)
    assert xattrs_of(point + b"/whiteouts/gone") == {
        b"trusted.overlay.overlay.whiteout": b"",
        b"user.overlay.whiteout": b"",
    }


def test_the_kernel_shows_version_2(tmp_path: Path) -> None:
    root = tree_for_version_2()
    links = link_counts(root)
    walked = 0
    with mounted_image(mkfs_erofs(root, version=2), tmp_path) as point:
        for path, node in root.walk():
            if isinstance(node, Directory):
                assert sorted(os.listdir(point + path)) == sorted(node.entries), path
            check(point + path, node, links[id(node)])
            walked += 1
    assert walked == 1053


CONTENT = b"content of an object\n" * 1000


@pytest.mark.parametrize("version", [0, 1, 2])
def test_overlayfs_finds_contents_and_hides_what_composefs_added(
    tmp_path: Path, version: int
) -> None:
    digest = verity_digest(CONTENT, Algorithm.SHA512)
    objects = tmp_path / "objects"
    (objects / digest.object_path).parent.mkdir(parents=True)
    (objects / digest.object_path).write_bytes(CONTENT)
    own = {b"trusted.overlay.metacopy": b"mine", b"user.text": b"value"} | LABEL
    file = Leaf(Stat(0o640, 7, 8, 9, 0, dict(own)), External(digest, len(CONTENT)))
    root = Directory(
        Stat(0o755),
        {
            b"dir": Directory(Stat(0o750), {b"file": file}),
            b"file": file,
            b"small": Leaf(Stat(0o600), Inline(b"small")),
            b"link": Leaf(Stat(0o777), Symlink(b"dir/file")),
            b"ab": Directory(Stat(0o700)),
            b"whiteouts": Directory(Stat(0o755), {b"gone": Leaf(Stat(0o600), CharDevice(0))}),
        },
    )
    with contextlib.ExitStack() as stack:
        lower = stack.enter_context(mounted_image(mkfs_erofs(root, version=version), tmp_path))
        options = f"ro,metacopy=on,redirect_dir=on,lowerdir={os.fsdecode(lower)}::{objects}"
        arguments: list[str | Path] = ["-t", "overlay", "-o", options, "composefs"]
        point = stack.enter_context(mounted(arguments, tmp_path / "overlay"))
        assert sorted(os.listdir(point)) == sorted(root.entries)
        for name in (b"/file", b"/dir/file", b"/link"):
            with open(point + name, "rb") as opened:
                assert opened.read() == CONTENT
        with open(point + b"/small", "rb") as opened:
            assert opened.read() == b"small"
        seen = os.lstat(point + b"/file")
        assert (seen.st_mode, seen.st_uid, seen.st_gid) == (stat.S_IFREG | 0o640, 7, 8)
        assert (seen.st_size, seen.st_mtime, seen.st_nlink) == (len(CONTENT), 9, 2)
        assert xattrs_of(point + b"/file") == own
        assert xattrs_of(point) == {}
        gone = point + b"/whiteouts/gone"
        if version == 2:
            # Overlayfs takes the user's whiteout for its own.
            assert not os.path.lexists(gone)
        else:
            # What overlayfs on top of this one takes for a whiteout.
            assert xattrs_of(gone) == {
                b"trusted.overlay.whiteout": b"",
                b"user.overlay.whiteout": b"",
            }
            opaque = {b"trusted.overlay.opaque": b"x", b"user.overlay.opaque": b"x"}
            assert xattrs_of(point + b"/whiteouts") == (opaque if version else {}) | {
                b"trusted.overlay.whiteouts": b"",
                b"user.overlay.whiteouts": b"",
            }
