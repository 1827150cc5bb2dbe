from __future__ import annotations

import doctest
import os
import stat
import typing
from pathlib import Path

from bootc.formats import tree
from bootc.formats.digest import Algorithm, Digest
from bootc.formats.filecontexts import FileType
from bootc.formats.tree import FileKind


def test_doctests() -> None:
    assert doctest.testmod(tree).failed == 0


def test_every_content_has_a_kind() -> None:
    contents = {*typing.get_args(tree.Content), tree.Redirected}
    assert set(tree._KINDS) == contents
    assert set(tree._KINDS.values()) == set(FileKind) - {FileKind.DIRECTORY}


def test_kinds_are_told_by_their_bits_and_by_the_kernels_entry_type(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    os.symlink("x", tmp_path / "symlink")
    (tmp_path / "directory").mkdir()
    (tmp_path / "regular").touch()
    for path in tmp_path.iterdir():
        kind = tree.KINDS_BY_MODE[stat.S_IFMT(path.lstat().st_mode)]
        assert kind is FileKind[path.name.upper()]
    # EROFS numbers the types like ext4 (FT_*): Linux include/linux/fs_types.h.
    names = "REGULAR DIRECTORY CHAR_DEVICE BLOCK_DEVICE FIFO SOCKET SYMLINK"
    assert [FileKind[name].dirent_type for name in names.split()] == [*range(1, 8)]


def test_policies_know_the_same_kinds() -> None:
    assert {kind.name for kind in FileKind} == {kind.name for kind in FileType}


def test_a_redirected_file_is_never_the_object_of_its_digest() -> None:
    digest = Digest(Algorithm.SHA256, bytes(32))
    plain = tree.External(digest, 9)
    named = digest.object_path.encode()
    assert plain.object_path == named
    assert tree.Redirected(digest, 9, b"a/b").object_path == b"a/b"
    assert tree.Redirected(digest, 9, named) != plain
