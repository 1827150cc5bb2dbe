"""Objects are complete, are what their names say, and are stored once."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from bootc.errors import one_line
from bootc.formats.digest import Algorithm, Digest
from bootc.formats.verity import verity_digest
from bootc.fs.dir import Dir
from bootc.repository.objects import ObjectCorrupt, Objects
from bootc.repository.repository import Repository
from bootc.repository.sealing import VerityMissing
from bootc.repository.sink import DigestOnly, ObjectSink
from support.verity import FakeVerity

DATA = b"data" * 5000
DIGEST = verity_digest(DATA, Algorithm.SHA512)


def path_of(repository: Repository, digest: Digest = DIGEST) -> Path:
    repository.objects.flush()
    return Path(repository.dir.path, "objects", digest.object_path)


def everything_below(repository: Repository) -> list[str]:
    repository.objects.flush()
    root = Path(repository.dir.path, "objects")
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_put_and_read(repository: Repository) -> None:
    assert repository.objects.put(DATA) == DIGEST
    assert repository.objects.exists(DIGEST)
    assert repository.objects.read(DIGEST) == DATA
    info = path_of(repository).stat()
    assert stat.S_IMODE(info.st_mode) == 0o644
    assert stat.S_IMODE(path_of(repository).parent.stat().st_mode) == 0o755
    assert everything_below(repository) == [DIGEST.object_path]


def test_writer_gives_the_digest_of_all_pieces(repository: Repository) -> None:
    # Twice: the first insecure object is what finds out that the kernel does not hash.
    for content in (DATA, DATA[1:]):
        with repository.objects.writer() as writer:
            writer.write(content[:5])
            writer.write(bytearray(content[5:4097]))
            writer.write(memoryview(content)[4097:])
            digest = writer.commit()
        assert digest == verity_digest(content, Algorithm.SHA512)
        assert repository.objects.read(digest) == content


def test_an_empty_object(repository: Repository) -> None:
    digest = repository.objects.put(b"")
    assert digest == verity_digest(b"", Algorithm.SHA512)
    assert repository.objects.read(digest) == b""


def test_what_is_not_committed_never_was(repository: Repository) -> None:
    with repository.objects.writer() as writer:
        writer.write(DATA)
    with suppress(KeyboardInterrupt), repository.objects.writer() as writer:
        writer.write(DATA)
        raise KeyboardInterrupt
    assert everything_below(repository) == []


def test_storing_again_keeps_the_first(repository: Repository) -> None:
    repository.objects.put(DATA)
    inode = path_of(repository).stat().st_ino
    assert repository.objects.put(DATA) == DIGEST
    assert path_of(repository).stat().st_ino == inode
    assert everything_below(repository) == [DIGEST.object_path]


def test_a_damaged_object_is_replaced_when_stored_again(
    repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    path_of(repository).parent.mkdir(parents=True)
    path_of(repository).write_bytes(b"")
    assert repository.objects.put(DATA) == DIGEST
    assert repository.objects.read(DIGEST) == DATA
    assert everything_below(repository) == [DIGEST.object_path]
    assert "replacing damaged object" in caplog.text


def test_a_secure_repository_replaces_an_object_without_verity(secure: Repository) -> None:
    path_of(secure).parent.mkdir(parents=True)
    path_of(secure).write_bytes(DATA)
    with pytest.raises(VerityMissing, match=f"{DIGEST.object_path} has no fs-verity"):
        secure.objects.open(DIGEST)
    secure.objects.put(DATA)
    os.close(secure.objects.open(DIGEST))


def test_an_insecure_repository_takes_an_object_without_verity(insecure: Repository) -> None:
    path_of(insecure).parent.mkdir(parents=True)
    path_of(insecure).write_bytes(DATA)
    os.close(insecure.objects.open(DIGEST))
    assert insecure.objects.read(DIGEST) == DATA


def test_changed_content_is_found_on_reading(insecure: Repository) -> None:
    insecure.objects.put(DATA)
    path_of(insecure).write_bytes(DATA.replace(b"a", b"b", 1))
    with pytest.raises(ObjectCorrupt, match=f"content of .*{DIGEST.object_path} is damaged"):
        insecure.objects.read(DIGEST)


@pytest.mark.parametrize("demanded", [True, False])
def test_the_kernels_digest_must_be_the_name(parent: Dir, demanded: bool) -> None:
    # Also where verity is not demanded: a file that has it and is another one is no accident.
    with Repository.create(parent, secure=demanded, verity=FakeVerity()) as repository:
        other = repository.objects.put(b"other")
        path_of(repository).parent.mkdir(parents=True, exist_ok=True)
        path_of(repository, other).rename(path_of(repository))
        with pytest.raises(ObjectCorrupt, match=f"has the digest {other}"):
            repository.objects.open(DIGEST)


def test_a_digest_of_the_other_algorithm_is_not_the_object(parent: Dir) -> None:
    with Repository.create(
        parent, algorithm=Algorithm.SHA256, secure=True, verity=FakeVerity()
    ) as repository:
        digest = repository.objects.put(DATA)
        assert digest == verity_digest(DATA, Algorithm.SHA256)
        assert repository.objects.read(digest) == DATA
        with pytest.raises(FileNotFoundError):
            repository.objects.read(DIGEST)


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_what_is_no_file_is_no_object(repository: Repository, kind: str) -> None:
    path = path_of(repository)
    path.parent.mkdir(parents=True)
    match kind:
        case "symlink":
            path.symlink_to("/etc/passwd")
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
    with pytest.raises(ObjectCorrupt, match=DIGEST.object_path):
        repository.objects.read(DIGEST)


def test_a_missing_object_is_named(repository: Repository) -> None:
    assert not repository.objects.exists(DIGEST)
    with pytest.raises(FileNotFoundError) as caught:
        repository.objects.open(DIGEST)
    assert one_line(caught.value) == (
        f"Opening object {DIGEST}: {path_of(repository)}: No such file or directory"
    )


def test_a_secure_store_never_hashes_in_place_of_the_kernel(parent: Dir) -> None:
    kernel = FakeVerity()
    with Repository.create(parent, secure=True, verity=kernel) as repository:
        kernel.error = errno.EOPNOTSUPP
        with pytest.raises(VerityMissing, match="does not support fs-verity"):
            repository.objects.put(DATA)
        assert everything_below(repository) == []


def test_an_insecure_store_lets_the_kernel_hash_where_it_can(parent: Dir) -> None:
    kernel = FakeVerity()
    with Repository.create(parent, secure=False, verity=kernel) as repository:
        repository.objects.put(DATA)
        assert kernel.enabled == [path_of(repository).stat().st_ino]


def test_errors_of_the_kernel_are_not_mistaken_for_lack_of_support(parent: Dir) -> None:
    kernel = FakeVerity()
    with Repository.create(parent, secure=False, verity=kernel) as repository:
        kernel.error = errno.ENOSPC
        with pytest.raises(OSError, match="No space left") as caught:
            repository.objects.put(DATA)
        assert one_line(caught.value) == (
            f"Storing an object in {repository.dir.path}/objects: No space left on device"
        )
        assert everything_below(repository) == []


def test_a_repository_opened_for_reading_stores_nothing(insecure: Repository, parent: Dir) -> None:
    with Repository.open(parent, require_verity=False) as reading:
        for attempt in (
            lambda: reading.objects.put(DATA),
            lambda: reading.images.add(DATA),
            lambda: reading.streams.write("x", DATA),
            lambda: reading.streams.set_ref("x", "y"),
        ):
            with pytest.raises(OSError, match="open for reading only") as caught:
                attempt()
            assert caught.value.errno == errno.EROFS


def test_digest_only_agrees_with_the_store(repository: Repository) -> None:
    def store(sink: ObjectSink) -> list[Digest]:
        with sink.writer() as writer:
            writer.write(DATA[:100])
            writer.write(DATA[100:])
            return [sink.put(DATA), sink.put(b""), writer.commit()]

    assert store(DigestOnly(Algorithm.SHA512)) == store(repository.objects)


def test_directories_made_by_another_writer_are_used(insecure: Repository) -> None:
    path_of(insecure).parent.mkdir()
    assert insecure.objects.put(DATA) == DIGEST


def test_objects_is_a_sink(parent: Dir) -> None:
    sink: ObjectSink = Objects(parent, Algorithm.SHA512, secure=False, writable=True)
    assert sink.algorithm is Algorithm.SHA512
