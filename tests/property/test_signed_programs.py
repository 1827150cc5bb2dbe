"""A signed program may differ from the unsigned one in the signature, and nowhere else."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootc.formats.pe import PeError
from bootc.formats.pesignature import NotTheSameProgram, check_only_signed
from support import pe

PROGRAM = pe.signable((b".linux", b"kernel" * 50))[:-3]
SIGNED = pe.signed(PROGRAM, b"signature" * 5)
CHECKSUM = range(pe.PE_OFFSET + 24 + 64, pe.PE_OFFSET + 24 + 68)
#: Behind the header of the certificate.
SIGNATURE = range(len(PROGRAM) + 3 + 8, len(PROGRAM) + 3 + 8 + 45)


def is_same(signed: bytes) -> bool:
    try:
        check_only_signed(io.BytesIO(PROGRAM), io.BytesIO(signed))
    except (NotTheSameProgram, PeError):
        return False
    return True


@given(at=st.integers(0, len(SIGNED) - 1), value=st.integers(1, 255))
def test_any_changed_byte_is_noticed(at: int, value: int) -> None:
    changed = bytearray(SIGNED)
    changed[at] ^= value
    assert is_same(bytes(changed)) == (at in CHECKSUM or at in SIGNATURE)


@given(data=st.binary(max_size=600))
def test_any_bytes_are_no_signed_program(data: bytes) -> None:
    assert not is_same(data)
    assert not is_same(SIGNED + data) or not data


@given(size=st.integers(0, len(PROGRAM) - 1))
def test_a_part_is_no_signed_program(size: int) -> None:
    assert not is_same(SIGNED[:size])
    with pytest.raises((NotTheSameProgram, PeError)):
        check_only_signed(io.BytesIO(PROGRAM[:size]), io.BytesIO(SIGNED))
