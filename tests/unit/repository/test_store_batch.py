"""Batches of objects: the C extension and its specification in Python do the same."""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bootc.formats.digest import Algorithm, Digest
from bootc.formats.verity import verity_digest
from bootc.fs.dir import Dir
from bootc.repository import store_batch
from bootc.repository.repository import Repository
from bootc.repository.store_batch import PRESENT, UNDECIDED, name_batch_pure, store_batch_pure

ALGORITHM = Algorithm.SHA512
CONTENTS = [b"", b"a", b"b" * 4096, b"c" * 70_000, bytes(200_000)]


def twins() -> list[object]:
    pure = pytest.param(("pure", store_batch_pure, name_batch_pure), id="pure")
    try:
        from bootc.repository import _store as extension
    except ImportError:
        skip = pytest.mark.skip(reason="the extension is not built")
        return [pure, pytest.param(None, marks=skip, id="c")]
    return [pure, pytest.param(("c", extension.store_batch, extension.name_batch), id="c")]


@pytest.fixture(params=twins())
def twin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Has the store use one of the two; return its name."""
    name, store, naming = request.param
    monkeypatch.setattr(store_batch, "store_batch", store)
    monkeypatch.setattr(store_batch, "name_batch", naming)
    return str(name)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Dir]:
    with Dir.open(tmp_path) as opened:
        yield opened


def digest_of(content: bytes) -> Digest:
    return verity_digest(content, ALGORITHM)


def store(directory: Dir, contents: list[bytes], *, secure: bool = False) -> list[int]:
    digests = [digest_of(content) for content in contents]
    return store_batch.store_batch(
        directory.fileno(),
        tuple(contents),
        tuple(digest.object_path.encode() for digest in digests),
        tuple(digest.raw for digest in digests),
        ALGORITHM.value,
        False,
        secure,
    )


def name(directory: Dir, fds: list[int], paths: list[str]) -> list[int]:
    fds_and_paths = tuple(fds), tuple(path.encode() for path in paths)
    return store_batch.name_batch(directory.fileno(), *fds_and_paths)


def put_object(directory: Dir, content: bytes, stored: bytes) -> Path:
    path = Path(directory.path, digest_of(content).object_path)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(stored)
    return path


def test_new_files_have_their_content_and_no_name(twin: str, directory: Dir) -> None:
    fds = store(directory, CONTENTS)
    assert all(fd >= 0 for fd in fds)
    assert [os.pread(fd, 1 << 20, 0) for fd in fds] == CONTENTS
    assert {os.fstat(fd).st_mode & 0o7777 for fd in fds} == {0o644}
    assert {os.fstat(fd).st_nlink for fd in fds} == {0}
    assert all(not os.get_inheritable(fd) for fd in fds)
    assert os.listdir(directory.path) == []
    for fd in fds:
        os.close(fd)


def test_what_is_there_is_compared(twin: str, directory: Dir) -> None:
    for content in CONTENTS:
        put_object(directory, content, content)
    assert store(directory, CONTENTS) == [PRESENT] * len(CONTENTS)


def zeros(path: Path, content: bytes) -> None:
    path.write_bytes(bytes(len(content)))


def shorter(path: Path, content: bytes) -> None:
    os.truncate(path, len(content) - 1)


def longer(path: Path, content: bytes) -> None:
    path.write_bytes(content + b"\0")


def symlink(path: Path, content: bytes) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def fifo(path: Path, content: bytes) -> None:
    path.unlink()
    os.mkfifo(path)


def linked_bucket(path: Path, content: bytes) -> None:
    bucket = path.parent
    bucket.rename(bucket.with_name("elsewhere"))
    bucket.symlink_to("elsewhere")


@pytest.mark.parametrize("damage", [zeros, shorter, longer, symlink, fifo, linked_bucket])
def test_what_is_not_plainly_right_is_left_alone(
    twin: str, directory: Dir, damage: Callable[[Path, bytes], None]
) -> None:
    content = b"d" * 100
    damage(put_object(directory, content, content), content)
    assert store(directory, [content]) == [UNDECIDED]


def test_a_secure_repository_wants_objects_with_verity(twin: str, directory: Dir) -> None:
    put_object(directory, b"x", b"x")
    assert store(directory, [b"x"], secure=True) == [UNDECIDED]


def test_after_a_failure_the_rest_is_left_to_the_caller(twin: str, directory: Dir) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(int(fd) for fd in os.listdir("/proc/self/fd")) + 10
    contents = [b"%d" % number for number in range(limit)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        states = store(directory, contents)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    made = [state for state in states if state >= 0]
    assert 0 < len(made) < len(states)
    assert states == made + [UNDECIDED] * (len(states) - len(made))
    for fd in made:
        os.close(fd)


def test_files_get_their_names(twin: str, directory: Dir) -> None:
    contents = [b"new", b"exists", b"no bucket", b"link as bucket"]
    paths = [digest_of(content).object_path for content in contents]
    fds = store(directory, contents)
    Path(directory.path, paths[0][:2]).mkdir()
    put_object(directory, contents[1], b"other")
    Path(directory.path, "real").mkdir()
    Path(directory.path, paths[3][:2]).symlink_to("real")
    assert name(directory, fds, paths) == [0, errno.EEXIST, errno.ENOENT, errno.ENOTDIR]
    assert Path(directory.path, paths[0]).read_bytes() == contents[0]
    assert Path(directory.path, paths[1]).read_bytes() == b"other"
    bad = ["x/y", "abc/d", "ab/", "ab/c/d", "", "../x"]
    errors = name(directory, fds[:1] * len(bad), bad)
    assert [error in (errno.EINVAL, errno.EXDEV) for error in errors] == [True] * len(bad)
    for fd in fds:
        os.close(fd)


def named(directory: Dir) -> dict[str, bytes]:
    root = Path(directory.path, "composefs/objects")
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_many_objects_are_stored_as_one_by_one(twin: str, directory: Dir) -> None:
    contents = [b"%d" % (number % 700) * 30 for number in range(900)]
    with Repository.create(directory, secure=False) as repository:
        objects = repository.objects
        digests = objects.put_many(contents)
        assert digests == [digest_of(content) for content in contents]
        assert (objects.tally.new, objects.tally.present) == (700, 200)
        assert objects.put_many(contents[:300]) == digests[:300]
        assert (objects.tally.new, objects.tally.present) == (700, 500)
        repository.sync()
        assert len(os.listdir("/proc/self/fd")) < 200
    assert named(directory) == {digest_of(c).object_path: c for c in contents}


def test_damaged_objects_are_replaced(twin: str, directory: Dir) -> None:
    contents = [b"%d" % number * 100 for number in range(20)]
    with Repository.create(directory, secure=False) as repository:
        digests = repository.objects.put_many(contents)
        repository.sync()
        for digest in digests[::3]:
            Path(directory.path, "composefs/objects", digest.object_path).write_bytes(b"damaged")
        repository.objects.put_many(contents)
        repository.sync()
    assert named(directory) == {digest_of(c).object_path: c for c in contents}


def test_threads_store_at_once(twin: str, directory: Dir) -> None:
    contents = [b"%d" % number * 50 for number in range(1200)]
    faults: list[BaseException] = []
    with Repository.create(directory, secure=False) as repository:

        def work(start: int) -> None:
            try:
                for at in range(start, start + 800, 100):
                    repository.objects.put_many(contents[at : at + 100])
            except BaseException as exc:  # noqa: BLE001  (shown by the assertion)
                faults.append(exc)

        # Each stores a half that the next one stores, too.
        threads = [threading.Thread(target=work, args=(start,)) for start in (0, 200, 400)]
        for thread in threads:
            thread.start()
        with repository.objects.writer() as writer:
            writer.write(b"large")
            large = writer.commit()
        for thread in threads:
            thread.join()
        repository.sync()
        tally = repository.objects.tally
    assert faults == []
    wanted = {digest_of(c).object_path: c for c in contents} | {large.object_path: b"large"}
    assert named(directory) == wanted
    assert tally.new + tally.present == 3 * 800 + 1
