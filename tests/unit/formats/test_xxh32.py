from __future__ import annotations

import pytest

from bootc.formats.xxh32 import xxh32

FILTER_SEED = 0x25BBE08F


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0x02CC5D05),
        (b"Nobody inspects the spammish repetition", 0xE2293B2F),
    ],
)
def test_reference_values(data: bytes, expected: int) -> None:
    assert xxh32(data, 0) == expected


@pytest.mark.parametrize(
    ("index", "suffix", "bit"),
    [
        (4, b"overlay.opaque", 20),
        (4, b"overlay.metacopy", 31),
        (4, b"overlay.redirect", 17),
        (4, b"overlay.overlay.opaque", 5),
        (4, b"overlay.overlay.whiteout", 4),
        (4, b"overlay.overlay.whiteouts", 12),
        (1, b"overlay.whiteout", 9),
        (1, b"overlay.whiteouts", 20),
        (1, b"overlay.opaque", 10),
        (6, b"selinux", 11),
        (6, b"capability", 29),
        (2, b"", 30),
        (3, b"", 21),
    ],
)
def test_filter_bits_of_the_names_composefs_uses(index: int, suffix: bytes, bit: int) -> None:
    assert xxh32(suffix, FILTER_SEED + index) % 32 == bit
