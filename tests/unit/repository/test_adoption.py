"""Repositories that upstream made: objects with fs-verity, and a ``meta.json`` without."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bootc.events import Message
from bootc.formats.digest import Digest
from bootc.fs.dir import Dir
from bootc.repository import adoption
from bootc.repository.repository import Repository
from bootc.repository.sealing import VerityMissing
from support.verity import FakeVerity

#: More than one in a directory, so that a sample is not all of them.
CONTENTS = [bytes([number % 256]) * 100 + str(number).encode() for number in range(600)]


@pytest.fixture
def kernel() -> FakeVerity:
    return FakeVerity()


@pytest.fixture
def stored(parent: Dir, kernel: FakeVerity) -> list[Digest]:
    """Make such a repository; return its objects."""
    with Repository.create(parent, secure=False, verity=kernel) as repository:
        return [repository.objects.put(content) for content in CONTENTS]


def opened(parent: Dir, kernel: FakeVerity, *, demanded: bool = True) -> Repository:
    return Repository.open(
        parent, require_verity=demanded, adopt=True, writable=True, verity=kernel
    )


def adopted(parent: Dir, kernel: FakeVerity) -> list[str]:
    """Open and adopt it; return what was said."""
    said: list[str] = []

    def sink(event: object) -> None:
        assert isinstance(event, Message)
        said.append(event.text)

    with opened(parent, kernel) as repository:
        if not repository.sealed:
            adoption.require_adoptable(repository, verity=kernel)
            adoption.adopt(repository, sink, verity=kernel)
    return said


def everything(parent: Dir) -> dict[str, tuple[int, bytes]]:
    root = Path(parent.path, "composefs")
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_ino, path.read_bytes()) for path in files}


@pytest.mark.usefixtures("stored")
def test_adopted_once(parent: Dir, kernel: FakeVerity) -> None:
    before, enabled = everything(parent), len(kernel.enabled)
    said = adopted(parent, kernel)
    where = f"{parent.path}/composefs"
    assert said == [f"Adopted {where}: fs-verity is enabled on its meta.json, too."]
    assert kernel.enabled[enabled:] == [os.stat(f"{where}/meta.json").st_ino]
    assert everything(parent) == before
    # From then on everybody has to honour it, and nothing is said or done again.
    assert adopted(parent, kernel) == []
    with Repository.open(parent, require_verity=True, verity=kernel) as repository:
        assert repository.sealed
    with Repository.open(parent, require_verity=False, verity=kernel) as repository:
        assert repository.secure
    assert len(kernel.enabled) == enabled + 1


def test_verity_is_demanded_before_it_is_adopted(
    parent: Dir, kernel: FakeVerity, stored: list[Digest]
) -> None:
    with opened(parent, kernel) as repository:
        assert (repository.secure, repository.sealed) == (True, False)
        assert repository.objects.read(stored[0]) == CONTENTS[0]
        replace_without_verity(Path(parent.path), stored[1], CONTENTS[1])
        with pytest.raises(VerityMissing):
            repository.objects.read(stored[1])


@pytest.mark.usefixtures("stored")
def test_who_demands_nothing_adopts_nothing(parent: Dir, kernel: FakeVerity) -> None:
    enabled = len(kernel.enabled)
    with opened(parent, kernel, demanded=False) as repository:
        assert (repository.secure, repository.sealed) == (False, False)
    assert len(kernel.enabled) == enabled


def test_objects_without_verity_are_refused(
    parent: Dir, kernel: FakeVerity, stored: list[Digest]
) -> None:
    for digest, content in zip(stored, CONTENTS, strict=True):
        replace_without_verity(Path(parent.path), digest, content)
    enabled = len(kernel.enabled)
    with pytest.raises(VerityMissing, match=r"objects/00/\w+ has no fs-verity, and the ker") as no:
        adopted(parent, kernel)
    assert "cfs --require-verity fsck --repair" in (no.value.hint or "")
    assert len(kernel.enabled) == enabled


def test_a_bounded_sample_is_measured(
    parent: Dir, kernel: FakeVerity, stored: list[Digest]
) -> None:
    with opened(parent, kernel) as repository:
        sampled = [found.path for found in adoption.sample_objects(repository.dir, kernel)]
    assert len(sampled) == len({digest.hex[:2] for digest in stored}) <= 256 < len(stored)


@pytest.mark.parametrize("error", [errno.EOPNOTSUPP, errno.ENOSPC, errno.EIO, errno.ETXTBSY])
@pytest.mark.usefixtures("stored")
def test_a_failure_leaves_everything_as_it_was(
    parent: Dir, kernel: FakeVerity, error: int, caplog: pytest.LogCaptureFixture
) -> None:
    before = everything(parent)
    failing = FakeVerity(error=error)
    with opened(parent, kernel) as repository:
        adoption.adopt(repository, verity=failing)
        assert (repository.secure, repository.sealed) == (True, False)
    assert f"cannot be enabled on {parent.path}/composefs/meta.json for now" in caplog.text
    assert everything(parent) == before
    assert len(adopted(parent, kernel)) == 1


def test_one_of_many_without_verity(parent: Dir, kernel: FakeVerity, stored: list[Digest]) -> None:
    with opened(parent, kernel, demanded=False) as repository:
        assert adoption.find_without_verity(repository, stored, verity=kernel) is None
        replace_without_verity(Path(parent.path), stored[77], CONTENTS[77])
        assert adoption.find_without_verity(repository, stored, verity=kernel) == stored[77]


def replace_without_verity(root: Path, digest: Digest, content: bytes) -> None:
    path = root / "composefs/objects" / digest.object_path
    path.unlink()
    path.write_bytes(content)
