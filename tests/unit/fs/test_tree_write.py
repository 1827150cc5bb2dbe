from __future__ import annotations

import errno
import filecmp
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from bootc.errors import one_line
from bootc.formats.digest import Algorithm, Digest
from bootc.formats.tree import (
    Content,
    Directory,
    External,
    Fifo,
    Inline,
    Leaf,
    Socket,
    Sparse,
    Stat,
    Symlink,
    Unverified,
)
from bootc.formats.verity import VerityHasher, verity_digest
from bootc.fs.dir import Dir
from bootc.fs.tree_read import read_tree
from bootc.fs.tree_write import ContentChanged, ContentUnknown, protect_tree, write_tree
from bootc.repository.sink import DigestOnly
from support import deep
from support.protection import APPEND, IMMUTABLE, flags_of, set_flags, unprotect
from support.trees import text_of

SHA512 = Algorithm.SHA512
LARGE = b"0123456789" * 100_000


def external(data: bytes, algorithm: Algorithm = SHA512) -> External:
    return External(verity_digest(data, algorithm), len(data))


def meta(mode: int, **xattrs: bytes) -> Stat:
    names = {name.replace("__", ".").encode(): value for name, value in xattrs.items()}
    return Stat(mode, os.getuid(), os.getgid(), 1_600_000_000, 123_456_789, names)


def tree(**entries: Directory | Leaf) -> Directory:
    return Directory(meta(0o755), {name.encode(): node for name, node in entries.items()})


def file(content: Content, mode: int = 0o644) -> Leaf:
    return Leaf(meta(mode), content)


def opener(directory: Path, *contents: bytes) -> Callable[[External], int]:
    """Serve contents by their digest."""
    for data in contents:
        (directory / external(data).digest.hex[:16]).write_bytes(data)

    def open_content(content: External) -> int:
        return os.open(directory / content.digest.hex[:16], os.O_RDONLY)

    return open_content


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def write(root: Directory, target: Path, open_content: Callable[[External], int]) -> None:
    with Dir.open(target) as directory:
        write_tree(root, directory, open_content)


def read(top: Path, algorithm: Algorithm = SHA512) -> Directory:
    with Dir.open(top) as directory:
        return read_tree(directory, DigestOnly(algorithm))


def test_what_any_user_can_make(target: Path, store: Path) -> None:
    linked = file(external(LARGE), 0o4444)
    root = tree(
        a=linked,
        below=Directory(
            meta(0o1711, user__x=b""),
            {b"again": linked, b"small": Leaf(meta(0o600, user__y=b"y" * 300), Inline(b"s"))},
        ),
        link=Leaf(meta(0o777), Symlink(b"/nowhere/\xfe")),
        pipe=Leaf(meta(0o622), Fifo()),
        socket=Leaf(meta(0o755), Socket()),
    )
    write(root, target, opener(store, LARGE))
    assert text_of(read(target)) == text_of(root)
    assert os.stat(target / "a").st_ino == os.stat(target / "below/again").st_ino


def test_a_hole_stays_one(target: Path, store: Path) -> None:
    write(tree(f=file(Sparse(1 << 30))), target, opener(store))
    info = os.stat(target / "f")
    assert (info.st_size, info.st_blocks) == (1 << 30, 0)


def test_nested_deeper_than_python_calls_and_than_files_may_be_opened(store: Path) -> None:
    root = top = tree()
    for _ in range(deep.DEPTH):
        below = Directory(meta(0o755))
        top.entries[b"d"] = below
        top = below
    top.entries[b"f"] = file(Inline(b"x"))
    with deep.directory() as target:
        with deep.few_descriptors():
            write(root, target, opener(store))
        assert deep.depth_of(target) == deep.DEPTH


@pytest.mark.parametrize(
    "holes", [[(0, b"x")], [((64 << 20) - 1, b"x")], [(5000, b"x"), (1 << 20, b"y" * 9000)], []]
)
def test_holes_of_content_stay_holes(
    target: Path, tmp_path: Path, holes: list[tuple[int, bytes]]
) -> None:
    size, hasher = 64 << 20, VerityHasher(SHA512)
    with open(tmp_path / "sparse", "wb") as sparse:
        for offset, data in holes:
            sparse.seek(offset)
            sparse.write(data)
            hasher.update_zeros(offset - hasher.size_bytes)
            hasher.update(data)
        sparse.truncate(size)
    hasher.update_zeros(size - hasher.size_bytes)
    content = External(hasher.digest(), size)
    write(tree(f=file(content)), target, lambda _: os.open(tmp_path / "sparse", os.O_RDONLY))
    info = os.stat(target / "f")
    assert info.st_size == size
    assert info.st_blocks * 512 <= 1 << 20
    assert filecmp.cmp(tmp_path / "sparse", target / "f", shallow=False)


@pytest.mark.root
def test_what_chattr_protects(target: Path, store: Path) -> None:
    linked = Leaf(meta(0o644), Inline(b"x"))
    linked.stat.protection = IMMUTABLE
    root = tree(a=linked, d=tree(again=linked, log=file(Inline(b""))), free=file(Inline(b"")))
    root.entries[b"d"].stat.protection = IMMUTABLE
    assert isinstance(root.entries[b"d"], Directory)
    root.entries[b"d"].entries[b"log"].stat.protection = APPEND
    root.stat.protection = APPEND
    write(root, target, opener(store))
    set_flags(target, 0)
    try:
        with Dir.open(target) as directory:
            protect_tree(root, directory)
        found = {p.name: flags_of(p) for p in (target, *target.rglob("*"))}
    finally:
        unprotect(target)
    assert found == {
        **{"target": APPEND, "a": IMMUTABLE, "d": IMMUTABLE, "again": IMMUTABLE},
        **{"log": APPEND, "free": 0},
    }


@pytest.mark.parametrize(
    "now", [LARGE[:-1] + b"X", LARGE[:-1], LARGE + b"X", b""], ids=["other", "short", "long", "no"]
)
def test_content_that_is_another_one_now(target: Path, store: Path, now: bytes) -> None:
    open_content = opener(store, LARGE)
    (store / external(LARGE).digest.hex[:16]).write_bytes(now)
    with pytest.raises(ContentChanged) as caught:
        write(tree(d=tree(file=file(external(LARGE)))), target, open_content)
    assert one_line(caught.value) == (
        "Writing 'd/file': 'd/file' no longer has the content it had "
        "(hint: it was changed meanwhile or is damaged: repeat the command)"
    )


def test_content_nobody_has(target: Path, store: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write(tree(file=file(external(LARGE))), target, opener(store))
    assert one_line(caught.value).startswith("Writing 'file': ")


def test_content_without_a_digest(target: Path, store: Path) -> None:
    with pytest.raises(ContentUnknown, match="'file' cannot be checked"):
        write(tree(file=file(Unverified(b"ab/cd", 5))), target, opener(store))


def test_what_exists_is_not_written_to(target: Path, store: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("precious")
    (target / "file").symlink_to("../other")
    with pytest.raises(FileExistsError) as caught:
        write(tree(file=file(Inline(b"x"))), target, opener(store))
    assert one_line(caught.value).startswith("Writing 'file': ")
    assert (tmp_path / "other").read_text() == "precious"


def test_no_directory_is_followed_through_a_link(target: Path, store: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (target / "d").symlink_to("../other")
    with pytest.raises(FileExistsError):
        write(tree(d=tree(file=file(Inline(b"x")))), target, opener(store))
    assert os.listdir(tmp_path / "other") == []


def test_nobody_can_enter_before_the_end(target: Path, store: Path) -> None:
    target.chmod(0o777)
    serve = opener(store, LARGE)
    modes: list[int] = []

    def open_content(content: External) -> int:
        modes.extend(stat.S_IMODE((target / name).stat().st_mode) for name in (".", "z", "a/b"))
        return serve(content)

    users = Directory(meta(0o777), {b"b": file(Inline(b""), 0o666)})
    last = Directory(meta(0o777), {b"file": file(external(LARGE), 0o666)})
    write(tree(a=users, z=last), target, open_content)
    assert modes == [0o700, 0o700, 0o666]
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


def test_a_full_disk_names_the_file(target: Path) -> None:
    def open_content(content: External) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left") as caught:
        write(tree(big=file(external(LARGE))), target, open_content)
    assert one_line(caught.value) == "Writing 'big': No space left on device"


def test_an_attribute_that_cannot_be(target: Path, store: Path) -> None:
    wrong = Leaf(meta(0o644, nonsense__x=b"v"), Inline(b""))
    with pytest.raises(OSError, match="not supported") as caught:
        write(tree(file=wrong), target, opener(store))
    assert one_line(caught.value).startswith(
        "Writing 'file': Setting the extended attribute nonsense.x: "
    )


def test_the_digest_decides_the_hash(target: Path, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(LARGE)
    content = external(LARGE, Algorithm.SHA256)
    write(tree(f=file(content)), target, lambda _: os.open(tmp_path / "data", os.O_RDONLY))
    assert isinstance(content.digest, Digest)
    assert (target / "f").read_bytes() == LARGE
