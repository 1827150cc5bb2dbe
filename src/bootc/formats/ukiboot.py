"""The control block of ukiboot, a loader that starts one of two partitions.

A partition has a unified kernel image from its first byte on. The control block says which of the
two the loader starts, and how often it still tries. It is the beginning of a partition of its own:

======  ====================================================
offset  content, little endian
======  ====================================================
0       magic number
4       slot A: priority, tries left, successful, 0
8       slot B: the same
12      eight zero bytes
20      CRC-32 (as zlib) of the bytes before
======  ====================================================

The loader writes the block before it starts a slot that has not been successful yet. A block that
is not valid counts as :data:`INITIAL`. So the loader resets a block that was half-written.

Source: ukiboot 0.2.1.
"""

from __future__ import annotations

import enum
import struct
import zlib
from dataclasses import dataclass, replace

from bootc.errors import Error

#: GPT partition types, and the names of the partitions. Type and name must both match.
SLOT_TYPE = "df331e4d-be00-463f-b4a7-8b43e18fb53a"
CONTROL_TYPE = "fefd9070-346f-4c9a-85e6-17f07f922773"
CONTROL_NAME = "ukibootctl"

MAX_PRIORITY = 15
MAX_TRIES = 7

_MAGIC = 1420550408
_BODY = struct.Struct("<I3Bx3Bx8x")
_CRC = struct.Struct("<I")
SIZE_BYTES = _BODY.size + _CRC.size


class ControlBlockError(Error):
    """A control block is not valid. The loader starts as if it were the initial one."""


class Name(enum.StrEnum):
    """The two slots, by the suffix that the kernel command line has."""

    A = "a"
    B = "b"

    @property
    def other(self) -> Name:
        """The other slot."""
        return Name.B if self is Name.A else Name.A

    @property
    def label(self) -> str:
        """The name of the partition."""
        return f"ukiboot_{self.value}"


@dataclass(frozen=True, slots=True)
class Slot:
    """What the loader knows of a partition.

    Attributes:
        priority: The loader prefers the higher one.
        tries: How often it still starts the slot before that is successful.
        successful: The slot has booted.
    """

    priority: int = 0
    tries: int = 0
    successful: bool = False

    @property
    def is_valid(self) -> bool:
        """Whether the loader starts it at all."""
        return self.successful or self.tries > 0

    @property
    def has_failed(self) -> bool:
        """Whether the loader has started it as often as it should, and it did not boot."""
        return self.priority > 0 and not self.is_valid


@dataclass(frozen=True, slots=True)
class ControlBlock:
    """Both slots."""

    a: Slot
    b: Slot

    def slot(self, name: Name) -> Slot:
        """Return a slot."""
        return self.a if name is Name.A else self.b

    def with_slot(self, name: Name, slot: Slot) -> ControlBlock:
        """Return the block with another content of a slot."""
        return ControlBlock(slot, self.b) if name is Name.A else ControlBlock(self.a, slot)

    @property
    def active(self) -> Name | None:
        """The slot that the loader starts next; None if it starts neither."""
        valid = [name for name in Name if self.slot(name).is_valid]
        # Of equal priorities A.
        return max(valid, key=lambda name: self.slot(name).priority, default=None)

    def started(self) -> ControlBlock:
        """Return the block as the loader writes it before it starts the active slot."""
        name = self.active
        if name is None or self.slot(name).successful:
            return self
        slot = self.slot(name)
        return self.with_slot(name, replace(slot, tries=slot.tries - 1))

    def prepared(self, name: Name) -> ControlBlock:
        """Return the block for writing a slot: the loader starts only the other one.

        The other slot is the running one, which has booted.
        """
        other = replace(self.slot(name.other), tries=0, successful=True)
        return ControlBlock(Slot(), Slot()).with_slot(name.other, other)

    def switched(self, name: Name) -> ControlBlock:
        """Return the block that starts a slot next, some times, and then the other one again."""
        other = replace(self.slot(name.other), priority=MAX_PRIORITY - 1)
        block = self.with_slot(name.other, other)
        return block.with_slot(name, Slot(MAX_PRIORITY, MAX_TRIES))

    def marked(self, name: Name) -> ControlBlock:
        """Return the block after a slot has booted."""
        return self.with_slot(name, replace(self.slot(name), tries=0, successful=True))

    def to_bytes(self) -> bytes:
        """Return the 24 bytes."""
        slots = ((slot.priority, slot.tries, slot.successful) for slot in (self.a, self.b))
        body = _BODY.pack(_MAGIC, *next(slots), *next(slots))
        return body + _CRC.pack(zlib.crc32(body))


#: What the loader writes if the block is not valid.
INITIAL = ControlBlock(Slot(MAX_PRIORITY, MAX_TRIES), Slot(MAX_PRIORITY - 1, MAX_TRIES))


def parse_control_block(data: bytes) -> ControlBlock:
    """Read the beginning of the control partition.

    Raises:
        ControlBlockError: it is not valid.
    """
    if len(data) < SIZE_BYTES:
        raise ControlBlockError(f"the control block of ukiboot has only {len(data)} bytes")
    body = data[: _BODY.size]
    magic, *values = _BODY.unpack(body)
    if magic != _MAGIC:
        raise ControlBlockError("the control block of ukiboot has another magic number")
    if _CRC.unpack_from(data, _BODY.size) != (zlib.crc32(body),):
        raise ControlBlockError("the control block of ukiboot has a wrong checksum")
    a, b = (Slot(values[at], values[at + 1], bool(values[at + 2])) for at in (0, 3))
    return ControlBlock(a, b)


def effective(data: bytes) -> ControlBlock:
    """Return the block as the loader takes it."""
    try:
        return parse_control_block(data)
    except ControlBlockError:
        return INITIAL
