from __future__ import annotations

import errno
import os
import re
import socket
import stat
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bootc.errors import one_line
from bootc.formats.digest import Algorithm, Digest
from bootc.formats.tree import (
    Directory,
    External,
    Fifo,
    Inline,
    Leaf,
    Socket,
    Stat,
    Symlink,
)
from bootc.formats.verity import VerityHasher, verity_digest
from bootc.fs.dir import Dir
from bootc.fs.tree_read import TreeChanged, TreeTooLarge, read_tree
from support import deep
from support.descriptors import none_left_open
from support.protection import APPEND, IMMUTABLE, set_flags, unprotect
from support.rights import bound_by_mode

SHA256 = Algorithm.SHA256


class Digests:
    """A sink that only hashes, and calls back before each piece."""

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self.pieces: list[int] = []
        self.zeros = 0
        self._before = before

    @contextmanager
    def writer(self) -> Iterator[Digests]:
        self._hasher = VerityHasher(SHA256)
        yield self

    def clone(self, fd: int) -> bool:
        return False

    def write(self, data: memoryview) -> None:
        self._before()
        self.pieces.append(len(data))
        self._hasher.update(data)

    def write_zeros(self, count: int) -> None:
        self.zeros += count
        self._hasher.update_zeros(count)

    def commit(self) -> Digest:
        return self._hasher.digest()


def read(top: Path, before: Callable[[], None] = lambda: None) -> Directory:
    with Dir.open(top) as directory:
        return read_tree(directory, Digests(before))


def leaf(root: Directory, path: str) -> Leaf:
    node = root.lookup(path)
    assert isinstance(node, Leaf)
    return node


def test_kinds(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "small").write_bytes(b"s" * 64)
    (tmp_path / "large").write_bytes(b"l" * 65)
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/link").symlink_to("../nowhere/at/all")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        root = read(tmp_path)
    assert [path for path, _ in root.walk()] == [
        *(b"/", b"/d", b"/d/e", b"/d/link", b"/empty", b"/large", b"/pipe", b"/small", b"/socket"),
    ]
    assert leaf(root, "empty").content == Inline(b"")
    assert leaf(root, "small").content == Inline(b"s" * 64)
    assert leaf(root, "large").content == External(verity_digest(b"l" * 65, SHA256), 65)
    assert leaf(root, "d/link").content == Symlink(b"../nowhere/at/all")
    assert leaf(root, "pipe").content == Fifo()
    assert leaf(root, "socket").content == Socket()


def test_metadata(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "d").mkdir()
    (tmp_path / "l").symlink_to("f")
    os.chmod(tmp_path / "f", 0o4751)
    os.chmod(tmp_path / "d", 0o1777)
    os.setxattr(tmp_path / "f", "user.empty", b"")
    os.setxattr(tmp_path / "d", "user.d", b"\0\xff")
    os.utime(tmp_path / "f", ns=(1, 2_000_000_003))
    os.utime(tmp_path / "d", ns=(1, -1))
    os.utime(tmp_path / "l", ns=(1, 5), follow_symlinks=False)
    root = read(tmp_path)
    owners = os.stat(tmp_path / "d")
    owner = (owners.st_uid, owners.st_gid)
    assert leaf(root, "f").stat == Stat(0o4751, *owner, 2, 3, {b"user.empty": b""})
    directory = root.lookup("d")
    assert directory is not None
    assert directory.stat == Stat(0o1777, *owner, -1, 999_999_999, {b"user.d": b"\0\xff"})
    assert leaf(root, "l").stat == Stat(0o777, *owner, 0, 5)
    info = tmp_path.stat()
    assert root.stat.mode == stat.S_IMODE(info.st_mode)
    assert (root.stat.mtime_s, root.stat.mtime_ns) == divmod(info.st_mtime_ns, 10**9)


def test_names_are_bytes(tmp_path: Path) -> None:
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n"))).mkdir()
    assert list(read(tmp_path).entries) == [b"\xff\n"]


def test_hard_links(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name, make in (("f", Path.touch), ("p", os.mkfifo)):
        make(tmp_path / name)
        os.link(tmp_path / name, tmp_path / "d" / name)
    (tmp_path / "l").symlink_to("x")
    os.link(tmp_path / "l", tmp_path / "d/l", follow_symlinks=False)
    (tmp_path / "g").touch()
    root = read(tmp_path)
    for name in "fpl":
        assert root.lookup(name) is root.lookup(f"d/{name}")
    assert root.lookup("f") is not root.lookup("g")


def test_a_linked_file_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)
    os.link(tmp_path / "a", tmp_path / "b")
    sink = Digests()
    with Dir.open(tmp_path) as top:
        read_tree(top, sink)
    assert sink.pieces == [100]


def test_constant_memory(tmp_path: Path) -> None:
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(64 << 20)
    (tmp_path / "few").write_bytes(b"x" * 1000)
    sink = Digests()
    with Dir.open(tmp_path) as top:
        tracemalloc.start()
        try:
            read_tree(top, sink)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert (sum(sink.pieces), sink.zeros) == (1000, 64 << 20)
    assert peak < 8 << 20


def test_deeper_than_python_calls_and_than_files_may_be_opened() -> None:
    with deep.directory() as top:
        deep.make_deep(top)
        with deep.few_descriptors():
            root = read(top)
    assert sum(isinstance(node, Directory) for _, node in root.walk()) == deep.DEPTH + 1


def test_a_tree_deeper_than_any_image_has_is_refused() -> None:
    with deep.directory() as top:
        deep.make_deep(top, 2100)
        with (
            none_left_open(),
            pytest.raises(OSError, match="nested deeper than 2048") as caught,
        ):
            read(top)
    assert one_line(caught.value).startswith(f"Reading {top}/.../d/d/d/")


@pytest.mark.parametrize("size", [65, 4096, 1 << 20, (3 << 20) + 1, 1 << 40])
@pytest.mark.parametrize("data", [[], [0], [-1], [0, -1], [5000, 1 << 19]])
def test_holes_are_not_read(tmp_path: Path, size: int, data: list[int]) -> None:
    offsets = sorted({offset % size for offset in data})
    expected = VerityHasher(SHA256)
    with open(tmp_path / "f", "wb") as file:
        for offset in offsets:
            file.seek(offset)
            file.write(b"x")
            expected.update_zeros(offset - expected.size_bytes)
            expected.update(b"x")
        file.truncate(size)
    expected.update_zeros(size - expected.size_bytes)
    sink = Digests()
    with Dir.open(tmp_path) as top:
        root = read_tree(top, sink)
    assert leaf(root, "f").content == External(expected.digest(), size)
    assert sum(sink.pieces) <= 4096 * len(offsets)


def test_more_than_is_wanted_is_not_read(tmp_path: Path) -> None:
    for name, size in (("a", 70_000), ("b", 90_000), ("c", 80_000)):
        (tmp_path / name).write_bytes(b"x" * size)
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 40)
    with Dir.open(tmp_path) as top:
        assert len(read_tree(top, Digests(), limit_bytes=300_000).entries) == 4
        sink = Digests()
        with pytest.raises(TreeTooLarge) as caught:
            read_tree(top, sink, limit_bytes=100_000)
    assert sum(sink.pieces) <= 100_000
    assert re.fullmatch(
        f"{tmp_path} holds more than 100000 bytes; the largest file so far is {tmp_path}/"
        r"(a with 70000|b with 90000|c with 80000) \(hint: keep large files in /var, .*\)",
        one_line(caught.value),
    )


@pytest.mark.root
@pytest.mark.parametrize("flags", [IMMUTABLE, APPEND, IMMUTABLE | APPEND])
def test_what_chattr_protects(tmp_path: Path, flags: int) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").touch()
    for path in (tmp_path / "d/f", tmp_path / "d"):
        set_flags(path, flags)
    try:
        root = read(tmp_path)
    finally:
        unprotect(tmp_path)
    found = {path: node.stat.protection for path, node in root.walk()}
    assert found == {b"/": 0, b"/d": flags, b"/d/f": flags}


def test_a_symlink_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "top").mkdir()
    (tmp_path / "secret").write_bytes(b"x" * 1000)
    (tmp_path / "top/link").symlink_to(tmp_path / "secret")
    assert leaf(read(tmp_path / "top"), "link").content == Symlink(os.fsencode(tmp_path / "secret"))


def append(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"x")


def rewrite(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"y")
    os.utime(path, ns=(7, 7))


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        (lambda top: append(top / "d/file"), "d/file"),
        (lambda top: rewrite(top / "d/file"), "d/file"),
        (lambda top: os.truncate(top / "d/file", 4096), "d/file"),
        (lambda top: (top / "d/new").touch(), "d"),
        (lambda top: os.utime(top, ns=(7, 7)), ""),
    ],
    ids=["grows", "rewritten", "shrinks", "new-entry", "top"],
)
def test_changes_are_noticed(
    tmp_path: Path, change: Callable[[Path], object], changed: str
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/file").write_bytes(b"x" * (3 << 20))
    message = f"{tmp_path / changed} changed while it was read"
    with pytest.raises(TreeChanged, match=f"^{re.escape(message)}$") as caught:
        read(tmp_path, lambda: change(tmp_path))
    assert one_line(caught.value) == (
        f"{message} (hint: nothing may write to the directory meanwhile)"
    )


def test_a_file_that_grows_for_ever(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"x" * 100)
    with pytest.raises(TreeChanged):
        read(tmp_path, lambda: append(tmp_path / "log"))


def test_a_pipe_in_the_place_of_a_file_does_not_hang(tmp_path: Path) -> None:
    # Whatever the race brings, it ends.
    (tmp_path / "x").touch()
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.mkfifo(tmp_path / "pipe")
            os.rename(tmp_path / "pipe", tmp_path / "x")
            (tmp_path / "file").touch()
            os.rename(tmp_path / "file", tmp_path / "x")

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(50):
            try:
                read(tmp_path)
            except (TreeChanged, FileNotFoundError):
                continue
    finally:
        stop.set()
        swapper.join()


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/secret").write_bytes(b"x" * 100)
    os.chmod(tmp_path, 0o755)
    with (
        Dir.open(tmp_path) as top,
        bound_by_mode(tmp_path / "d/secret", 0),
        pytest.raises(PermissionError) as caught,
    ):
        read_tree(top, Digests())
    assert one_line(caught.value) == (
        f"Reading {tmp_path}/d/secret: secret: {os.strerror(errno.EACCES)}"
    )
