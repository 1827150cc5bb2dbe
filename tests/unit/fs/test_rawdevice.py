from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bootc.fs import rawdevice
from bootc.fs.readback import NotOnDisk


def test_the_start_is_replaced_and_the_rest_kept(tmp_path: Path) -> None:
    path = tmp_path / "part"
    path.write_bytes(b"x" * 10000)
    rawdevice.replace_start(str(path), b"new")
    assert path.read_bytes() == b"new" + b"x" * 9997
    assert rawdevice.read_start(str(path), 5) == b"newxx"
    assert rawdevice.size_of(str(path)) == 10000


def test_where_direct_writes_are_not_possible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, opened = tmp_path / "part", os.open
    path.write_bytes(bytes(4096))

    def without(name: str, flags: int, *rest: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)
        return opened(name, flags, *rest)

    monkeypatch.setattr(os, "open", without)
    rawdevice.replace_start(str(path), b"new")
    assert path.read_bytes()[:4] == b"new\0"


def test_content_is_written_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "part"
    path.write_bytes(b"x" * 100)
    rawdevice.write_content(str(path), [b"ab", b"", b"cd"])
    assert path.read_bytes() == b"abcd" + b"x" * 96
    monkeypatch.setattr(rawdevice, "_write_chunk", lambda fd, chunk: None)
    with pytest.raises(NotOnDisk, match="does not have the content"):
        rawdevice.write_content(str(path), [b"zz"])


def test_an_error_names_the_partition(tmp_path: Path) -> None:
    for call in (rawdevice.size_of, lambda path: rawdevice.write_content(path, [b"x"])):
        with pytest.raises(FileNotFoundError) as caught:
            call(str(tmp_path / "none"))
        assert caught.value.filename == str(tmp_path / "none")
