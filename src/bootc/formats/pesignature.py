"""Signatures of EFI programs for Secure Boot: whether there is one.

A signature is a table of certificates behind the program, and an entry of the header tells its
place.

Format: Microsoft PE/COFF, "Optional Header Data Directories" and "The Attribute Certificate Table
(Image Only)".
"""

from __future__ import annotations

import struct

from bootc.formats.pe import PeError, SeekableFile

_PE_OFFSET_AT = 0x3C
_SIGNATURE = b"PE\0\0"
#: Signature and COFF header.
_HEADER_BYTES = 24
#: The headers of all known programs are within this.
_MAX_HEADER_BYTES = 1 << 16
#: Offset of the data directories in the optional header, by its magic number.
_DIRECTORIES_AT = {0x10B: 96, 0x20B: 112}
_CERTIFICATES, _ENTRY_BYTES = 4, 8


def is_signed(file: SeekableFile) -> bool:
    """Tell whether a program has a signature. Nothing verifies the signature.

    Raises:
        PeError: the file is no EFI program.
    """
    size_bytes = file.seek(0, 2)
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
    entry = directories + _CERTIFICATES * _ENTRY_BYTES
    if entry + _ENTRY_BYTES > optional_bytes or optional + optional_bytes > len(raw):
        return False
    (count,) = struct.unpack_from("<I", raw, optional + directories - 4)
    if count <= _CERTIFICATES:
        return False
    table_at, table_bytes = struct.unpack_from("<II", raw, optional + entry)
    return bool(table_bytes) and int(table_at) + int(table_bytes) <= size_bytes


def _read(file: SeekableFile, size: int) -> bytes:
    parts = []
    while size and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
