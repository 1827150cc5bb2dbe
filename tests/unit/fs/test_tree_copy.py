from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from bootc.fs.dir import Dir
from bootc.fs.tree_copy import copy_tree
from support import deep
from support.descriptors import none_left_open


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir()
    return path


def copy(source: Path, target: Path) -> None:
    with Dir.open(source) as from_dir, Dir.open(target) as to_dir:
        copy_tree(from_dir, to_dir)


def test_files_directories_and_symlinks_arrive(source: Path, target: Path) -> None:
    (source / "a/b").mkdir(parents=True)
    (source / "a/b/file").write_bytes(b"content\n" * 100_000)
    (source / "a/empty").write_bytes(b"")
    (source / "link").symlink_to("/nowhere/at/all")
    (source / "a/up").symlink_to("..")

    copy(source, target)

    assert (target / "a/b/file").read_bytes() == b"content\n" * 100_000
    assert (target / "a/empty").read_bytes() == b""
    assert os.readlink(target / "link") == "/nowhere/at/all"
    assert os.readlink(target / "a/up") == ".."


def test_mode_and_times_arrive_for_every_kind(source: Path, target: Path) -> None:
    (source / "file").write_bytes(b"x")
    (source / "directory").mkdir()
    (source / "symlink").symlink_to("file")
    os.mkfifo(source / "fifo")
    for name, mode in (("file", 0o6755), ("directory", 0o1777), ("fifo", 0o640)):
        os.chmod(source / name, mode)
    for name in ("file", "directory", "symlink", "fifo"):
        os.utime(source / name, ns=(5_000_000_007, 1_000_000_009), follow_symlinks=False)
    os.chmod(source, 0o751)
    os.utime(source, ns=(1, 2))

    copy(source, target)

    for name in ("file", "directory", "symlink", "fifo"):
        old, new = os.lstat(source / name), os.lstat(target / name)
        assert new.st_mode == old.st_mode
        assert new.st_mtime_ns == 1_000_000_009
    assert stat.S_IMODE(os.lstat(target / "file").st_mode) == 0o6755
    assert stat.S_IMODE(target.stat().st_mode) == 0o751
    assert target.stat().st_mtime_ns == 2


def test_xattrs_arrive_on_files_and_directories(source: Path, target: Path) -> None:
    (source / "file").write_bytes(b"x")
    (source / "directory").mkdir()
    os.setxattr(source / "file", "user.note", b"\x00binary\xff")
    os.setxattr(source / "directory", "user.note", b"directory")

    copy(source, target)

    assert os.getxattr(target / "file", "user.note") == b"\x00binary\xff"
    assert os.getxattr(target / "directory", "user.note") == b"directory"
    assert os.listxattr(target / "file") == os.listxattr(source / "file")


def test_hard_links_stay_hard_links_across_directories(source: Path, target: Path) -> None:
    (source / "z").mkdir()
    (source / "first").write_bytes(b"shared")
    os.link(source / "first", source / "z/second")
    (source / "symlink").symlink_to("x")
    os.link(source / "symlink", source / "z/symlink", follow_symlinks=False)

    copy(source, target)

    assert (target / "first").stat().st_ino == (target / "z/second").stat().st_ino
    assert (target / "first").stat().st_nlink == 2
    assert os.lstat(target / "symlink").st_ino == os.lstat(target / "z/symlink").st_ino
    assert os.readlink(target / "z/symlink") == "x"


def test_pipes_and_sockets_arrive(source: Path, target: Path) -> None:
    os.mkfifo(source / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.open(source, os.O_PATH)
        bound.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)

    copy(source, target)

    assert stat.S_ISFIFO(os.lstat(target / "pipe").st_mode)
    assert stat.S_ISSOCK(os.lstat(target / "socket").st_mode)


@pytest.mark.parametrize(
    "holes",
    [
        pytest.param([], id="only a hole"),
        pytest.param([(0, b"head")], id="hole at the end"),
        pytest.param([(1 << 20, b"tail")], id="hole at the start"),
        pytest.param([(0, b"head"), (1 << 19, b"m"), ((1 << 20) - 4, b"tail")], id="holes between"),
    ],
)
def test_sparse_files_stay_sparse(
    source: Path, target: Path, holes: list[tuple[int, bytes]]
) -> None:
    size = (1 << 20) + 4
    with open(source / "sparse", "wb") as file:
        for offset, data in holes:
            file.seek(offset)
            file.write(data)
        file.truncate(size)

    copy(source, target)

    assert (target / "sparse").read_bytes() == (source / "sparse").read_bytes()
    assert (target / "sparse").stat().st_size == size
    assert (target / "sparse").stat().st_blocks * 512 < size // 2


def test_names_that_are_no_text_arrive(source: Path, target: Path) -> None:
    raw = os.fsencode(source) + b"/caf\xe9 \n\xff"
    with open(raw, "wb") as file:
        file.write(b"latin")

    copy(source, target)

    assert os.listdir(os.fsencode(target)) == [b"caf\xe9 \n\xff"]


def test_existing_files_are_replaced_and_never_written_through(
    source: Path, target: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    other = tmp_path / "other-name"
    other.write_bytes(b"untouched too")
    (source / "a").write_bytes(b"new a")
    (source / "b").write_bytes(b"new b")
    (target / "a").symlink_to(victim)
    os.link(other, target / "b")

    copy(source, target)

    assert victim.read_bytes() == b"untouched"
    assert other.read_bytes() == b"untouched too"
    assert (target / "a").read_bytes() == b"new a"
    assert not (target / "a").is_symlink()
    assert (target / "b").read_bytes() == b"new b"


def test_existing_directories_are_merged_into(source: Path, target: Path) -> None:
    (source / "d").mkdir(mode=0o755)
    (source / "d/new").write_bytes(b"new")
    (target / "d").mkdir(mode=0o700)
    (target / "d/kept").write_bytes(b"kept")

    copy(source, target)

    assert (target / "d/kept").read_bytes() == b"kept"
    assert (target / "d/new").read_bytes() == b"new"
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o755


@pytest.mark.parametrize("in_the_way", ["file", "symlink"])
def test_a_directory_meets_something_else(
    source: Path, target: Path, tmp_path: Path, in_the_way: str
) -> None:
    (source / "d").mkdir()
    (source / "d/file").write_bytes(b"x")
    if in_the_way == "file":
        (target / "d").write_bytes(b"")
    else:
        outside = tmp_path / "outside"
        outside.mkdir()
        (target / "d").symlink_to(outside)

    with pytest.raises(OSError, match=r"directory|symbolic") as caught:
        copy(source, target)

    assert caught.value.errno in (errno.ENOTDIR, errno.ELOOP)
    assert caught.value.__notes__ == ["Copying 'd'"]


def test_a_file_meets_a_directory(source: Path, target: Path) -> None:
    (source / "a").write_bytes(b"x")
    (target / "a").mkdir()

    with pytest.raises(IsADirectoryError) as caught:
        copy(source, target)

    assert caught.value.__notes__ == ["Copying 'a'"]


def test_descriptors_are_all_closed(source: Path, target: Path) -> None:
    (source / "a/b/c").mkdir(parents=True)
    (source / "a/b/c/file").write_bytes(b"x")
    with none_left_open():
        copy(source, target)


def test_deeper_than_python_calls_and_than_files_may_be_opened() -> None:
    with deep.directory() as source, deep.directory() as target:
        deep.make_deep(source)
        with deep.few_descriptors(140):
            copy(source, target)
        assert deep.depth_of(target) == deep.DEPTH


def test_a_tree_deeper_than_any_image_has_is_refused() -> None:
    with deep.directory() as source, deep.directory() as target:
        deep.make_deep(source, 2100)
        with pytest.raises(OSError, match="nested deeper than 2048") as caught:
            copy(source, target)
    assert caught.value.errno == errno.ENAMETOOLONG
    assert caught.value.__notes__ == [f"Copying '.../{'d/' * 128}d'"]
