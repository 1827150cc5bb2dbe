"""The partition table of a new installation, written by ``sfdisk``.

A GPT with, in this order: a BIOS boot partition (x86_64; systemd-boot does not use it, but
every bootc disk has it), the EFI system partition, partitions without a file system if the boot
loader needs any, and the root partition with the type that the Discoverable Partitions
Specification has for this architecture.

The names of the device nodes come from the table itself, and the code waits for the nodes. If
udev runs, it is asked to settle. If there is no udev, or if the kernel does not scan tables
by itself (loop devices), ``partx`` adds the partitions.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bootc.boot.esp_size import ESP_SIZE_MIB
from bootc.errors import Error, doing
from bootc.formats import dps
from bootc.fs import process
from bootc.fs.toolreply import run_for_record

MIB = 1 << 20
#: An ESP with the programs of a boot loader only.
SMALL_ESP_SIZE_MIB = 100
#: The space for the table at both ends of the disk, and for alignment.
TABLE_SIZE_MIB = 1
#: Architectures whose firmware starts a boot loader from an ESP, and the size of the BIOS boot
#: partition before it.
_BIOS_BOOT_SIZE_MIB = {"x86_64": 1, "aarch64": 0}

#: The name of the root partition from the first write of the table to the boot entry, and its name
#: from then on.
_UNFINISHED = "bootc-unfinished"
_ROOT_NAME = "root"
_NUMBER = re.compile(r"[0-9]+\Z")

_SECTOR_BYTES = 512
_NODE_TIMEOUT_S = 10.0
_NODE_POLL_S = 0.1
_UDEV_CONTROL = "/run/udev/control"


class PartitioningFailed(Error):
    """The table was written, but a partition is missing or did not appear."""


class UnsupportedMachine(Error):
    """There is no partition layout for this machine."""


@dataclass(frozen=True, slots=True)
class Partition:
    """One row of a partition table.

    ``type`` and ``uuid`` are GUIDs in lower case; ``uuid`` is empty if the program that read the
    table does not print it.
    """

    node: str
    type: str
    size_bytes: int
    uuid: str = ""
    first_sector: int = 0
    sectors: int = 0
    name: str = ""
    #: The number in the table.
    number: int = field(default=0, compare=False)

    @property
    def offset_bytes(self) -> int:
        """Where it begins on its disk; 0 if the row has no details."""
        return self.first_sector * (self.size_bytes // self.sectors) if self.sectors else 0


@dataclass(frozen=True, slots=True)
class RawPartition:
    """A partition without a file system that a boot loader needs: one name and type."""

    name: str
    type: str
    size_mib: int


@dataclass(frozen=True, slots=True)
class DiskSizes:
    """The sizes of the partitions of a new table, in MiB.

    Attributes:
        root_mib: The root partition, or None for the rest of the disk.
        esp_mib: The EFI system partition, or None for a disk without it.
        raw: The partitions of the boot loader.
    """

    root_mib: int | None = None
    esp_mib: int | None = ESP_SIZE_MIB
    raw: tuple[RawPartition, ...] = ()


@dataclass(frozen=True, slots=True)
class TargetPartitions:
    """The partitions an installation writes to; None for a partition that the disk lacks.

    ``raw`` has the partitions without a file system, by their names.
    """

    root: Partition
    esp: Partition | None = None
    bios_boot: Partition | None = None
    raw: Mapping[str, Partition] = field(default_factory=dict)

    @property
    def all(self) -> tuple[Partition, ...]:
        """All of them."""
        known = (self.bios_boot, self.esp, *self.raw.values(), self.root)
        return tuple(part for part in known if part is not None)


def require_layout(machine: str) -> None:
    """Check that there is a partition layout for a machine.

    Raises:
        UnsupportedMachine: there is none.
    """
    _bios_boot_size_mib(machine)


def fixed_size_mib(machine: str, sizes: DiskSizes) -> int:
    """Return how much of a disk the other partitions and the table take, in MiB.

    Raises:
        UnsupportedMachine: there is no layout for ``machine``.
    """
    raw_mib = sum(part.size_mib for part in sizes.raw)
    return _bios_boot_size_mib(machine) + (sizes.esp_mib or 0) + raw_mib + 2 * TABLE_SIZE_MIB


def sfdisk_script(machine: str, label_id: uuid.UUID, sizes: DiskSizes) -> str:
    """Return the input for ``sfdisk``. Its table is one of an unfinished installation.

    Args:
        machine: The architecture of this machine.
        label_id: The GUID of the disk.
        sizes: The sizes of the partitions.

    Raises:
        UnsupportedMachine: there is no layout for ``machine``.
    """
    lines = ["label: gpt", f"label-id: {label_id}"]
    if bios_boot_size_mib := _bios_boot_size_mib(machine):
        lines.append(
            f"size={bios_boot_size_mib}MiB, bootable, "
            f'type={dps.BIOS_BOOT.upper()}, name="BIOS-BOOT"'
        )
    if sizes.esp_mib is not None:
        lines.append(f'size={sizes.esp_mib}MiB, type={dps.ESP}, name="EFI-SYSTEM"')
    lines += [f'size={raw.size_mib}MiB, type={raw.type}, name="{raw.name}"' for raw in sizes.raw]
    size = "" if sizes.root_mib is None else f"size={sizes.root_mib}MiB, "
    lines.append(f'{size}type={dps.root_type(machine)}, name="{_UNFINISHED}"')
    return "".join(f"{line}\n" for line in lines)


def create_table(path: str, machine: str, sizes: DiskSizes) -> TargetPartitions:
    """Write a new partition table to a disk, or to the file of a disk image.

    The arguments are those of :func:`sfdisk_script`.

    Raises:
        UnsupportedMachine: there is no layout for ``machine``.
        PartitioningFailed: a partition is missing.
        CommandFailed: sfdisk refused.
    """
    script = sfdisk_script(machine, uuid.uuid4(), sizes)
    with doing(f"Partitioning {path}"):
        # Old signatures in the same place would make the new partitions look used.
        argv = ["sfdisk", "--wipe=always", "--wipe-partitions=always", path]
        process.run(argv, input=script.encode())
        with_esp = sizes.esp_mib is not None
        return find_layout(read_table(path), machine, with_esp=with_esp, raw=sizes.raw)


def create_partitions(device: str, machine: str, sizes: DiskSizes) -> TargetPartitions:
    """Write a new partition table to a disk, and wait for its partitions.

    Arguments and errors are those of :func:`create_table`.
    """
    layout = create_table(device, machine, sizes)
    with doing(f"Partitioning {device}"):
        _wait_for_nodes(device, layout.all)
    return layout


def mark_finished(path: str, root: Partition) -> None:
    """Give the root partition of :func:`create_table` its final name, while it may be mounted.

    Until then the next installation takes the disk for an unfinished one. It overwrites the disk
    unless the disk boots (:mod:`bootc.deploy.install.interrupted`).

    Raises:
        CommandFailed: the table could not be written.
    """
    with doing(f"Naming the root partition of {path}"):
        options = ["--no-reread", "--no-tell-kernel", "--part-label"]
        process.run(["sfdisk", *options, path, str(root.number), _ROOT_NAME])


def is_unfinished(table: Sequence[Partition]) -> bool:
    """Tell whether a table is that of an installation that was killed."""
    return any(row.name == _UNFINISHED for row in table)


def read_table(device: str) -> tuple[Partition, ...]:
    """Return the rows of the partition table on ``device``.

    Raises:
        CommandFailed: there is no table, or it cannot be read.
    """
    table = run_for_record(["sfdisk", "--json", device]).record("partitiontable")
    rows = table.records("partitions", default=())
    sector_bytes = table.number("sectorsize", default=_SECTOR_BYTES)
    return tuple(
        Partition(
            row.text("node"),
            row.text("type").lower(),
            row.number("size") * sector_bytes,
            (row.optional_text("uuid") or "").lower(),
            row.number("start", default=0),
            row.number("size"),
            row.optional_text("name") or "",
            _number(row.text("node")),
        )
        for row in rows
    )


def _number(node: str) -> int:
    match = _NUMBER.search(node)
    return int(match[0]) if match else 0


def find_layout(
    table: tuple[Partition, ...],
    machine: str,
    *,
    with_esp: bool = True,
    raw: Sequence[RawPartition] = (),
) -> TargetPartitions:
    """Find the partitions of an installation in a table that was just written.

    Raises:
        PartitioningFailed: one of them is missing.
    """
    by_type = {partition.type: partition for partition in table}
    by_name = {(partition.name, partition.type): partition for partition in table}
    try:
        return TargetPartitions(
            root=by_type[dps.root_type(machine)],
            esp=by_type[dps.ESP] if with_esp else None,
            bios_boot=by_type.get(dps.BIOS_BOOT),
            raw={part.name: by_name[part.name, part.type] for part in raw},
        )
    except KeyError as exc:
        raise PartitioningFailed(f"the new table has no partition of type {exc.args[0]}") from exc


def settle() -> None:
    """Wait until udev has handled all events so far, if it runs."""
    if os.path.exists(_UDEV_CONTROL):
        process.run(["udevadm", "settle"])


def _wait_for_nodes(device: str, partitions: tuple[Partition, ...]) -> None:
    deadline_s = time.monotonic() + _NODE_TIMEOUT_S
    settle()
    while missing := [part.node for part in partitions if not _is_there(part)]:
        if time.monotonic() > deadline_s:
            raise PartitioningFailed(
                f"{missing[0]} did not appear", hint="the kernel does not see the new partitions"
            )
        # partx fails while another program probes the device; the next round tries again.
        process.run(["partx", "--update", device], ok=(0, 1))
        settle()
        time.sleep(_NODE_POLL_S)


def _is_there(partition: Partition) -> bool:
    """Tell whether the kernel has the partition. The node of an old table has another size."""
    try:
        fd = os.open(partition.node, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        if exc.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
            return False
        raise
    try:
        return (
            stat.S_ISBLK(os.fstat(fd).st_mode)
            and os.lseek(fd, 0, os.SEEK_END) == partition.size_bytes
        )
    finally:
        os.close(fd)


def _bios_boot_size_mib(machine: str) -> int:
    try:
        return _BIOS_BOOT_SIZE_MIB[machine]
    except KeyError:
        raise UnsupportedMachine(f"Unsupported architecture: {machine}") from None
