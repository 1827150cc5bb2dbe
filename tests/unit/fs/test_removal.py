"""Whatever is in a tree and however deep it is, it can be removed, and nothing else is."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.errors import one_line
from bootc.fs import removal
from bootc.fs.dir import Dir
from bootc.kernel import files
from support import deep
from support.protection import APPEND, IMMUTABLE, flags_of, set_flags, unprotect


@pytest.fixture
def top(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    unprotect(tmp_path)


def remove(top: Path, name: str = "tree") -> None:
    with Dir.open(top) as directory:
        directory.remove_tree(name)


@pytest.mark.parametrize("name", ["d", "d" * 255], ids=["short", "long"])
def test_deeper_than_python_calls_and_than_files_may_be_opened(name: str) -> None:
    with deep.directory() as top:
        (top / "tree").mkdir()
        deep.make_deep(top / "tree", name=name)
        with deep.few_descriptors():
            remove(top)
        assert os.listdir(top) == []


@pytest.mark.root
@pytest.mark.parametrize("flags", [IMMUTABLE, APPEND, IMMUTABLE | APPEND])
@pytest.mark.parametrize("protected", ["tree", "tree/d", "tree/d/f", "tree/f"])
def test_what_chattr_protects(top: Path, protected: str, flags: int) -> None:
    (top / "tree/d").mkdir(parents=True)
    (top / "tree/d/f").write_text("")
    (top / "tree/d/link").symlink_to("f")
    (top / "tree/f").write_text("")
    set_flags(top / protected, flags)
    remove(top)
    assert os.listdir(top) == []


@pytest.mark.root
def test_a_protected_file_of_another_name_stays_protected(top: Path) -> None:
    (top / "tree").mkdir()
    (top / "kept").write_text("")
    os.link(top / "kept", top / "tree/a")
    os.link(top / "kept", top / "tree/b")
    set_flags(top / "kept", IMMUTABLE)
    remove(top)
    assert os.listdir(top) == ["kept"]
    assert flags_of(top / "kept") == IMMUTABLE


@pytest.mark.root
def test_a_protected_parent_is_not_ours_to_change(top: Path) -> None:
    (top / "tree").mkdir()
    set_flags(top, IMMUTABLE)
    with pytest.raises(PermissionError) as caught:
        remove(top)
    assert one_line(caught.value) == (
        f"{top}/tree: the directory it is in is immutable or append-only (chattr -i -a lifts it)"
    )
    assert flags_of(top) == IMMUTABLE


@pytest.mark.root
def test_a_flag_that_cannot_be_cleared_keeps_nothing_else(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (top / "tree/d").mkdir(parents=True)
    for name in ("tree/a", "tree/d/protected", "tree/d/b", "tree/z"):
        (top / name).write_text("")
    set_flags(top / "tree/d/protected", IMMUTABLE)

    def refuse(fd: int, flags: int) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    with monkeypatch.context() as patch:
        patch.setattr(files, "set_inode_flags", refuse)
        with pytest.raises(PermissionError) as caught:
            remove(top)
    assert one_line(caught.value) == (
        f"{top}/tree/d/protected: it is immutable or append-only, and that cannot be lifted: "
        "Operation not permitted"
    )
    assert sorted(str(p.relative_to(top)) for p in top.rglob("*")) == [
        "tree",
        "tree/d",
        "tree/d/protected",
    ]


def test_several_failures_are_one_error(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (top / "tree").mkdir()
    for name in "abc":
        (top / "tree" / name).write_text("")
    unlink = removal._unlink

    def failing(directory: int, name: str) -> bool:
        if name in "ac":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return unlink(directory, name)

    monkeypatch.setattr(removal, "_unlink", failing)
    with pytest.raises(OSError, match="Input/output error") as caught:
        remove(top)
    assert caught.value.__notes__ == ["2 entries could not be removed, the first is"]
    assert sorted(os.listdir(top / "tree")) == ["a", "c"]


def test_descriptors_are_all_closed(top: Path) -> None:
    (top / "tree/a/b/c").mkdir(parents=True)
    before = len(os.listdir("/proc/self/fd"))
    remove(top)
    assert len(os.listdir("/proc/self/fd")) == before
