"""Reads block devices from the output of ``lsblk``.

A device depends on other devices (a partition on a disk, an array on partitions), and
other devices depend on it. ``lsblk`` prints both relations as trees of JSON objects. Output
in another form is refused in one line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bootc.fs.process import CommandFailed, run_json
from bootc.fs.toolreply import Record, run_for_record

#: lsblk prints a tree only if NAME is among the columns.
_COLUMNS = "NAME,PATH,TYPE,PTTYPE,PARTTYPE,PARTUUID,PARTLABEL,SIZE,RO,MODEL,SERIAL"


@dataclass(frozen=True, slots=True)
class Block:
    """A block device.

    Attributes:
        path: The path of its node in ``/dev``.
        kind: ``disk``, ``part``, ``loop``, ``crypt``, ``raid1``, …
        size_bytes: Its size.
        read_only: Whether it refuses writes.
        model: The model name that the hardware reports, if any.
        serial: The serial number that the hardware reports, if any.
        partition_table: The kind of table this partition is in: ``gpt``, ``dos``, …
        partition_type: The type in the table, or None if udev does not know it (yet).
        partition_id: The PARTUUID in lower case, if it is a partition and udev knows it.
        partition_name: The name in the table, if it is a partition and udev knows it.
        is_last: Whether it is a leaf of the tree: for :func:`above`, no device depends on it; for
            :func:`below`, it depends on no device.
    """

    path: str
    kind: str
    size_bytes: int
    read_only: bool
    model: str | None
    serial: str | None
    partition_table: str | None
    partition_type: str | None
    partition_id: str | None
    partition_name: str | None
    is_last: bool


def above(device: str) -> list[Block]:
    """Return a device and all devices that depend on it, the device first.

    Raises:
        ToolMissing: lsblk is not installed.
        CommandFailed: lsblk cannot read the device, or its answer makes no sense.
    """
    return _ask("--", device)


def below(device: str) -> list[Block]:
    """Return a device and all devices that it depends on, the device first.

    Raises:
        ToolMissing, CommandFailed: as :func:`above`.
    """
    return _ask("--inverse", "--", device)


def all_devices() -> list[Block]:
    """Return all devices of the machine. A device that depends on several is there repeatedly.

    Raises:
        ToolMissing, CommandFailed: as :func:`above`.
    """
    return _ask()


def everything_about(device: str) -> dict[str, Any]:
    """Return all that ``lsblk`` tells of a device, with the devices that are made of it.

    Raises:
        ToolMissing, CommandFailed: as :func:`above`.
    """
    argv = ["lsblk", "--json", "--bytes", "--output-all", "--tree", "--", device]
    match run_json(argv):
        case {"blockdevices": [dict() as found, *_]}:
            return found
    raise CommandFailed(argv, 0, b"it tells of no device")


def _ask(*arguments: str) -> list[Block]:
    argv = ["lsblk", "--json", "--bytes", "--output", _COLUMNS, *arguments]
    reply = run_for_record(argv)
    blocks = []
    pending = list(reply.records("blockdevices"))
    while pending:
        record, *pending = pending
        children = record.records("children", default=())
        blocks.append(_block(record, is_last=not children))
        pending += children
    if not blocks:
        raise reply.wrong("it tells of no device")
    return blocks


def _block(record: Record, *, is_last: bool) -> Block:
    return Block(
        path=record.text("path"),
        kind=record.text("type"),
        size_bytes=record.number("size"),
        read_only=record.flag("ro"),
        model=record.optional_text("model"),
        serial=record.optional_text("serial"),
        partition_table=record.optional_text("pttype"),
        partition_type=record.optional_text("parttype"),
        partition_id=(record.optional_text("partuuid") or "").lower() or None,
        partition_name=record.optional_text("partlabel"),
        is_last=is_last,
    )
