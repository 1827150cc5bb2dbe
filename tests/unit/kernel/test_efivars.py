from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from bootc.kernel.efivars import is_writable, read_variable, remove_variable, write_variable

GUID = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"


def test_the_attributes_are_taken_off(tmp_path: Path) -> None:
    (tmp_path / f"LoaderInfo-{GUID}").write_bytes(b"\x06\0\0\0s\0d\0")
    assert read_variable("LoaderInfo", GUID, root=str(tmp_path)) == b"s\0d\0"


def test_what_does_not_exist_is_none(tmp_path: Path) -> None:
    assert read_variable("LoaderInfo", GUID, root=str(tmp_path)) is None
    assert read_variable("LoaderInfo", GUID, root=str(tmp_path / "no-efivarfs")) is None


@pytest.mark.parametrize("content", [b"", b"\x06", b"\x06\0\0\0"])
def test_a_variable_without_payload_does_not_exist(tmp_path: Path, content: bytes) -> None:
    (tmp_path / f"LoaderInfo-{GUID}").write_bytes(content)
    assert read_variable("LoaderInfo", GUID, root=str(tmp_path)) is None


def test_other_failures_stay_os_errors(tmp_path: Path) -> None:
    os.symlink("loop", tmp_path / "loop")
    with pytest.raises(OSError, match="Too many levels"):
        read_variable("x", "y", root=str(tmp_path / "loop"))


def test_variables_that_can_be_written(tmp_path: Path) -> None:
    root = str(tmp_path)
    # The mount point alone, and no firmware.
    assert not is_writable(root=root)
    assert not is_writable(root=str(tmp_path / "no-efivarfs"))
    write_variable("LoaderInfo", GUID, 7, b"s\0", root=root)
    assert is_writable(root=root)


def test_a_read_only_file_system_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"LoaderInfo-{GUID}").write_bytes(b"\x06\0\0\0s\0d\0")
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_RDONLY))
    assert not is_writable(root=str(tmp_path))


def test_a_variable_is_removed_once(tmp_path: Path) -> None:
    root = str(tmp_path)
    write_variable("LoaderInfo", GUID, 7, b"s\0", root=root)
    for _ in range(2):
        remove_variable("LoaderInfo", GUID, root=root)
    assert list(tmp_path.iterdir()) == []
