"""Writes EFI programs of nothing but headers and sections."""

from __future__ import annotations

import struct
from collections.abc import Iterable

PE_OFFSET = 0x80
OPTIONAL_HEADER_BYTES = 0xF0
SECTION_TABLE = PE_OFFSET + 24 + OPTIONAL_HEADER_BYTES
FILE_ALIGNMENT = 512

#: What every unified kernel image has.
UKI_SECTIONS = (
    (b".osrel", b'ID=fedora\nPRETTY_NAME="Fedora Linux 43"\nVERSION_ID=43\n'),
    (b".cmdline", b"rw composefs=" + b"ab" * 64),
    (b".linux", b"kernel" * 100),
    (b".initrd", b"initramfs" * 100),
)


def headers(sections: Iterable[tuple[bytes, int, int]]) -> bytes:
    """Return the headers of a file whose sections have these names, sizes and offsets."""
    table = b"".join(
        struct.pack("<8sIIII16x", name, size, 0, size + -size % FILE_ALIGNMENT, offset)
        for name, size, offset in sections
    )
    start = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", PE_OFFSET)
    coff = struct.pack("<HHIIIHH", 0x8664, len(table) // 40, 0, 0, 0, OPTIONAL_HEADER_BYTES, 0x206)
    return start.ljust(PE_OFFSET, b"\0") + b"PE\0\0" + coff + bytes(OPTIONAL_HEADER_BYTES) + table


def program(*sections: tuple[bytes, bytes]) -> bytes:
    """Return a file of these sections, each filled up to a whole block with 0xEE."""
    offset = len(headers((name, 0, 0) for name, _ in sections))
    body = b""
    placed = []
    for name, content in sections:
        placed.append((name, len(content), offset + len(body)))
        body += content + b"\xee" * (-len(content) % FILE_ALIGNMENT)
    return headers(placed) + body


def signable(*sections: tuple[bytes, bytes]) -> bytes:
    """Return a file of these sections whose header has a place for a signature."""
    return _with_place(program(*sections))


def _with_place(data: bytes) -> bytes:
    """Make the header one of 64 bits with all directories."""
    made = bytearray(data)
    struct.pack_into("<H", made, PE_OFFSET + 24, 0x20B)
    struct.pack_into("<I", made, PE_OFFSET + 24 + 108, 16)
    return bytes(made)


def signed(unsigned: bytes, signature: bytes = b"signature") -> bytes:
    """Return a file with a signature that nothing verifies."""
    data = bytearray(_with_place(unsigned) + bytes(-len(unsigned) % 8))
    certificate = struct.pack("<IHH", 8 + len(signature), 0x0200, 2) + signature
    certificate += bytes(-len(certificate) % 8)
    struct.pack_into("<I", data, PE_OFFSET + 24 + 64, 0x1234)
    struct.pack_into("<II", data, PE_OFFSET + 24 + 144, len(data), len(certificate))
    return bytes(data) + certificate
