from __future__ import annotations

import errno
import itertools
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bootc.deploy.etc import apply
from bootc.deploy.etc.apply import (
    CurrentEtc,
    EtcBusy,
    EtcMissing,
    contents,
    image_etc,
    read_etc,
    replace_etc,
)
from bootc.deploy.etc.merge import merge_etc
from bootc.errors import one_line
from bootc.formats.digest import Algorithm
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.tree import Directory, External, Inline, Leaf, Stat
from bootc.formats.verity import verity_digest
from bootc.fs import removal
from bootc.fs.dir import Dir
from bootc.fs.tree_read import TreeTooLarge
from bootc.fs.tree_write import ContentChanged
from bootc.repository.repository import Repository
from support.descriptors import none_left_open
from support.failing import dies
from support.protection import APPEND, IMMUTABLE, flags_of, set_flags, unprotect
from support.trees import text_of
from support.verity import FakeVerity

SHA512 = Algorithm.SHA512
LOCAL, SHARED, FRESH = (name * 1000 for name in (b"local", b"shared", b"fresh"))
#: More changes than replacing the /etc of these tests makes.
LIMIT = 40


def external(data: bytes) -> External:
    return External(verity_digest(data, SHA512), len(data))


def leaf(data: bytes) -> Leaf:
    content = Inline(data) if len(data) <= 64 else external(data)
    return Leaf(Stat(0o644, os.getuid(), os.getgid(), 5), content)


def top(**entries: bytes) -> Directory:
    nodes: dict[bytes, Directory | Leaf] = {k.encode(): leaf(v) for k, v in entries.items()}
    return Directory(Stat(0o755, os.getuid(), os.getgid(), 5), nodes)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Dir]:
    (tmp_path / "state/etc/d").mkdir(parents=True)
    (tmp_path / "state/etc/d/local").write_bytes(LOCAL)
    (tmp_path / "state/etc/shared").write_bytes(SHARED)
    (tmp_path / "state/etc/small").write_bytes(b"small")
    with Dir.open(tmp_path / "state") as directory:
        yield directory


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    (tmp_path / "root").mkdir()
    with (
        Dir.open(tmp_path / "root") as root,
        Repository.create(root, secure=False, verity=FakeVerity(error=95)) as repository,
    ):
        repository.objects.put(SHARED)
        repository.objects.put(FRESH)
        repository.objects.flush()
        yield repository


def content_of(current: CurrentEtc, data: bytes) -> bytes:
    with open(current.open_content(external(data)), "rb") as file:
        return file.read()


def files(state: Dir) -> dict[str, bytes]:
    base = Path(state.path, "etc")
    return {str(p.relative_to(base)): p.read_bytes() for p in base.rglob("*") if p.is_file()}


def test_reading_etc(state: Dir) -> None:
    with read_etc(state, SHA512) as current:
        node = current.tree.lookup("d/local")
        assert isinstance(node, Leaf)
        assert node.content == external(LOCAL)
        small = current.tree.lookup("small")
        assert isinstance(small, Leaf)
        assert small.content == Inline(b"small")
        assert content_of(current, LOCAL) == LOCAL
        with pytest.raises(FileNotFoundError, match="no file has this content"):
            current.open_content(external(FRESH))


def test_reading_leaves_nothing_open(state: Dir) -> None:
    with none_left_open(), read_etc(state, SHA512):
        pass


def test_no_etc(state: Dir) -> None:
    state.rename("etc", "was")
    with pytest.raises(FileNotFoundError) as caught, read_etc(state, SHA512):
        pass
    assert one_line(caught.value).startswith(f"Reading {state.path}/etc: ")


def test_etc_that_is_a_link(state: Dir) -> None:
    state.rename("etc", "was")
    state.symlink("was", "etc")
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"), read_etc(state, SHA512):
        pass


@contextmanager
def busy(state: Dir, seconds: float) -> Iterator[None]:
    """Keep changing a file that takes a while to read."""
    path, stop = Path(state.path, "etc/large"), threading.Event()
    path.write_bytes(bytes(32 << 20))

    def write() -> None:
        times = itertools.count()
        end = time.monotonic() + seconds
        while not stop.is_set() and time.monotonic() < end:
            os.utime(path, (0, next(times)))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()


def test_an_etc_that_is_written_to_for_a_moment(state: Dir) -> None:
    with busy(state, 0.1), read_etc(state, SHA512) as current:
        assert current.tree.lookup("d/local") is not None


def test_an_etc_that_is_written_to_all_the_time(state: Dir) -> None:
    with busy(state, 60), pytest.raises(EtcBusy) as caught, read_etc(state, SHA512):
        pass
    assert f"{state.path}/etc changed each of the 4 times it was read" in one_line(caught.value)


def test_the_etc_of_an_image(repository: Repository) -> None:
    etc = top(a=SHARED, b=b"small")
    with_etc = mkfs_erofs(Directory(Stat(0o755), {b"etc": etc}))
    image_id = repository.objects.put(with_etc)
    without = repository.objects.put(mkfs_erofs(Directory(Stat(0o755), {b"etc": leaf(b"file")})))

    assert text_of(image_etc(repository.objects, image_id)) == text_of(etc)
    with pytest.raises(EtcMissing, match=f"image {without} has no directory /etc"):
        image_etc(repository.objects, without)
    with pytest.raises(FileNotFoundError) as caught:
        image_etc(repository.objects, external(b"x" * 99).digest)
    assert one_line(caught.value).startswith("Reading image ")


def test_from_reading_to_replacing(state: Dir, repository: Repository) -> None:
    pristine, new = top(shared=SHARED, small=b"was"), top(shared=FRESH, small=b"new", other=SHARED)
    with read_etc(state, SHA512) as current:
        merge = merge_etc(pristine, current.tree, new)
        replace_etc(state, merge.tree, contents(repository.objects, current))
    # The shared file has another mtime, which does not make it a local change.
    assert files(state) == {
        "d/local": LOCAL,
        "other": SHARED,
        "shared": FRESH,
        "small": b"small",
    }
    assert state.names() == ["etc"]


@pytest.mark.root
def test_what_chattr_protects_is_protected_in_the_next_etc(
    state: Dir, repository: Repository
) -> None:
    etc = Path(state.path, "etc")
    (etc / "d/log").write_text("line\n")
    os.link(etc / "small", etc / "d/again")
    flags = {"d/log": APPEND, "d": IMMUTABLE, "small": IMMUTABLE, "": IMMUTABLE}
    for name, value in flags.items():
        set_flags(etc / name, value)
    try:
        # The second time what is replaced is protected itself.
        for _ in range(2):
            with read_etc(state, SHA512) as current:
                new = top(small=b"new", other=b"x")
                merge = merge_etc(top(small=b"small"), current.tree, new)
                replace_etc(state, merge.tree, contents(repository.objects, current))
            assert {name: flags_of(etc / name) for name in flags} == flags
            assert flags_of(etc / "other") == 0
        assert files(state)["small"] == b"small"
        assert (etc / "small").stat().st_ino == (etc / "d/again").stat().st_ino
        assert state.names() == ["etc"]
    finally:
        unprotect(etc)


def test_a_file_of_one_tebibyte_of_holes(state: Dir, repository: Repository) -> None:
    huge = Path(state.path, "etc/huge")
    with open(huge, "wb") as file:
        file.seek(1 << 30)
        file.write(b"x")
        file.truncate(1 << 40)
    with read_etc(state, SHA512) as current:
        replace_etc(state, current.tree, contents(repository.objects, current))
    info = huge.stat()
    assert (info.st_size, info.st_blocks * 512 < 1 << 16) == (1 << 40, True)
    with open(huge, "rb") as file:
        assert os.pread(file.fileno(), 3, (1 << 30) - 1) == b"\0x\0"


def test_an_etc_that_holds_too_much_is_refused_at_once(
    state: Dir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "_MAX_DATA_BYTES", 1 << 20)
    (Path(state.path) / "etc/d/iso").write_bytes(b"x" * (2 << 20))
    with pytest.raises(TreeTooLarge) as caught, read_etc(state, SHA512):
        pass
    assert f"the largest file so far is {state.path}/etc/d/iso with 2097152" in one_line(
        caught.value
    )


def test_what_cannot_be_removed_afterwards_is_only_a_warning(
    state: Dir, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unlink = removal._unlink

    def failing(directory: int, name: str) -> bool:
        if name == "local":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return unlink(directory, name)

    monkeypatch.setattr(removal, "_unlink", failing)
    replace_etc(state, top(a=b"1"), no_content)
    assert files(state) == {"a": b"1"}
    assert "the previous etc is kept: " in caplog.text
    assert f"{state.path}/etc.merged/d/local: Input/output error" in caplog.text


def test_a_local_file_that_changes_before_it_is_copied(state: Dir, repository: Repository) -> None:
    with read_etc(state, SHA512) as current:
        Path(state.path, "etc/d/local").write_bytes(LOCAL.upper())
        with pytest.raises(ContentChanged) as caught:
            replace_etc(state, current.tree, contents(repository.objects, current))
    assert one_line(caught.value).startswith(
        f"Replacing {state.path}/etc: Writing 'd/local': 'd/local' no longer has"
    )
    assert files(state)["d/local"] == LOCAL.upper()
    assert state.names() == ["etc"]


def test_what_the_repository_has_is_not_read_from_local_files(
    state: Dir, repository: Repository
) -> None:
    with read_etc(state, SHA512) as current:
        Path(state.path, "etc/shared").write_bytes(b"changed meanwhile")
        replace_etc(state, current.tree, contents(repository.objects, current))
    assert files(state)["shared"] == SHARED


def test_a_full_disk_keeps_the_old_one(state: Dir) -> None:
    def open_content(content: External) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = files(state)
    with pytest.raises(OSError, match="No space left"):
        replace_etc(state, top(a=FRESH), open_content)
    assert files(state) == before
    assert state.names() == ["etc"]


def test_there_must_be_an_etc(state: Dir) -> None:
    state.rename("etc", "was")
    with pytest.raises(FileNotFoundError):
        replace_etc(state, top(a=b"1"), no_content)
    assert state.names() == ["was"]


def test_a_leftover_is_removed(state: Dir) -> None:
    leftover = Path(state.path, "etc.merged/d")
    leftover.mkdir(parents=True)
    (leftover / "half").write_text("")
    replace_etc(state, top(a=b"1"), no_content)
    assert files(state) == {"a": b"1"}
    assert state.names() == ["etc"]


def test_power_lost_at_every_change(state: Dir) -> None:
    """The old one or the new one, never less, and the repeat completes."""
    old = files(state)
    tree = top(a=b"1", b=b"2")
    tree.entries[b"d"] = top(c=b"3")
    new = {"a": b"1", "b": b"2", "d/c": b"3"}
    seen = []
    for number in range(1, LIMIT):
        died = dies(number, lambda: replace_etc(state, tree, no_content))
        seen.append(files(state))
        assert seen[-1] in (old, new)
        if not died:
            break
        replace_etc(state, tree, no_content)
        assert (files(state), state.names()) == (new, ["etc"])
        replace_etc(state, top(), no_content)
        restore(state, old)
    assert number < LIMIT - 1, "it never came to an end"
    assert seen[0] == old
    assert seen[-2:] == [new, new]


def restore(state: Dir, old: dict[str, bytes]) -> None:
    for path, data in old.items():
        file = Path(state.path, "etc", path)
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)


def no_content(content: External) -> int:
    raise AssertionError("everything is in the tree")
