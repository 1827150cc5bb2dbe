"""Files on a boot partition: whole, or of a name that the next call takes over."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.boot.writing import write_stream
from bootc.fs.dir import Dir


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Dir]:
    with Dir.open(tmp_path) as directory:
        yield directory


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
