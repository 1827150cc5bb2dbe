"""The boot entries of the firmware: ``Boot####`` and ``BootOrder``.

An entry names a program on a partition, by the number, the place and the PARTUUID of the
partition (UEFI specification 2.10, "Boot Manager" and "Device Path Protocol"). The firmware
starts the entries of ``BootOrder`` one after the other, until one works.
"""

from __future__ import annotations

import re
import struct
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from bootc.errors import Error, doing
from bootc.kernel import efivars
from bootc.kernel.efivars import GLOBAL_GUID

#: Non-volatile, and visible before and after the start of the system.
_ATTRIBUTES = 7
_ACTIVE = 1
_NAME = re.compile(r"Boot([0-9A-F]{4})\Z")
_ORDER = "BootOrder"
#: The attributes of an entry, and the length of its device path.
_OPTION = struct.Struct("<IH")
#: The beginning of a part of a device path: type, subtype, length.
_NODE = struct.Struct("<BBH")
_END_KIND = 0x7F
_HARD_DRIVE = struct.Struct("<BBHIQQ16sBB")
_GPT, _GUID_SIGNATURE = 2, 2
_END = b"\x7f\xff\x04\x00"


class NoFreeNumber(Error):
    """The firmware has 65536 boot entries."""


@dataclass(frozen=True, slots=True)
class PartitionPlace:
    """A partition of a GPT disk, as entries of the firmware name it.

    Attributes:
        number: The number of the partition.
        first_sector: Its first sector.
        sectors: How many sectors it has.
        partuuid: Its PARTUUID.
    """

    number: int
    first_sector: int
    sectors: int
    partuuid: uuid.UUID

    def program(self, path: str) -> ProgramPlace:
        """Return the place of a program on this partition."""
        return ProgramPlace(self.number, self.first_sector, self.sectors, self.partuuid, path)


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


@dataclass(frozen=True, slots=True)
class LoadOption:
    """A boot entry of the firmware, as far as bootc reads it.

    Attributes:
        number: The number of its variable ``Boot####``.
        active: The firmware starts it when its turn comes.
        title: Its description.
        partuuid: The PARTUUID of the partition that has the program; None if the entry starts
            something else.
        path: The path of the program, with ``/`` before each name; empty if it names no program.
    """

    number: int
    active: bool
    title: str
    partuuid: uuid.UUID | None
    path: str


@dataclass(frozen=True, slots=True)
class Firmware:
    """The boot entries of the firmware for the programs on one partition.

    Attributes:
        partition: The partition.
        root: Where efivarfs is mounted.
        may_write: Whether the variables may be written. They may not if the disk is for another
            machine.
    """

    partition: PartitionPlace
    root: str = efivars.EFIVARS
    may_write: bool = True

    @property
    def is_writable(self) -> bool:
        """Whether the variables may and can be written."""
        return self.may_write and efivars.is_writable(root=self.root)

    def entries(self) -> tuple[LoadOption, ...]:
        """Return all entries for programs on the partition, by number.

        Raises:
            OSError: the variables cannot be read.
        """
        found = (parse_load_option(number, data) for number, data in _entries(self.root))
        own = self.partition.partuuid
        return tuple(option for option in found if option and option.partuuid == own)

    def order(self) -> tuple[int, ...]:
        """Return the numbers of ``BootOrder``.

        Raises:
            OSError: the variable cannot be read.
        """
        return read_order(root=self.root)

    def write_order(self, numbers: Sequence[int]) -> None:
        """Write ``BootOrder``, in one call.

        Raises:
            OSError: the firmware refused.
        """
        packed = struct.pack(f"<{len(numbers)}H", *numbers)
        efivars.write_variable(_ORDER, GLOBAL_GUID, _ATTRIBUTES, packed, root=self.root)

    def write_entry(self, path: str, title: str) -> int:
        """Write an entry for a program, unless there is an active one, and return its number.

        The firmware does not start it until it is in the order.

        Raises:
            NoFreeNumber: there is no number for another entry.
            OSError: the variables cannot be read or written.
        """
        entries = dict(_entries(self.root))
        place = self.partition.program(path)
        wanted = _file_list(place)
        for number, data in entries.items():
            option = parse_load_option(number, data)
            if option is not None and option.active and wanted in data:
                return number
        number = _free_number(entries)
        _write_entry(number, place, title, self.root)
        return number

    def remove_entry(self, number: int) -> None:
        """Remove an entry. It is no longer in the order.

        Raises:
            OSError: the firmware refused.
        """
        efivars.remove_variable(f"Boot{number:04X}", GLOBAL_GUID, root=self.root)


def parse_load_option(number: int, data: bytes) -> LoadOption | None:
    """Read the content of a ``Boot####`` variable; None if it is malformed.

    The path of a program may be in several parts. Firmwares may put the path of the hardware
    before the partition.
    """
    if len(data) < _OPTION.size:
        return None
    attributes, length = _OPTION.unpack_from(data)
    end = _OPTION.size
    while data[end : end + 2] != b"\0\0":
        if end + 2 > len(data):
            return None
        end += 2
    title = data[_OPTION.size : end].decode("utf-16-le", "replace")
    partuuid, path = None, ""
    nodes = data[end + 2 : end + 2 + length]
    while len(nodes) >= _NODE.size:
        kind, subtype, size = _NODE.unpack_from(nodes)
        if kind == _END_KIND or not _NODE.size <= size <= len(nodes):
            break
        node, nodes = nodes[:size], nodes[size:]
        if (kind, subtype, size) == (4, 1, _HARD_DRIVE.size):
            *_, signature, _, signature_type = _HARD_DRIVE.unpack(node)
            if signature_type == _GUID_SIGNATURE:
                partuuid = uuid.UUID(bytes_le=signature)
        elif (kind, subtype) == (4, 4):
            part = node[_NODE.size :].decode("utf-16-le", "replace").partition("\0")[0]
            path += "/" + part.replace("\\", "/").strip("/")
    return LoadOption(number, bool(attributes & _ACTIVE), title, partuuid, path)


def placed(order: Sequence[int], ours: Collection[int], numbers: Sequence[int]) -> tuple[int, ...]:
    """Return an order in which our entries have changed, and foreign ones have not.

    Args:
        order: The present order.
        ours: All numbers of ours.
        numbers: Our entries in their new order. They take the place of the first of ours, or come
            first if the order has no entry of ours.
    """
    at = next((index for index, number in enumerate(order) if number in ours), 0)
    foreign = [number for number in order if number not in ours]
    return (*foreign[:at], *numbers, *foreign[at:])


def ensure_entry(
    place: ProgramPlace,
    title: str,
    *,
    behind: uuid.UUID | None = None,
    root: str = efivars.EFIVARS,
) -> bool:
    """Make sure that the firmware starts a program, and tell whether an entry was missing.

    The order is written last, so an interruption leaves the old order.

    Args:
        place: The program.
        title: The title of a new entry.
        behind: The PARTUUID of a partition. A new entry follows the entries of this partition, or
            all others. Without this argument, a new entry comes first in the order.
        root: The directory of the variables.

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
            _write_entry(number, place, title, root)
        at = 0 if behind is None else _end_of(behind, order, entries)
        packed = struct.pack(f"<{len(order) + 1}H", *order[:at], number, *order[at:])
        efivars.write_variable(_ORDER, GLOBAL_GUID, _ATTRIBUTES, packed, root=root)
    return True


def _end_of(partition: uuid.UUID, order: Sequence[int], entries: dict[int, bytes]) -> int:
    """Return the position in an order behind the last entry of a partition, or the end."""
    options = [parse_load_option(number, entries.get(number, b"")) for number in order]
    found = [at for at, o in enumerate(options, 1) if o is not None and o.partuuid == partition]
    return found[-1] if found else len(order)


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


def _write_entry(number: int, place: ProgramPlace, title: str, root: str) -> None:
    name, option = f"Boot{number:04X}", load_option(place, title)
    efivars.write_variable(name, GLOBAL_GUID, _ATTRIBUTES, option, root=root)


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
