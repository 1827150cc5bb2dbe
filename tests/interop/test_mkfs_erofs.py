"""Images that ``mkfs.erofs`` makes without compression are read as the directory they show.

They lack composefs's header, and use what composefs does not: content in chunks and
blocks, checksums, labels.
"""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from bootc.formats.erofs.debug import describe_image
from bootc.formats.erofs.reader import InvalidImage, read_erofs
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.tree import (
    BlockDevice,
    CharDevice,
    Directory,
    Fifo,
    Inline,
    Leaf,
    Socket,
    Sparse,
    Symlink,
)
from support import require

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one of everything that an unprivileged user can make, or root."""
    top = tmp_path_factory.mktemp("source")
    (top / "dir/deep").mkdir(parents=True)
    (top / "crowd").mkdir()
    for i in range(400):
        (top / f"crowd/{i:0100}").write_bytes(b"%d" % i)
    for size in (0, 1, 100, 4096, 5000, 100_000):
        (top / f"size-{size}").write_bytes(bytes(i * i % 251 for i in range(size)))
    os.link(top / "size-100", top / "dir/deep/link")
    os.symlink("target", top / "symlink")
    os.mkfifo(top / "fifo", 0o600)
    with open(top / "hole", "wb") as file:
        file.truncate(1 << 20)
    with open(top / "partly", "wb") as file:
        file.truncate(100_000)
        os.pwrite(file.fileno(), b"x" * 10, 50_000)
    os.setxattr(top / "size-1", "user.k", b"value")
    os.setxattr(top / "dir", "user.k", b"value")
    os.setxattr(top / "dir", "user.long", b"v" * 3000)
    if os.geteuid() == 0:
        os.mknod(top / "char", stat.S_IFCHR | 0o640, os.makedev(1, 3))
        os.mknod(top / "block", stat.S_IFBLK | 0o640, os.makedev(259, 1_048_575))
        os.mknod(top / "00", stat.S_IFCHR | 0o640, 0)
        os.setxattr(top / "dir", "trusted.overlay.opaque", b"y")
        os.chown(top / "size-0", 70_000, 70_001)
    os.utime(top / "size-0", ns=(0, -1_500_000_000))
    return top


def make(source: Path, image: Path, *options: str) -> bytes:
    tool = require.tool("mkfs.erofs")
    done = subprocess.run(
        [tool, *options, image, source], capture_output=True, text=True, check=False
    )
    if done.returncode != 0 and "unrecognized option" in done.stderr:
        require.lacking(f"{tool} does not know {options}")
    assert done.returncode == 0, done.stderr
    return image.read_bytes()


def content_of(leaf: Leaf) -> bytes:
    match leaf.content:
        case Inline(data=data):
            return data
        case Sparse(size_bytes=size):
            return bytes(size)
        case _:
            raise AssertionError(leaf.content)


def check(path: str, node: Directory | Leaf) -> None:
    seen = os.lstat(path)
    assert node.stat.mode == stat.S_IMODE(seen.st_mode), path
    assert (node.stat.uid, node.stat.gid) == (seen.st_uid, seen.st_gid), path
    assert node.stat.mtime_s * 10**9 + node.stat.mtime_ns == seen.st_mtime_ns, path
    names = os.listxattr(path, follow_symlinks=False)
    assert node.stat.xattrs == {
        os.fsencode(name): os.getxattr(path, name, follow_symlinks=False) for name in names
    }
    if isinstance(node, Directory):
        assert sorted(node.entries) == sorted(os.listdir(os.fsencode(path)))
    elif stat.S_ISREG(seen.st_mode):
        assert content_of(node) == Path(path).read_bytes(), path
    elif stat.S_ISLNK(seen.st_mode):
        assert node.content == Symlink(os.fsencode(os.readlink(path)))
    else:
        assert (
            node.content
            == {
                stat.S_IFIFO: Fifo(),
                stat.S_IFSOCK: Socket(),
                stat.S_IFCHR: CharDevice(seen.st_rdev),
                stat.S_IFBLK: BlockDevice(seen.st_rdev),
            }[stat.S_IFMT(seen.st_mode)]
        )


@pytest.mark.parametrize(
    "options",
    [
        ["-x1"],
        ["-Eforce-inode-extended"],
        ["-Enoinline_data"],
        ["--chunksize=4096"],
        ["--chunksize=16384", "-Eforce-chunk-indexes"],
        ["-U12345678-1234-1234-1234-123456789abc"],
    ],
    ids=" ".join,
)
def test_what_is_packed_is_read(source: Path, tmp_path: Path, options: list[str]) -> None:
    image = make(source, tmp_path / "image", *options)
    tree = read_erofs(image)
    walked = 0
    for path, node in tree.walk():
        check(os.path.join(source, os.fsdecode(path.lstrip(b"/"))), node)
        walked += 1
    assert walked == 1 + sum(len(d) + len(f) for _, d, f in os.walk(source))
    assert tree.lookup("dir/deep/link") is tree.lookup("size-100")
    assert read_erofs(mkfs_erofs(tree)).lookup("size-5000") is not None
    lines = list(describe_image(image))
    assert not any("damage" in line for line in lines)


def test_one_time_for_all(source: Path, tmp_path: Path) -> None:
    """Without times of their own, inodes have the superblock's."""
    tree = read_erofs(make(source, tmp_path / "image", "-T1234567890", "--all-root"))
    assert {(n.stat.mtime_s, n.stat.mtime_ns) for _, n in tree.walk()} == {(1234567890, 0)}


@pytest.mark.parametrize("options", [["-zlz4"], ["-zlz4hc", "-C65536"]], ids=" ".join)
def test_compression_is_refused(source: Path, tmp_path: Path, options: list[str]) -> None:
    image = make(source, tmp_path / "image", *options)
    with pytest.raises(InvalidImage, match=r"incompatible features 0x\d+ \(compression"):
        read_erofs(image)
    assert any("damage: incompatible features" in line for line in describe_image(image))


def test_other_devices_are_refused(source: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.write_bytes(b"")
    options = ["--chunksize=4096", f"--blobdev={blobs}"]
    with pytest.raises(InvalidImage, match=r"several devices"):
        read_erofs(make(source, tmp_path / "image", *options))


def test_holes_are_not_multiplied(tmp_path: Path) -> None:
    """A little image of large files with a little data in each is too much to hold."""
    source = tmp_path / "source"
    source.mkdir()
    with open(source / "file", "wb") as file:
        file.truncate(1 << 26)
        os.pwrite(file.fileno(), b"x", 0)
    image = make(source, tmp_path / "image", "--chunksize=65536")
    with pytest.raises(InvalidImage, match=r"uses bytes that something else uses"):
        read_erofs(image)
