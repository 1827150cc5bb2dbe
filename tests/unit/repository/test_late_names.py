"""Objects get names late, together, and never before their content is on the disk."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from bootc.errors import one_line
from bootc.formats.digest import Algorithm, Digest
from bootc.formats.verity import verity_digest
from bootc.fs.dir import Dir
from bootc.repository.objects import ObjectCorrupt
from bootc.repository.repository import Repository
from support.failing import dies, failing, without_nameless_files
from support.verity import FakeVerity

CONTENTS = [bytes([number]) * (number * 700) for number in range(1, 12)]


def named(parent: Dir) -> dict[str, bytes]:
    """Every file below objects/, by its path there."""
    root = Path(parent.path, "composefs/objects")
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def expected(contents: list[bytes]) -> dict[str, bytes]:
    return {verity_digest(data, Algorithm.SHA512).object_path: data for data in contents}


def test_a_stored_object_is_found_before_it_has_a_name(repository: Repository, parent: Dir) -> None:
    digests = [repository.objects.put(data) for data in CONTENTS]
    assert named(parent) == {}
    assert all(repository.objects.exists(digest) for digest in digests)
    assert repository.objects.put(CONTENTS[0]) == digests[0]
    # Whoever opens one needs its name.
    assert [repository.objects.read(digest) for digest in digests] == CONTENTS
    assert named(parent) == expected(CONTENTS)


@pytest.mark.parametrize("how", ["flush", "sync", "close", "stream", "image"])
def test_names_come_before_anything_refers_to_them(
    repository: Repository, parent: Dir, how: str
) -> None:
    for data in CONTENTS:
        repository.objects.put(data)
    added = []
    match how:
        case "flush":
            repository.objects.flush()
        case "sync":
            repository.sync()
        case "close":
            repository.close()
        case "stream":
            repository.streams.write("x", b"stream")
            added = [b"stream"]
        case "image":
            repository.images.add(b"image")
            added = [b"image"]
    assert named(parent) == expected([*CONTENTS, *added])


def test_a_block_that_fails_leaves_no_names(parent: Dir) -> None:
    with suppress(KeyboardInterrupt), Repository.create(parent, secure=False) as repository:
        repository.objects.put(b"x")
        raise KeyboardInterrupt
    assert named(parent) == {}


def test_few_wait_at_a_time(parent: Dir) -> None:
    Repository.create(parent, secure=False).close()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        repository = Repository.open(parent, require_verity=False, writable=True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with repository:
        contents = [b"%d" % number for number in range(100)]
        for data in contents:
            repository.objects.put(data)
        assert named(parent) == expected(contents[:64])
    assert named(parent) == expected(contents)


@pytest.mark.parametrize("secure", [True, False])
def test_a_power_cut_at_any_moment_leaves_no_object_that_is_not_its_name(
    parent: Dir, secure: bool
) -> None:
    kernel = FakeVerity(error=None if secure else errno.EOPNOTSUPP)
    Repository.create(parent, secure=secure, verity=kernel).close()

    def work() -> None:
        with Repository.open(
            parent, require_verity=secure, writable=True, verity=kernel
        ) as repository:
            for data in CONTENTS[:3]:
                repository.objects.put(data)
            repository.streams.write("x", b"stream")
            repository.streams.set_ref("r", "x")

    at = 1
    while dies(at, work):
        at += 1
        for path, data in named(parent).items():
            if ".tmp" not in path:
                assert verity_digest(data, Algorithm.SHA512).object_path == path
        with Repository.open(parent, require_verity=secure, verity=kernel) as repository:
            for content_id in repository.streams.refs().values():
                assert repository.streams.read(content_id) == b"stream"
        shutil.rmtree(f"{parent.path}/composefs")
        Repository.create(parent, secure=secure, verity=kernel).close()
    assert at > 10
    assert named(parent) == expected([*CONTENTS[:3], b"stream"])


def test_after_a_failed_flush_nothing_more_is_stored(parent: Dir) -> None:
    with Repository.create(parent, secure=False) as repository:
        repository.objects.put(b"x")
        with failing(1, errno.ENOSPC), pytest.raises(OSError, match="No space left"):
            repository.objects.flush()
        for attempt in (
            lambda: repository.objects.put(b"y"),
            lambda: repository.streams.write("s", b"refers to x"),
        ):
            with pytest.raises(OSError, match="earlier objects could not be written") as caught:
                attempt()
            assert caught.value.errno == errno.EIO
    assert named(parent) == {}


@pytest.mark.parametrize("by", ["put", "writer"])
def test_zeros_under_the_right_name_are_replaced(
    repository: Repository, caplog: pytest.LogCaptureFixture, by: str, parent: Dir
) -> None:
    data = b"data" * 5000
    digest = repository.objects.put(data)
    repository.objects.flush()
    # As a power cut leaves it on btrfs: size and fs-verity are right.
    Path(parent.path, "composefs/objects", digest.object_path).write_bytes(bytes(len(data)))
    if by == "put":
        repository.objects.put(data)
    else:
        with repository.objects.writer() as writer:
            writer.write(data)
            writer.commit()
    assert repository.objects.read(digest) == data
    assert "replacing damaged object" in caplog.text


def test_what_is_there_already_is_not_written_again(secure: Repository, parent: Dir) -> None:
    secure.objects.put(b"small")
    secure.objects.flush()
    with failing(1, errno.ENOSPC) as changes:
        secure.objects.put(b"small")
    assert changes.count == 0


def test_content_that_changes_on_the_way_to_the_kernel_is_no_object(parent: Dir) -> None:
    class Flipping(FakeVerity):
        def enable(self, fd: int, algorithm: int) -> None:
            if self.enabled:
                os.truncate(f"/proc/self/fd/{fd}", 1)
            super().enable(fd, algorithm)

    with Repository.create(parent, secure=True, verity=Flipping()) as repository:
        with pytest.raises(ObjectCorrupt, match="content changed while it was stored"):
            repository.objects.put(b"content")
        repository.objects.flush()
    assert named(parent) == {}


def test_a_symlink_in_place_of_a_directory_leads_nowhere(
    repository: Repository, parent: Dir, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    digest: Digest = verity_digest(b"x", Algorithm.SHA512)
    Path(parent.path, "composefs/objects", digest.hex[:2]).symlink_to(outside)
    with pytest.raises(OSError, match="a symlink on the way leads outside") as caught:
        repository.objects.put(b"x")
    assert digest.hex[:2] in one_line(caught.value)
    assert os.listdir(outside) == []


def test_foreign_files_stay_as_they_are(repository: Repository, parent: Dir) -> None:
    objects = Path(parent.path, "composefs/objects")
    (objects / "README").write_text("not ours")
    (objects / ".tmp-object-0").write_text("not ours either")
    repository.objects.put(b"x")
    repository.sync()
    assert (objects / "README").read_text() == "not ours"
    assert (objects / ".tmp-object-0").read_text() == "not ours either"


def test_a_directory_in_place_of_an_object_is_named_and_kept(
    repository: Repository, parent: Dir
) -> None:
    digest = verity_digest(b"x", Algorithm.SHA512)
    path = Path(parent.path, "composefs/objects", digest.object_path)
    path.mkdir(parents=True)
    repository.objects.put(b"x")
    with pytest.raises(IsADirectoryError) as caught:
        repository.objects.flush()
    assert digest.object_path in one_line(caught.value)
    assert path.is_dir()
    assert named(parent) == {}


def test_where_every_file_has_a_name_temporary_ones_go(repository: Repository, parent: Dir) -> None:
    with without_nameless_files():
        repository.objects.put(b"one")
        repository.objects.put(b"one")
        with suppress(KeyboardInterrupt), repository.objects.writer() as writer:
            writer.write(b"two")
            raise KeyboardInterrupt
        assert [path.startswith(".tmp-object-") for path in named(parent)] == [True]
        repository.objects.flush()
    assert named(parent) == expected([b"one"])
