from __future__ import annotations

import doctest

import pytest

from bootc import sizes
from bootc.sizes import exact_size, glib_size, human_size


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 << 20, "5.0 MiB"), (3 << 30, "3.0 GiB"),
     (5000 << 30, "5000.0 GiB")],
)  # fmt: skip
def test_binary_units(size: int, text: str) -> None:
    assert human_size(size) == text


def test_decimals() -> None:
    assert human_size(9952, decimals=2) == "9.72 KiB"
    assert human_size(7, decimals=2) == "7 B"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1, "1 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB, 1024 bytes"),
     (250_000_000, "238.4 MiB, 250000000 bytes")],
)  # fmt: skip
def test_human_and_exact(size: int, text: str) -> None:
    assert exact_size(size) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1.0 kB"), (1_500_000, "1.5 MB"),
     (2_000_000_000, "2.0 GB"), (5_000_000_000_000, "5000.0 GB")],
)  # fmt: skip
def test_units_of_glib(size: int, text: str) -> None:
    assert glib_size(size) == text


def test_doctests() -> None:
    assert doctest.testmod(sizes).failed == 0
