"""Changes are whole, and leave nothing behind when they fail."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bootc.fs import atomic
from bootc.fs.atomic import Tmpfile, exchange, replace_symlink, write_file, write_stream
from bootc.fs.dir import Dir
from bootc.fs.readback import NotOnDisk

CREATORS = [Tmpfile.create, Tmpfile.create_named]


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Dir]:
    with Dir.open(tmp_path) as directory:
        yield directory


@pytest.mark.parametrize("durable", [True, False])
def test_write_file_replaces(directory: Dir, durable: bool) -> None:
    write_file(directory, "f", b"old", durable=durable)
    write_file(directory, "f", b"new", mode=0o600, durable=durable)
    assert directory.read_bytes("f") == b"new"
    assert stat.S_IMODE(directory.stat("f").st_mode) == 0o600
    assert directory.names() == ["f"]


def test_a_file_gets_the_metadata_of_another(directory: Dir) -> None:
    write_file(directory, "f", b"old", mode=0o640, durable=False)
    with open(directory.open_regular("f"), "rb") as file:
        os.fchmod(file.fileno(), 0o2640)
        os.setxattr(file.fileno(), "user.x", b"1")
        before = os.fstat(file.fileno())
        write_file(directory, "f", b"new", like=file.fileno(), durable=True)
    after = directory.stat("f")
    assert directory.read_bytes("f") == b"new"
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        *(before.st_mode, before.st_uid, before.st_gid),
    )
    with open(directory.open_regular("f"), "rb") as file:
        assert os.getxattr(file.fileno(), "user.x") == b"1"


@pytest.mark.root
def test_a_file_gets_the_owner_of_another(directory: Dir) -> None:
    write_file(directory, "f", b"old", durable=False)
    with open(directory.open_regular("f"), "rb") as file:
        os.fchown(file.fileno(), 1, 2)
        os.fchmod(file.fileno(), 0o6750)
        write_file(directory, "f", b"new", like=file.fileno(), durable=False)
    found = directory.stat("f")
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1, 2, 0o6750)


def test_write_file_that_fails_leaves_nothing(directory: Dir) -> None:
    directory.mkdir("f")
    with pytest.raises(IsADirectoryError):
        write_file(directory, "f", b"new", durable=True)
    assert directory.names() == ["f"]


def test_where_a_file_begins_is_on_the_disk_before_most_of_it(
    directory: Dir, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noting(fd: int) -> None:
        size = os.fstat(fd).st_size
        synced.append("directory" if fd == directory.fileno() else f"{size} bytes")
        fsync(fd)

    def chunks() -> Iterator[bytes]:
        yield b"1" * 10
        assert synced == []
        yield b"2" * 10
        assert synced == ["10 bytes", "directory"]
        yield b"3" * 10

    monkeypatch.setattr(os, "fsync", noting)
    write_stream(directory, "file", chunks())
    assert synced == ["10 bytes", "directory", "30 bytes", "30 bytes", "directory"]
    assert directory.read_bytes("file", 100) == b"1" * 10 + b"2" * 10 + b"3" * 10


def test_what_was_cut_short_is_taken_over(directory: Dir) -> None:
    (Path(directory.path) / ".tmp-file-file").write_bytes(b"half of")
    write_stream(directory, "file", iter([b"whole"]))
    assert directory.names() == ["file"]
    assert directory.read_bytes("file", 100) == b"whole"


def test_chunks_that_end_in_an_exception_leave_nothing(directory: Dir) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"1"
        yield b"2"
        raise OSError("damaged")

    with pytest.raises(OSError, match="damaged"):
        write_stream(directory, "file", chunks())
    assert directory.names() == []


def test_a_disk_that_keeps_something_else(directory: Dir, monkeypatch: pytest.MonkeyPatch) -> None:
    write_stream(directory, "file", [b"old"])
    monkeypatch.setattr(atomic, "write_all", lambda fd, data: os.write(fd, data[::-1]))
    with pytest.raises(NotOnDisk, match=r"/file does not have the content that was written to it$"):
        write_stream(directory, "file", [b"one", b"two"])
    assert directory.names() == ["file"]
    assert directory.read_bytes("file", 100) == b"old"


def test_replace_symlink(directory: Dir) -> None:
    directory.mkdir("d")
    for target in ("one", "two", "two"):
        replace_symlink(directory, "d/link", target)
        assert directory.readlink("d/link") == target
    assert directory.names() == ["d"]
    with directory.open_dir("d") as below:
        assert below.names() == ["link"]


def test_replace_symlink_keeps_its_hands_off_files(directory: Dir) -> None:
    write_file(directory, "f", b"data", durable=False)
    with pytest.raises(OSError, match="Invalid argument"):
        replace_symlink(directory, "f", "target")
    assert directory.read_bytes("f") == b"data"


def test_replace_symlink_needs_the_directory(directory: Dir) -> None:
    with pytest.raises(FileNotFoundError):
        replace_symlink(directory, "no/link", "target")
    assert directory.names() == []


def test_exchange(directory: Dir) -> None:
    write_file(directory, "a", b"1", durable=False)
    write_file(directory, "b", b"2", durable=False)
    exchange(directory, "a", "b")
    assert (directory.read_bytes("a"), directory.read_bytes("b")) == (b"2", b"1")
    with pytest.raises(FileNotFoundError):
        exchange(directory, "a", "missing")


@pytest.mark.parametrize("create", CREATORS)
def test_tmpfile_publishes_once(directory: Dir, create: Callable[[Dir], Tmpfile]) -> None:
    directory.mkdir("d")
    for content, fresh in ((b"first", True), (b"second", False)):
        with create(directory) as tmpfile:
            tmpfile.write(content[:2])
            tmpfile.write(memoryview(content)[2:])
            fd = tmpfile.reopen()
            assert os.pread(fd, 9, 0) == content
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.write(fd, b"x")
            assert tmpfile.publish(directory, "d/name") is fresh
    assert directory.read_bytes("d/name") == b"first"
    assert stat.S_IMODE(directory.stat("d/name").st_mode) == 0o644
    assert directory.names() == ["d"]


@pytest.mark.parametrize("create", CREATORS)
def test_tmpfile_replaces_when_told_to(directory: Dir, create: Callable[[Dir], Tmpfile]) -> None:
    write_file(directory, "name", b"damaged", durable=False)
    with create(directory) as tmpfile:
        tmpfile.write(b"good")
        tmpfile.replace(directory, "name")
    assert directory.read_bytes("name") == b"good"
    assert directory.names() == ["name"]


@pytest.mark.parametrize("create", CREATORS)
def test_tmpfile_unpublished_is_gone(directory: Dir, create: Callable[[Dir], Tmpfile]) -> None:
    with create(directory) as tmpfile:
        tmpfile.write(b"data")
    tmpfile.close()
    assert directory.names() == []
    with pytest.raises(ValueError, match="closed"):
        tmpfile.fileno()


@pytest.mark.parametrize("create", CREATORS)
def test_tmpfile_renewed_is_another_inode(
    directory: Dir, create: Callable[[Dir, int], Tmpfile]
) -> None:
    content = os.urandom(300_000)
    with create(directory, 0o640) as tmpfile:
        tmpfile.write(content)
        tmpfile.reopen()
        before = os.fstat(tmpfile.fileno()).st_ino
        tmpfile.renew()
        assert os.fstat(tmpfile.fileno()).st_ino != before
        tmpfile.write(b"end")
        assert tmpfile.publish(directory, "name")
    assert directory.read_bytes("name") == content + b"end"
    assert stat.S_IMODE(directory.stat("name").st_mode) == 0o640
    assert directory.names() == ["name"]


def write_as_file(directory: Dir, name: str) -> None:
    write_file(directory, name, b"x", durable=True)


def write_as_stream(directory: Dir, name: str) -> None:
    write_stream(directory, name, [b"x", b"y"])


@pytest.mark.parametrize("write", [write_as_file, write_as_stream])
@pytest.mark.parametrize(("call", "error"), [("write", errno.ENOSPC), ("fsync", errno.EIO)])
def test_a_failed_write_names_the_file(
    directory: Dir,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[Dir, str], None],
    call: str,
    error: int,
) -> None:
    def fail(*args: object) -> int:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match=os.strerror(error)) as caught:
        write(directory, "f")
    assert caught.value.filename == f"{directory.path}/f"
    assert directory.names() == []


def test_a_source_that_fails_is_not_taken_for_the_target(directory: Dir) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"x"
        raise OSError(errno.EIO, "Input/output error", "source")

    with pytest.raises(OSError, match="Input/output error") as caught:
        write_stream(directory, "f", pieces())
    assert caught.value.filename == "source"
