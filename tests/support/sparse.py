"""Sparse members of tar archives, in each of the formats of GNU tar, made by hand."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence

Segment = tuple[int, bytes]
FORMATS = ["gnu", "0.0", "0.1", "1.0"]
_BLOCK = 512


def content_of(size: int, segments: Sequence[Segment]) -> bytes:
    """Return the content of the file."""
    data = bytearray(size)
    for start, part in segments:
        data[start : start + len(part)] = part
    return bytes(data)


def member(name: str, size: int, segments: Sequence[Segment], form: str) -> bytes:
    """Return header, map and padded body of a sparse file."""
    body = b"".join(part for _, part in segments)
    if form == "gnu":
        return _old(name, size, segments) + _padded(body)
    pairs = [(str(start), str(len(part))) for start, part in segments]
    records = {"GNU.sparse.size" if form != "1.0" else "GNU.sparse.realsize": str(size)}
    if form == "1.0":
        records |= {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": name}
        lines = [str(len(pairs)), *(number for pair in pairs for number in pair)]
        body = _padded("".join(f"{line}\n" for line in lines).encode()) + body
    elif form == "0.1":
        records |= {"GNU.sparse.map": ",".join(f"{a},{b}" for a, b in pairs)}
        records |= {"GNU.sparse.name": name}
    info = tarfile.TarInfo(name if form == "0.0" else f"GNUSparseFile.0/{name}")
    info.size = len(body)
    text = b"".join(_record(key, value) for key, value in records.items())
    if form == "0.0":
        keys = "GNU.sparse.offset", "GNU.sparse.numbytes"
        text += b"".join(
            _record(key, value) for pair in pairs for key, value in zip(keys, pair, strict=True)
        )
    extension = tarfile.TarInfo("pax")
    extension.type = tarfile.XHDTYPE
    extension.size = len(text)
    return (
        extension.tobuf(tarfile.USTAR_FORMAT)
        + _padded(text)
        + info.tobuf(tarfile.USTAR_FORMAT)
        + _padded(body)
    )


def _record(key: str, value: str) -> bytes:
    rest = f" {key}={value}\n".encode()
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return b"%d" % length + rest


def _old(name: str, size: int, segments: Sequence[Segment]) -> bytes:
    info = tarfile.TarInfo(name)
    info.type = tarfile.GNUTYPE_SPARSE
    info.size = sum(len(part) for _, part in segments)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    pairs = [b"%011o\0%011o\0" % (start, len(part)) for start, part in segments]
    header[386:482] = b"".join(pairs[:4]).ljust(96, b"\0")
    header[482] = len(pairs) > 4
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    blocks = [pairs[at : at + 21] for at in range(4, len(pairs), 21)]
    more = b""
    for number, block in enumerate(blocks, 1):
        more += b"".join(block).ljust(504, b"\0") + bytes([number < len(blocks)]) + bytes(7)
    return bytes(header) + more


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _BLOCK)
