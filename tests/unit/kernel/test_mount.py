"""Mount calls that fail the same for everybody. tests/host mounts for real."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootc.kernel import mount
from bootc.kernel.libc import AT_FDCWD


def test_unmounting_nothing_fails() -> None:
    # The second without root.
    with pytest.raises((FileNotFoundError, PermissionError)):
        mount.umount2("/nowhere")


def test_open_tree_opens_and_follows_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    fd = mount.open_tree(AT_FDCWD, str(tmp_path / "link"))
    try:
        assert os.path.samestat(os.fstat(fd), (tmp_path / "there").stat())
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_open_tree_names_errno_of_missing_path() -> None:
    with pytest.raises(FileNotFoundError):
        mount.open_tree(AT_FDCWD, "/nowhere")


def test_attribute_structure_has_the_size_of_its_first_version() -> None:
    assert mount._MOUNT_ATTR.size == 32  # MOUNT_ATTR_SIZE_VER0
