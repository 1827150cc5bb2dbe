from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootc.kernel.efivars import read_variable

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
