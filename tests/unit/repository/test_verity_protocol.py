"""Enabling fs-verity survives the moments in which a child holds our descriptors."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.formats.digest import Algorithm
from bootc.formats.verity import verity_digest
from bootc.fs.atomic import Tmpfile
from bootc.fs.dir import Dir
from bootc.kernel import fsverity
from bootc.repository import sealing
from support.verity import FakeVerity


@pytest.fixture
def tmpfile(tmp_path: Path) -> Iterator[Tmpfile]:
    with Dir.open(tmp_path) as directory, Tmpfile.create(directory) as tmpfile:
        tmpfile.write(b"content")
        yield tmpfile


@pytest.mark.parametrize(("busy", "copied"), [(0, False), (3, False), (4, True)])
def test_a_busy_file_is_tried_again_then_copied(tmpfile: Tmpfile, busy: int, copied: bool) -> None:
    before = os.fstat(tmpfile.fileno()).st_ino
    kernel = FakeVerity(busy=busy)
    sealing.enable(tmpfile, Algorithm.SHA256, kernel)
    assert sealing.measure(tmpfile.fileno(), kernel) == (
        1,
        verity_digest(b"content", Algorithm.SHA256).raw,
    )
    assert kernel.enabled == [os.fstat(tmpfile.fileno()).st_ino]
    assert (kernel.enabled != [before]) is copied


def test_a_file_that_stays_busy_is_an_error(tmpfile: Tmpfile) -> None:
    with pytest.raises(OSError, match="busy") as caught:
        sealing.enable(tmpfile, Algorithm.SHA256, FakeVerity(busy=1000))
    assert caught.value.errno == errno.ETXTBSY


@pytest.mark.parametrize("error", [errno.EOPNOTSUPP, errno.ENOTTY, errno.ENODATA])
def test_no_verity_measures_as_none(tmpfile: Tmpfile, error: int) -> None:
    assert sealing.measure(tmpfile.fileno(), FakeVerity(error=error)) is None


def test_other_errors_of_measuring_stay(tmpfile: Tmpfile) -> None:
    with pytest.raises(OSError, match="Input/output"):
        sealing.measure(tmpfile.fileno(), FakeVerity(error=errno.EIO))


def test_the_real_kernel_is_a_verity(tmpfile: Tmpfile) -> None:
    kernel: sealing.Verity = fsverity
    assert sealing.measure(tmpfile.fileno(), kernel) is None
