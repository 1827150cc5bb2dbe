from __future__ import annotations

import doctest

import pytest

from bootc.formats import prepareroot
from bootc.formats.keyfile import KeyfileError
from bootc.formats.prepareroot import composefs_enabled


def test_doctests() -> None:
    assert doctest.testmod(prepareroot).failed == 0


@pytest.mark.parametrize("value", ["yes", "true", "1", "maybe", "verity", "signed"])
def test_enabled(value: str) -> None:
    assert composefs_enabled(f"[composefs]\nenabled={value}\n".encode())


@pytest.mark.parametrize("value", ["no", "false", "0", "", "Yes", "junk"])
def test_not_enabled(value: str) -> None:
    assert not composefs_enabled(f"[composefs]\nenabled={value}\n".encode())


def test_elsewhere() -> None:
    assert not composefs_enabled(b"")
    assert not composefs_enabled(b"[sysroot]\nenabled=yes\n[root]\ntransient=yes\n")
    assert composefs_enabled(b"[root]\ntransient=true\n")


def test_malformed() -> None:
    with pytest.raises(KeyfileError):
        composefs_enabled(b"enabled=yes")
