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


def signed(data: bytes, certificates: bytes = b"a signature") -> bytes:
    """Return a program with a table of certificates behind it, which nobody verifies."""
    optional = PE_OFFSET + 24
    header = bytearray(data)
    struct.pack_into("<H", header, optional, 0x20B)
    struct.pack_into("<I", header, optional + 108, 16)
    struct.pack_into("<II", header, optional + 112 + 4 * 8, len(data), len(certificates))
    return bytes(header) + certificates
