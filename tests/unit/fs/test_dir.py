"""A Dir does what it says below itself, and nothing anywhere else."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bootc.fs.atomic import exchange
from bootc.fs.dir import Dir, open_regular
from bootc.kernel import files
from support.protection import APPEND, IMMUTABLE, set_flags, unprotect


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Dir]:
    with Dir.open(tmp_path) as directory:
        yield directory


def test_read_write_and_list(directory: Dir) -> None:
    fd = directory.open_file("f", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    os.write(fd, b"content")
    os.close(fd)
    directory.symlink("f", "link")
    assert directory.read_bytes("f") == b"content"
    assert directory.names() == ["f", "link"]
    assert directory.readlink("link") == "f"
    directory.rename("f", "g")
    directory.unlink("link")
    assert directory.names() == ["g"]


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_modes_are_exact_whatever_the_umask(directory: Dir, umask: int) -> None:
    old = os.umask(umask)
    try:
        directory.mkdir("d", 0o751)
        directory.ensure_dir("x/y", 0o710).close()
        os.close(directory.open_file("f", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
    finally:
        os.umask(old)
    modes = {p: stat.S_IMODE(directory.stat(p).st_mode) for p in ("d", "x", "x/y", "f")}
    assert modes == {"d": 0o751, "x": 0o710, "x/y": 0o710, "f": 0o644}


def test_the_mode_is_set_on_what_was_made(
    directory: Dir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir(0o700)
    mkdir = os.mkdir

    def mkdir_in_a_race(name: str, mode: int, *, dir_fd: int) -> None:
        mkdir(name, mode, dir_fd=dir_fd)
        os.rmdir(name, dir_fd=dir_fd)
        os.symlink("victim", name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", mkdir_in_a_race)
    with pytest.raises(NotADirectoryError):
        directory.mkdir("d", 0o755)
    assert stat.S_IMODE(victim.stat().st_mode) == 0o700


@pytest.mark.root
def test_what_chattr_protects_is_named(directory: Dir, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_bytes(b"")
    set_flags(tmp_path / "d/f", IMMUTABLE)
    text = "is immutable or append-only"
    try:
        with pytest.raises(PermissionError, match=f"it {text}") as caught:
            directory.unlink("d/f")
        assert caught.value.filename == f"{tmp_path}/d/f"
        set_flags(tmp_path / "d/f", 0)
        set_flags(tmp_path / "d", APPEND)
        with pytest.raises(PermissionError, match=f"the directory it is in {text}"):
            directory.rename("d/f", "d/g")
        with pytest.raises(PermissionError, match=f"it {text}"):
            directory.rename("d", "e")
        (tmp_path / "other").mkdir()
        for one, other in (("d", "other"), ("other", "d")):
            with pytest.raises(PermissionError, match=f"it {text}") as caught:
                exchange(directory, one, other)
            assert caught.value.filename == f"{tmp_path}/d"
    finally:
        unprotect(tmp_path)


def test_ensure_dir_keeps_what_is_there(directory: Dir) -> None:
    directory.mkdir("a", 0o700)
    with directory.ensure_dir("a/b") as below:
        assert below.path == f"{directory.path}/a/b"
    with directory.ensure_dir("a/b"):
        pass
    assert stat.S_IMODE(directory.stat("a").st_mode) == 0o700


def test_ensure_dir_stops_at_a_file(directory: Dir, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        directory.ensure_dir("a/b")


@pytest.mark.parametrize("relpath", ["/etc", "..", "a/../..", "a/..", ""])
def test_paths_that_lead_out_are_bugs(directory: Dir, relpath: str) -> None:
    with pytest.raises(ValueError, match="path"):
        directory.stat(relpath)


@pytest.mark.parametrize("target", ["/etc", "../../../../../../../../../etc"])
def test_a_symlink_on_the_way_cannot_lead_out(directory: Dir, target: str) -> None:
    directory.symlink(target, "evil")
    for attempt in (
        lambda: directory.read_bytes("evil/passwd"),
        lambda: directory.stat("evil/passwd"),
        lambda: directory.unlink("evil/nothing"),
        lambda: directory.mkdir("evil/made"),
    ):
        with pytest.raises(OSError, match="leads outside") as caught:
            attempt()
        assert caught.value.errno == errno.EXDEV
        assert str(caught.value.filename).startswith(f"{directory.path}/evil/")


def test_a_symlink_on_the_way_may_lead_elsewhere_inside(directory: Dir, tmp_path: Path) -> None:
    (tmp_path / "usr").mkdir()
    (tmp_path / "usr/f").write_bytes(b"1")
    directory.symlink("usr", "alias")
    assert directory.read_bytes("alias/f") == b"1"


def test_the_last_component_is_never_followed(directory: Dir, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    directory.symlink("f", "link")
    with pytest.raises(OSError, match="symbolic links") as caught:
        directory.read_bytes("link")
    assert caught.value.errno == errno.ELOOP
    assert stat.S_ISLNK(directory.stat("link").st_mode)
    directory.symlink(".", "here")
    with pytest.raises(NotADirectoryError):
        directory.open_dir("here")


def test_exists(directory: Dir, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    directory.symlink("nowhere", "dangling")
    assert directory.exists("f")
    assert directory.exists("dangling")
    assert not directory.exists("g")
    assert not directory.exists("f/below")
    assert not directory.exists("no/such")


def test_a_limit_refuses_larger_files(directory: Dir, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    assert directory.read_bytes("f", 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes") as caught:
        directory.read_bytes("f", 4)
    assert caught.value.errno == errno.EFBIG


def test_files_without_a_size_are_read_whole() -> None:
    with Dir.open("/proc/self") as proc:
        assert proc.read_bytes("mountinfo").endswith(b"\n")
        with pytest.raises(OSError, match="larger than 3 bytes"):
            proc.read_bytes("mountinfo", 3)


def test_a_file_in_pieces(directory: Dir, tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    (tmp_path / "f").write_bytes(content)
    pieces = list(directory.read_chunks("f"))
    assert len(pieces) > 1
    assert b"".join(pieces) == content
    os.symlink("f", tmp_path / "symlink")
    with pytest.raises(OSError, match="symlink"):
        next(directory.read_chunks("symlink"))


def test_a_fifo_neither_hangs_nor_reads(directory: Dir, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        directory.read_bytes("fifo")


def test_a_directory_in_place_of_a_file_is_named(directory: Dir) -> None:
    directory.mkdir("d")
    with pytest.raises(OSError, match=r"Is a directory: '.*/d'"):
        directory.read_bytes("d")


def test_remove_tree(directory: Dir, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_bytes(b"")
    (tmp_path / "t/a/b").mkdir(parents=True)
    (tmp_path / "t/a/f").write_bytes(b"")
    (tmp_path / "t/link").symlink_to(outside)
    directory.remove_tree("t")
    directory.remove_tree("t")
    assert directory.names() == ["outside"]
    assert (outside / "keep").exists()


def test_errors_name_the_whole_path(directory: Dir) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        directory.read_bytes("no/such/file")
    assert caught.value.filename == f"{directory.path}/no/such/file"


def test_names_that_are_not_utf8_survive(directory: Dir, tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/\xff", "wb"):
        pass
    assert directory.names() == ["\udcff"]
    directory.unlink("\udcff")


def test_a_forgotten_directory_warns(tmp_path: Path) -> None:
    directories = [Dir.open(tmp_path)]
    with pytest.warns(ResourceWarning, match="unclosed directory"):
        directories.clear()


def test_a_closed_directory_says_so(tmp_path: Path) -> None:
    directory = Dir.open(tmp_path)
    directory.close()
    directory.close()
    with pytest.raises(ValueError, match="is closed"):
        directory.names()


def test_the_path_of_a_bare_descriptor_is_found(tmp_path: Path) -> None:
    with Dir(os.open(tmp_path, os.O_RDONLY)) as directory:
        assert directory.path == str(tmp_path)


def make_directory(path: Path) -> None:
    path.mkdir()


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def make_device(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero, which has no end


def link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_fifo(path: Path) -> None:
    os.mkfifo(path.with_name("far"))
    path.symlink_to("far")


NO_FILES = (
    *(os.mkfifo, make_directory, make_socket, link_to_device, link_to_fifo),
    pytest.param(make_device, marks=pytest.mark.root),
)


@pytest.mark.parametrize("make", NO_FILES, ids=lambda make: make.__name__)
def test_only_regular_files_are_opened(
    directory: Dir, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "odd"
    make(path)
    opened = len(os.listdir("/proc/self/fd"))
    refused = "not a regular file|Is a directory"
    with pytest.raises(OSError, match=f"{refused}|symbolic links") as caught:
        directory.open_regular("odd")
    assert caught.value.filename == f"{directory.path}/odd"
    for name, fd in ((str(path), None), ("odd", directory.fileno())):
        with pytest.raises(OSError, match=refused) as caught:
            open_regular(name, dir_fd=fd)
        assert caught.value.filename == name
    assert len(os.listdir("/proc/self/fd")) == opened


def test_a_path_to_somebody_s_file_may_lead_through_links(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    with open(open_regular(str(tmp_path / "link")), "rb") as file:
        assert file.read() == b"content"


def fails(*args: object) -> bytes:
    raise OSError(errno.EIO, "Input/output error")


def test_an_error_of_a_descriptor_names_the_file(
    directory: Dir, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkdir("d", dir_fd=directory.fileno())
    os.close(directory.open_file("d/f", os.O_WRONLY | os.O_CREAT))
    monkeypatch.setattr(os, "pread", fails)
    with pytest.raises(OSError, match="Input/output error") as caught:
        directory.read_bytes("d/f")
    assert caught.value.filename == f"{directory.path}/d/f"
    monkeypatch.setattr(files, "syncfs", fails)
    with pytest.raises(OSError, match="Input/output error") as caught:
        directory.sync()
    assert caught.value.filename == directory.path


def test_reading_in_pieces_names_the_file() -> None:
    with Dir.open("/proc/self") as process, pytest.raises(OSError, match="/proc/self/mem"):
        # Nothing is mapped at address 0.
        list(process.read_chunks("mem"))
