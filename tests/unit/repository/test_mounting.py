"""Which images open. Mounting them is in tests/host."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bootc.errors import one_line
from bootc.repository.layout import image_path, link_to_object, object_path
from bootc.repository.mounting import ImageNotFound, ImageNotTrusted, open_verified_image
from support.descriptors import none_left_open

HEX = "5a" * 64
CONTENT = b"not really EROFS"

Measure = Callable[[int], tuple[int, bytes]]


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[int]:
    (tmp_path / object_path(HEX)).parent.mkdir(parents=True)
    (tmp_path / object_path(HEX)).write_bytes(CONTENT)
    (tmp_path / "images").mkdir()
    (tmp_path / image_path(HEX)).symlink_to(link_to_object(HEX))
    fd = os.open(tmp_path, os.O_PATH)
    with none_left_open():
        yield fd
    os.close(fd)


def answering(algorithm: int, digest: str) -> Measure:
    return lambda fd: (algorithm, bytes.fromhex(digest))


def failing(number: int) -> Measure:
    def measure(fd: int) -> tuple[int, bytes]:
        raise OSError(number, os.strerror(number))

    return measure


@pytest.mark.parametrize("require_verity", [True, False])
def test_the_right_image_opens(repo: int, require_verity: bool) -> None:
    fd = open_verified_image(repo, HEX, require_verity=require_verity, measure=answering(2, HEX))
    assert os.read(fd, 100) == CONTENT  # the whole file was read, the position was not moved
    assert not os.get_inheritable(fd)
    os.close(fd)


@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [(2, "5b" * 64), (2, "5a" * 32), (1, HEX), (7, HEX)],
    ids=["other digest", "shorter digest", "other algorithm", "unknown algorithm"],
)
@pytest.mark.parametrize("require_verity", [True, False])
def test_another_image_is_refused_however_little_is_demanded(
    repo: int, algorithm: int, digest: str, require_verity: bool
) -> None:
    with pytest.raises(ImageNotTrusted) as caught:
        open_verified_image(
            repo, HEX, require_verity=require_verity, measure=answering(algorithm, digest)
        )
    assert one_line(caught.value) == (
        f"image {HEX}: fs-verity: digest mismatch: the file measures {digest}"
    )


NO_VERITY = [errno.ENODATA, errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS]


@pytest.mark.parametrize("number", NO_VERITY)
def test_missing_verity_is_refused_where_demanded(repo: int, number: int) -> None:
    with pytest.raises(ImageNotTrusted) as caught:
        open_verified_image(repo, HEX, require_verity=True, measure=failing(number))
    assert one_line(caught.value) == f"image {HEX}: not protected by fs-verity"


@pytest.mark.parametrize("number", NO_VERITY)
def test_missing_verity_is_tolerated_elsewhere(repo: int, number: int) -> None:
    os.close(open_verified_image(repo, HEX, require_verity=False, measure=failing(number)))


@pytest.mark.parametrize("require_verity", [True, False])
def test_failing_measurement_is_never_taken_for_missing_verity(
    repo: int, require_verity: bool
) -> None:
    with pytest.raises(OSError, match="Input/output") as caught:
        open_verified_image(repo, HEX, require_verity=require_verity, measure=failing(errno.EIO))
    assert one_line(caught.value) == f"image {HEX}: fs-verity: Input/output error"


def test_the_kernel_measures_by_default(repo: int) -> None:
    with pytest.raises(ImageNotTrusted, match="not protected"):
        open_verified_image(repo, HEX, require_verity=True)


def test_damage_stops_here_with_its_name(repo: int, tmp_path: Path) -> None:
    # A regular file whose first page the kernel cannot read: nothing is mapped at address 0.
    (tmp_path / image_path(HEX)).unlink()
    (tmp_path / image_path(HEX)).symlink_to("/proc/self/mem")
    with pytest.raises(OSError, match="Input/output") as caught:
        open_verified_image(repo, HEX, require_verity=True, measure=answering(2, HEX))
    assert one_line(caught.value) == (f"image {HEX}: fs-verity: data corrupted: Input/output error")


@pytest.mark.parametrize("missing", ["link", "object"])
def test_missing_image(repo: int, tmp_path: Path, missing: str) -> None:
    (tmp_path / (image_path(HEX) if missing == "link" else object_path(HEX))).unlink()
    with pytest.raises(ImageNotFound) as caught:
        open_verified_image(repo, HEX, require_verity=False)
    assert one_line(caught.value) == f"image {HEX}: not in the repository"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_neither_opens_nor_hangs(
    repo: int, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    (tmp_path / object_path(HEX)).unlink()
    make(tmp_path / object_path(HEX))
    with pytest.raises(ImageNotTrusted, match="not a regular file"):
        open_verified_image(repo, HEX, require_verity=False)
