"""Files become objects by reflink, hard link or copy. Reflinks are tested in tests/host."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bootc.errors import one_line
from bootc.formats.digest import Algorithm
from bootc.formats.verity import verity_digest
from bootc.fs.dir import Dir
from bootc.repository.importing import Imported, Importer, Method, NotShareable
from bootc.repository.repository import Repository
from support.verity import FakeVerity

DATA = b"data" * 5000
DIGEST = verity_digest(DATA, Algorithm.SHA512)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return path


def imported(importer: Importer, path: Path) -> Imported:
    with open(path, "rb") as file:
        return importer.add(file.fileno())


def stored(repository: Repository) -> os.stat_result:
    repository.objects.flush()
    return os.stat(f"{repository.dir.path}/objects/{DIGEST.object_path}")


def files_below(repository: Repository) -> int:
    return sum(len(files) for _, _, files in os.walk(f"{repository.dir.path}/objects"))


def test_a_copy_leaves_the_source_alone(repository: Repository, source: Path) -> None:
    found = imported(Importer(repository.objects), source)
    assert found == Imported(DIGEST, len(DATA), Method.COPIED)
    assert repository.objects.read(DIGEST) == DATA
    assert stored(repository).st_ino != source.stat().st_ino
    source.write_bytes(b"changed")
    assert repository.objects.read(DIGEST) == DATA


def test_a_second_import_finds_the_first(repository: Repository, source: Path) -> None:
    importer = Importer(repository.objects)
    imported(importer, source)
    for _ in range(2):
        assert imported(importer, source).method is Method.ALREADY_PRESENT
        repository.objects.flush()
    assert files_below(repository) == 1


def test_a_hard_link_seals_the_source(secure: Repository, source: Path) -> None:
    importer = Importer(secure.objects, seal_sources=True)
    assert imported(importer, source) == Imported(DIGEST, len(DATA), Method.HARDLINKED)
    assert stored(secure).st_ino == source.stat().st_ino
    assert source.stat().st_nlink == 2
    assert secure.objects.read(DIGEST) == DATA
    assert imported(importer, source).method is Method.ALREADY_PRESENT
    assert source.stat().st_nlink == 2
    assert files_below(secure) == 1


def test_a_source_that_is_sealed_already_can_be_linked(parent: Dir, source: Path) -> None:
    class Strict(FakeVerity):
        def enable(self, fd: int, algorithm: int) -> None:
            if os.fstat(fd).st_ino in self.enabled:
                raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
            super().enable(fd, algorithm)

    kernel = Strict()
    with open(source, "rb") as file:
        kernel.enable(file.fileno(), Algorithm.SHA512.value)
    with Repository.create(parent, secure=True, verity=kernel) as repository:
        importer = Importer(repository.objects, seal_sources=True)
        assert imported(importer, source).method is Method.HARDLINKED


def test_a_source_sealed_with_another_algorithm_is_copied(parent: Dir, source: Path) -> None:
    class Sealed(FakeVerity):
        def measure(self, fd: int) -> tuple[int, bytes]:
            if os.fstat(fd).st_ino == source.stat().st_ino:
                return Algorithm.SHA256.value, bytes(32)
            return super().measure(fd)

    with Repository.create(parent, secure=True, verity=Sealed()) as repository:
        importer = Importer(repository.objects, seal_sources=True)
        assert imported(importer, source).method is Method.COPIED
        assert source.stat().st_nlink == 1


def test_a_busy_source_is_copied(parent: Dir, source: Path) -> None:
    kernel = FakeVerity()
    with Repository.create(parent, secure=True, verity=kernel) as repository:
        kernel.busy = 1
        importer = Importer(repository.objects, seal_sources=True)
        assert imported(importer, source).method is Method.COPIED
        assert source.stat().st_nlink == 1


def test_without_verity_nothing_is_hard_linked(insecure: Repository, source: Path) -> None:
    # Whoever writes to the source would write to the object.
    importer = Importer(insecure.objects, seal_sources=True)
    assert imported(importer, source).method is Method.COPIED
    assert source.stat().st_nlink == 1
    assert files_below(insecure) == 0


@pytest.mark.parametrize("seal", [True, False])
def test_zerocopy_fails_rather_than_copy(insecure: Repository, source: Path, seal: bool) -> None:
    importer = Importer(insecure.objects, seal_sources=seal, zerocopy=True)
    with pytest.raises(NotShareable) as caught:
        imported(importer, source)
    assert one_line(caught.value) == (
        f"Importing {source}: reflink and hardlink both failed; "
        "copy fallback is disabled (zerocopy mode)"
    )
    assert files_below(insecure) == 0


def test_another_file_system_is_copied_from(repository: Repository) -> None:
    if os.stat("/dev/shm").st_dev == os.fstat(repository.dir.fileno()).st_dev:
        pytest.skip("/dev/shm is no file system of its own")
    fd = os.memfd_create("source")
    with open(fd, "w+b", buffering=0) as file:
        file.write(DATA)
        for seal in (True, False):
            importer = Importer(repository.objects, seal_sources=seal)
            assert importer.add(fd).digest == DIGEST
    assert repository.objects.read(DIGEST) == DATA


def test_an_unlinked_source_is_copied(secure: Repository, source: Path) -> None:
    with open(source, "rb") as file:
        source.unlink()
        importer = Importer(secure.objects, seal_sources=True)
        assert importer.add(file.fileno()).method is Method.COPIED


def test_an_empty_file(repository: Repository, source: Path) -> None:
    source.write_bytes(b"")
    found = imported(Importer(repository.objects), source)
    assert found.digest == verity_digest(b"", Algorithm.SHA512)
    assert repository.objects.read(found.digest) == b""


def test_only_regular_files_are_imported(repository: Repository, tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="not a regular file") as caught:
            Importer(repository.objects).add(fd)
        assert caught.value.errno == errno.EINVAL
    finally:
        os.close(fd)


def test_a_repository_opened_for_reading_imports_nothing(
    insecure: Repository, parent: Dir, source: Path
) -> None:
    with (
        Repository.open(parent, require_verity=False) as reading,
        pytest.raises(OSError, match="open for reading only"),
    ):
        imported(Importer(reading.objects), source)
