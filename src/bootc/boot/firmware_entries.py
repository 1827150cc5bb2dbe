"""The boot entries of the firmware: ``Boot####`` and ``BootOrder``.

An entry names a program on a partition, by the number, the place and the PARTUUID of the
partition (UEFI specification 2.10, "Boot Manager" and "Device Path Protocol"). The firmware
starts the entries of ``BootOrder`` one after the other, until one works.
"""

from __future__ import annotations

import re
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from bootc.errors import Error, doing
from bootc.kernel import efivars

#: The vendor of the variables that the UEFI specification defines.
GLOBAL_GUID = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
#: Non-volatile, and visible before and after the start of the system.
_ATTRIBUTES = 7
_ACTIVE = 1
_NAME = re.compile(r"Boot([0-9A-F]{4})\Z")
_ORDER = "BootOrder"
_HARD_DRIVE = struct.Struct("<BBHIQQ16sBB")
_GPT, _GUID_SIGNATURE = 2, 2
_END = b"\x7f\xff\x04\x00"


class NoFreeNumber(Error):
    """The firmware has 65536 boot entries."""


@dataclass(frozen=True, slots=True)
class ProgramPlace:
    """An EFI program on a partition of a GPT disk.

    Attributes:
        number: The number of the partition.
        first_sector: Its first sector.
        sectors: How many sectors it has.
        partuuid: Its PARTUUID.
        path: The path of the program, with ``/`` between the names.
    """

    number: int
    first_sector: int
    sectors: int
    partuuid: uuid.UUID
    path: str


def ensure_entry(place: ProgramPlace, title: str, *, root: str = efivars.EFIVARS) -> bool:
    """Make sure that the firmware starts a program, and tell whether an entry was missing.

    A new entry comes first in the order. The order is written last, so an interruption leaves
    the old order.

    Raises:
        NoFreeNumber: there is no number for another entry.
        OSError: the variables cannot be read or written.
    """
    with doing("Looking at the boot entries of the firmware"):
        order = read_order(root=root)
        entries = dict(_entries(root))
        wanted = _file_list(place)
        if any(wanted in entries.get(number, b"") for number in order):
            return False
    with doing("Writing a boot entry of the firmware"):
        known = [number for number, option in entries.items() if wanted in option]
        number = known[0] if known else _free_number(entries)
        if not known:
            efivars.write_variable(
                f"Boot{number:04X}", GLOBAL_GUID, _ATTRIBUTES, load_option(place, title), root=root
            )
        packed = struct.pack(f"<{len(order) + 1}H", number, *order)
        efivars.write_variable(_ORDER, GLOBAL_GUID, _ATTRIBUTES, packed, root=root)
    return True


def read_order(*, root: str = efivars.EFIVARS) -> tuple[int, ...]:
    """Return the numbers of ``BootOrder``; a half number at the end does not count.

    Raises:
        OSError: the variable cannot be read.
    """
    data = efivars.read_variable(_ORDER, GLOBAL_GUID, root=root) or b""
    return struct.unpack(f"<{len(data) // 2}H", data[: len(data) // 2 * 2])


def load_option(place: ProgramPlace, title: str) -> bytes:
    """Return the content of a ``Boot####`` variable."""
    path = _file_list(place)
    return struct.pack("<IH", _ACTIVE, len(path)) + f"{title}\0".encode("utf-16-le") + path


def _file_list(place: ProgramPlace) -> bytes:
    drive = _HARD_DRIVE.pack(
        4,
        1,
        _HARD_DRIVE.size,
        place.number,
        place.first_sector,
        place.sectors,
        place.partuuid.bytes_le,
        _GPT,
        _GUID_SIGNATURE,
    )
    name = "\\" + place.path.strip("/").replace("/", "\\") + "\0"
    file = name.encode("utf-16-le")
    return drive + struct.pack("<BBH", 4, 4, 4 + len(file)) + file + _END


def _entries(root: str) -> Iterator[tuple[int, bytes]]:
    for name in efivars.names(GLOBAL_GUID, root=root):
        match = _NAME.match(name)
        data = efivars.read_variable(name, GLOBAL_GUID, root=root) if match else None
        if match and data is not None:
            yield int(match[1], 16), data


def _free_number(entries: dict[int, bytes]) -> int:
    number = next((number for number in range(1 << 16) if number not in entries), None)
    if number is None:
        raise NoFreeNumber("the firmware has no number for another boot entry")
    return number
