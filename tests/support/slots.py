"""The partitions of ukiboot as files, and what the loader starts.

This is a model of its own, by what ukiboot 0.2.1 was seen to do. It shares no code with bootc.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from bootc.boot.loader import Bootloader
from bootc.boot.scheme import Scheme
from bootc.boot.slot_partitions import Slots
from bootc.formats.ukiboot import Name

SLOT_BYTES = 64 << 10
_MAGIC = 0x54ABE108
_INITIAL = [[15, 7, 0], [14, 7, 0]]


def slots_of(path: Path, scheme: Scheme, booted: str | None = None) -> Slots | None:
    """Return the partitions of a machine below ``path``, making them if they are missing."""
    if scheme.bootloader is not Bootloader.UKIBOOT:
        return None
    parts = path / "parts"
    if not parts.exists():
        parts.mkdir()
        for name in ("a", "b"):
            (parts / name).write_bytes(bytes(SLOT_BYTES))
        (parts / "control").write_bytes(bytes(4096))
    nodes = (str(parts / name) for name in ("a", "b", "control"))
    return Slots(*nodes, None if booted is None else Name(booted))


def content(path: Path, slot: str) -> bytes:
    """Return what is in a slot, without the zeros after it."""
    return (path / "parts" / slot).read_bytes().rstrip(b"\0")


def put(path: Path, a: tuple[int, int, int], b: tuple[int, int, int]) -> None:
    """Write a control block: priority, tries and success of each slot."""
    body = struct.pack("<I3Bx3Bx8x", _MAGIC, *a, *b)
    block = body + struct.pack("<I", zlib.crc32(body))
    with (path / "parts/control").open("r+b") as file:
        file.write(block)


def get(path: Path) -> list[list[int]]:
    """Return priority, tries and success of each slot; those of the loader if damaged."""
    data = (path / "parts/control").read_bytes()[:24]
    magic, *values, crc = struct.unpack("<I3Bx3Bx8xI", data)
    if magic != _MAGIC or crc != zlib.crc32(data[:20]):
        return [list(slot) for slot in _INITIAL]
    return [values[:3], values[3:]]


def order(path: Path) -> list[str]:
    """Return the slots that the loader would start, the next one first."""
    state = get(path)
    valid = [index for index in (0, 1) if state[index][2] or state[index][1]]
    return ["ab"[index] for index in sorted(valid, key=lambda index: -state[index][0])]


def start(path: Path) -> str | None:
    """Choose a slot as the loader does, count the attempt, and return the slot."""
    found = order(path)
    if not found:
        return None
    state = get(path)
    chosen = state["ab".index(found[0])]
    if not chosen[2]:
        chosen[1] -= 1
    put(path, (*state[0],), (*state[1],))  # type: ignore[arg-type]
    return found[0]
