"""The file system calls do what their manual pages say."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.kernel import files


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_openat2_opens_beneath(fd: int, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_bytes(b"x")
    found = files.openat2(fd, "d/f", os.O_RDONLY | os.O_CLOEXEC, 0, files.RESOLVE_BENEATH)
    assert os.read(found, 9) == b"x"
    assert not os.get_inheritable(found)
    os.close(found)


@pytest.mark.parametrize("path", ["..", "/etc", "out/passwd", "up/x"])
def test_openat2_refuses_to_leave(fd: int, tmp_path: Path, path: str) -> None:
    (tmp_path / "out").symlink_to("/etc")
    (tmp_path / "up").symlink_to("..")
    with pytest.raises(OSError, match="cross-device") as caught:
        files.openat2(fd, path, os.O_RDONLY, 0, files.RESOLVE_BENEATH)
    assert caught.value.errno == errno.EXDEV


def test_renameat2_exchanges(fd: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").mkdir()
    files.renameat2(fd, "a", fd, "b", files.RENAME_EXCHANGE)
    assert (tmp_path / "b").read_bytes() == b"a"
    assert (tmp_path / "a").is_dir()


def test_renameat2_does_not_replace(fd: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    with pytest.raises(FileExistsError) as caught:
        files.renameat2(fd, "a", fd, "b", files.RENAME_NOREPLACE)
    assert (caught.value.filename, caught.value.filename2) == ("a", "b")
    files.renameat2(fd, "a", fd, "c", files.RENAME_NOREPLACE)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "c"]


def test_syncfs(fd: int) -> None:
    files.syncfs(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        files.syncfs(-1)


def test_ficlone_across_file_systems_fails(tmp_path: Path) -> None:
    with open(tmp_path / "x", "wb") as target, open("/proc/self/status", "rb") as source:
        with pytest.raises(OSError) as caught:  # noqa: PT011  (the errno is what is asserted)
            files.ficlone(target.fileno(), source.fileno())
        assert caught.value.errno in (errno.EXDEV, errno.EOPNOTSUPP)
