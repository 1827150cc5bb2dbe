"""Whether an EFI program has a signature."""

from __future__ import annotations

import io
import struct

import pytest

from bootc.formats.pe import PeError
from bootc.formats.pesignature import is_signed
from support import pe

OPTIONAL = pe.PE_OFFSET + 24
PROGRAM = pe.signed(pe.program(*pe.UKI_SECTIONS))


def patched(at: int, form: str, value: int) -> bytes:
    data = bytearray(PROGRAM)
    struct.pack_into(form, data, at, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (PROGRAM, True),
        (pe.signed(pe.program(), certificates=b""), False),
        # The table is cut off.
        (PROGRAM[:-1], False),
        # The header has no place for it.
        (patched(OPTIONAL + 108, "<I", 4), False),
        (patched(pe.PE_OFFSET + 20, "<H", 112 + 4 * 8), False),
    ],
)
def test_a_signature_is_a_table_behind_the_program(data: bytes, expected: bool) -> None:
    assert is_signed(io.BytesIO(data)) is expected


@pytest.mark.parametrize(
    "data",
    [b"", b"MZ", b"add-on" * 20, PROGRAM[: OPTIONAL + 1], patched(OPTIONAL, "<H", 0x999)],
)
def test_a_file_that_is_no_program(data: bytes) -> None:
    with pytest.raises(PeError, match="not an EFI program"):
        is_signed(io.BytesIO(data))
