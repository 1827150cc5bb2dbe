"""Signatures of EFI programs for Secure Boot: whether there is one, and what signing changed.

A signature is a table of certificates behind the program. Signing also changes two fields of the
header: the place of the table, and the checksum, which firmware ignores. The firmware hashes
everything else. Therefore a signed program that differs elsewhere is another program.

Format: Microsoft PE/COFF, "Optional Header Data Directories" and "The Attribute Certificate Table
(Image Only)"; Windows Authenticode Portable Executable Signature Format.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from bootc.errors import Error
from bootc.formats.pe import PeError, SeekableFile

_PE_OFFSET_AT = 0x3C
_SIGNATURE = b"PE\0\0"
#: Signature and COFF header.
_HEADER_BYTES = 24
#: The headers of all known programs are within this.
_MAX_HEADER_BYTES = 1 << 16
_CHECKSUM_AT, _CHECKSUM_BYTES = 64, 4
#: Offset of the data directories in the optional header, by its magic number.
_DIRECTORIES_AT = {0x10B: 96, 0x20B: 112}
_CERTIFICATES, _ENTRY_BYTES = 4, 8
_ALIGNMENT = 8
#: A signature with its certificates takes a few thousand bytes.
_MAX_TABLE_BYTES = 1 << 20
#: Length, revision and type of a certificate.
_CERTIFICATE = struct.Struct("<IHH")
_REVISION, _PKCS_SIGNED_DATA = 0x0200, 0x0002
_PIECE_BYTES = 1 << 20


class NoPlaceForSignature(PeError):
    """The header of a program has no entry for a table of certificates."""


class NotTheSameProgram(Error):
    """A signed program is not the unsigned one with a signature."""


@dataclass(frozen=True, slots=True)
class _Place:
    """The fields that signing changes, and the table of certificates."""

    checksum_at: int
    entry_at: int
    table_at: int
    table_bytes: int


def is_signed(file: SeekableFile) -> bool:
    """Tell whether a program has a whole signature. Nothing verifies the signature.

    Raises:
        PeError: the file is no EFI program.
    """
    try:
        place = _place(file)
    except NoPlaceForSignature:
        return False
    return place.table_bytes > 0 and place.table_at + place.table_bytes <= file.seek(0, 2)


def check_only_signed(unsigned: SeekableFile, signed: SeekableFile) -> None:
    """Ensure that a program is another one with nothing but a signature added.

    The function does not verify the signature itself.

    Args:
        unsigned: The program before signing.
        signed: The program after signing.

    Raises:
        NotTheSameProgram: it differs, or has no signature.
        PeError: a file is no EFI program.
    """
    before, after = _place(unsigned), _place(signed)
    if before.table_bytes:
        raise NotTheSameProgram("the unsigned program has a signature already")
    if not after.table_bytes:
        raise NotTheSameProgram("the program has no signature")
    size, signed_size = unsigned.seek(0, 2), signed.seek(0, 2)
    if after.table_at != size + -size % _ALIGNMENT:
        raise NotTheSameProgram(
            f"the signature is at offset {after.table_at} of a program of {size} bytes"
        )
    if after.table_at + after.table_bytes != signed_size:
        raise NotTheSameProgram("the signature does not end where the file ends")
    if (before.checksum_at, before.entry_at) != (after.checksum_at, after.entry_at):
        raise NotTheSameProgram("the headers differ")
    _compare(unsigned, signed, after)
    _check_table(_bytes(signed, after.table_at, after.table_bytes))


def _compare(unsigned: SeekableFile, signed: SeekableFile, place: _Place) -> None:
    """Compare two programs up to the signature."""
    unsigned.seek(0)
    signed.seek(0)
    for at in range(0, place.table_at, _PIECE_BYTES):
        size = min(_PIECE_BYTES, place.table_at - at)
        a = _read(unsigned, size).ljust(size, b"\0")
        b = _read(signed, size)
        if at == 0:
            a, b = _masked(a, place), _masked(b, place)
        if a != b:
            differing = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), 0)
            raise NotTheSameProgram(f"the program differs at offset {at + differing}")


def _masked(piece: bytes, place: _Place) -> bytes:
    """Return the first bytes of a program without the fields that signing changes."""
    data = bytearray(piece)
    for at, size in ((place.checksum_at, _CHECKSUM_BYTES), (place.entry_at, _ENTRY_BYTES)):
        data[at : at + size] = bytes(size)
    return bytes(data)


def _check_table(table: bytes) -> None:
    """Ensure that a table of certificates holds signatures, and nothing else."""
    at = 0
    while at < len(table):
        if at + _CERTIFICATE.size > len(table):
            raise NotTheSameProgram("the signature is malformed")
        length, revision, kind = _CERTIFICATE.unpack_from(table, at)
        end = at + length
        if length <= _CERTIFICATE.size or end > len(table):
            raise NotTheSameProgram("the signature is malformed")
        if (revision, kind) != (_REVISION, _PKCS_SIGNED_DATA):
            raise NotTheSameProgram(f"the signature has the unknown type {kind:#06x}")
        at = end + -end % _ALIGNMENT
        if any(table[end:at]):
            raise NotTheSameProgram("data hides behind the signature")


def _place(file: SeekableFile) -> _Place:
    file.seek(0)
    raw = _read(file, _MAX_HEADER_BYTES)
    if raw[:2] != b"MZ" or len(raw) < _PE_OFFSET_AT + 4:
        raise PeError("not an EFI program: no MZ signature at offset 0")
    (start,) = struct.unpack_from("<I", raw, _PE_OFFSET_AT)
    optional = start + _HEADER_BYTES
    if raw[start : start + len(_SIGNATURE)] != _SIGNATURE or optional + 2 > len(raw):
        raise PeError(f"not an EFI program: no PE signature at offset {start}")
    (optional_bytes,) = struct.unpack_from("<H", raw, start + 20)
    (magic,) = struct.unpack_from("<H", raw, optional)
    directories = _DIRECTORIES_AT.get(magic)
    if directories is None:
        raise PeError(f"not an EFI program: unknown optional header {magic:#06x}")
    if optional + optional_bytes > len(raw):
        raise PeError("not an EFI program: the optional header is cut off")
    entry = directories + _CERTIFICATES * _ENTRY_BYTES
    if entry + _ENTRY_BYTES > optional_bytes:
        raise NoPlaceForSignature("the EFI program has no place for a signature")
    (count,) = struct.unpack_from("<I", raw, optional + directories - 4)
    if count <= _CERTIFICATES:
        raise NoPlaceForSignature("the EFI program has no place for a signature")
    table_at, table_bytes = struct.unpack_from("<II", raw, optional + entry)
    if table_bytes > _MAX_TABLE_BYTES:
        raise PeError(f"the signature of the EFI program has {table_bytes} bytes")
    return _Place(optional + _CHECKSUM_AT, optional + entry, table_at, table_bytes)


def _bytes(file: SeekableFile, at: int, size: int) -> bytes:
    file.seek(at)
    return _read(file, size)


def _read(file: SeekableFile, size: int) -> bytes:
    parts = []
    while size and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
