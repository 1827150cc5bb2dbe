"""fs-verity ioctls: encoding, and the answers of a kernel or filesystem without it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bootc.kernel import fsverity

UNSUPPORTED = f"{os.strerror(errno.ENOTTY)}|{os.strerror(errno.EOPNOTSUPP)}"


def ioc(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | ord("f") << 8 | number


def test_numbers_are_those_of_the_header() -> None:
    assert ioc(1, 133, fsverity._ENABLE_ARG.size) == fsverity.FS_IOC_ENABLE_VERITY
    assert ioc(3, 134, fsverity._DIGEST.size) == fsverity.FS_IOC_MEASURE_VERITY


def test_pipe_has_no_verity() -> None:
    reader, writer = os.pipe()
    try:
        with pytest.raises(OSError, match=UNSUPPORTED):
            fsverity.measure(reader)
        with pytest.raises(OSError, match=UNSUPPORTED):
            fsverity.enable(reader, fsverity.FS_VERITY_HASH_ALG_SHA512)
    finally:
        os.close(reader)
        os.close(writer)


def test_plain_file_is_not_measured(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"x")
    fd = os.open(tmp_path / "plain", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match=f"{UNSUPPORTED}|{os.strerror(errno.ENODATA)}"):
            fsverity.measure(fd)
    finally:
        os.close(fd)
