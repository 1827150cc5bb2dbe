"""Programs with a signature, and programs that are not the same with one."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import pytest

from bootc.formats.pe import PeError
from bootc.formats.pesignature import (
    NoPlaceForSignature,
    NotTheSameProgram,
    check_only_signed,
    is_signed,
)
from support import pe

PROGRAM = pe.signable((b".linux", b"kernel" * 100_000))
OPTIONAL = pe.PE_OFFSET + 24
ENTRY = OPTIONAL + 144


def check(unsigned: bytes, signed: bytes) -> None:
    check_only_signed(io.BytesIO(unsigned), io.BytesIO(signed))


def changed(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


@pytest.mark.parametrize("cut", range(8))
def test_a_signature_changes_nothing_else(cut: int) -> None:
    """Whatever the length of the program, zeros fill it up to the signature."""
    program = PROGRAM[: len(PROGRAM) - cut]
    signed = pe.signed(program)
    assert (is_signed(io.BytesIO(program)), is_signed(io.BytesIO(signed))) == (False, True)
    check(program, signed)


def test_two_signatures() -> None:
    once = pe.signed(PROGRAM)
    table = once[len(PROGRAM) :] * 2
    check(PROGRAM, changed(PROGRAM, ENTRY, struct.pack("<II", len(PROGRAM), len(table))) + table)


#: What is done to a signed program, and how the check names it.
FAULTS: list[tuple[Callable[[bytes], bytes], str]] = [
    (lambda data: changed(data, 0x30, b"x"), "differs at offset 48"),
    (lambda data: changed(data, len(PROGRAM) - 1, b"x"), f"differs at offset {len(PROGRAM) - 1}"),
    (lambda data: changed(data, OPTIONAL + 68, b"x"), "differs at offset"),
    (lambda data: changed(data, ENTRY + 8, b"x"), "differs at offset"),
    (lambda data: data + bytes(8), "does not end where the file ends"),
    (lambda data: data[:-8], "does not end where the file ends"),
    (lambda data: changed(data, ENTRY, bytes(8)), "has no signature"),
    (lambda data: changed(data, ENTRY, struct.pack("<I", len(PROGRAM) + 8)), "is at offset"),
    (lambda data: changed(data, len(PROGRAM), struct.pack("<I", 99)), "malformed"),
    (lambda data: changed(data, len(PROGRAM), struct.pack("<I", 8)), "malformed"),
    (lambda data: changed(data, len(PROGRAM) + 6, b"\1"), "unknown type 0x0001"),
    (lambda data: changed(data, len(data) - 1, b"x"), "hides behind the signature"),
    (lambda data: pe.signed(PROGRAM + bytes(4096)), "is at offset"),
]


@pytest.mark.parametrize(("fault", "message"), FAULTS)
def test_another_program(fault: Callable[[bytes], bytes], message: str) -> None:
    with pytest.raises(NotTheSameProgram, match=message):
        check(PROGRAM, fault(pe.signed(PROGRAM)))


def test_a_program_that_was_signed_before() -> None:
    signed = pe.signed(PROGRAM)
    with pytest.raises(NotTheSameProgram, match="has a signature already"):
        check(signed, pe.signed(signed))


#: Signed programs, but nobody finds the signature: the header has no place for it.
WITHOUT_PLACE = [
    changed(pe.signed(PROGRAM), OPTIONAL + 108, struct.pack("<I", 4)),
    changed(pe.signed(PROGRAM), pe.PE_OFFSET + 20, struct.pack("<H", 112 + 4 * 8)),
]


@pytest.mark.parametrize("data", WITHOUT_PLACE)
def test_a_program_without_a_place_for_a_signature_has_none(data: bytes) -> None:
    assert not is_signed(io.BytesIO(data))
    with pytest.raises(NoPlaceForSignature, match="has no place for a signature"):
        check(PROGRAM, data)


def test_a_signature_that_is_cut_off_is_none() -> None:
    assert not is_signed(io.BytesIO(pe.signed(PROGRAM)[:-1]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"MZ",
        b"add-on" * 20,
        b"MZ" + bytes(100),
        PROGRAM[: OPTIONAL + 50],
        changed(PROGRAM, 0x3C, b"\xff" * 4),
        changed(PROGRAM, OPTIONAL, b"\0\0"),
        changed(PROGRAM, ENTRY + 4, b"\xff" * 4),
    ],
)
def test_no_program(data: bytes) -> None:
    with pytest.raises(PeError):
        is_signed(io.BytesIO(data))
