from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bootc.boot import partitions
from bootc.boot.partitions import (
    Esps,
    NoBackingDevice,
    backing_device,
    filesystem_on,
    find_esp,
    find_esps,
    find_mirrors,
    find_xbootldr,
    find_xbootldr_beside,
)
from bootc.errors import one_line
from bootc.fs.dir import Dir
from bootc.fs.process import CommandFailed

ESP_TYPE = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
XBOOTLDR_TYPE = "bc13c2ff-59e6-4262-a352-b275fd6f7172"
ROOT_TYPE = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"

#: PARTUUIDs end with the name of the partition.
UUID_START = "00000000-0000-4000-8000-"

Row = dict[str, Any]
Fake = Callable[..., None]


def row(
    name: str,
    kind: str = "part",
    parttype: str | None = None,
    children: tuple[Row, ...] = (),
    *,
    table: str | None = "gpt",
) -> Row:
    value: Row = {
        "name": name,
        "path": f"/dev/{name}",
        "type": kind,
        "pttype": table,
        "parttype": parttype,
        "partuuid": f"{UUID_START}{name}" if kind == "part" else None,
        "size": 1 << 30,
        "ro": False,
        "model": None,
        "serial": None,
    }
    return value | {"children": list(children)} if children else value


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Put an lsblk and a blkid on PATH that know the given devices."""

    def make(
        below: dict[str, Row],
        above: dict[str, Row],
        probed: dict[str, str] | None = None,
        *,
        all_disks: tuple[Row, ...] = (),
    ) -> None:
        tools = tmp_path / "bin"
        tools.mkdir()
        for option, rows in (("", below), ("--inverse", above)):
            for name, tree in rows.items():
                (tmp_path / f"{name}{option}").write_text(json.dumps({"blockdevices": [tree]}))
        for name, text in (probed or {}).items():
            (tmp_path / f"{name}.probe").write_text(text)
        (tmp_path / "all").write_text(json.dumps({"blockdevices": all_disks}))
        last = f'for a; do :; done\ncat "{tmp_path}/${{a##*/}}'
        everything = f'case "$*" in *NAME*,SERIAL) exec cat "{tmp_path}/all";; esac\n'
        lsblk = f'{everything}case "$*" in *--inverse*) x=--inverse;; esac\n{last}$x"'
        blkid = f'{last}.probe" || exit 2'
        for name, script in (("lsblk", lsblk), ("blkid", blkid)):
            (tools / name).write_text(f"#!/bin/sh\n{script}\n")
            (tools / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")

    return make


DISK = row(
    "vda", "disk", None, (row("vda1", parttype=ESP_TYPE.upper()), row("vda2", parttype=ROOT_TYPE))
)
ON_DISK = {"vda2": row("vda2", parttype=ROOT_TYPE, children=(row("vda", "disk"),))}


def test_the_esp_is_beside_the_root_partition(machine: Fake) -> None:
    machine({"vda": DISK}, ON_DISK)
    assert find_esp("/dev/vda2") == "/dev/vda1"


def test_the_disks_lie_below_encryption_and_arrays(machine: Fake) -> None:
    array = row(
        "md0", "raid1", None, (row("vdb2", children=(row("vdb", "disk"),)), ON_DISK["vda2"])
    )
    machine(
        {"vdb": row("vdb", "disk", None, (row("vdb2"),)), "vda": DISK},
        {"root": row("root", "crypt", None, (array,))},
        {"vdb2": "PART_ENTRY_SCHEME=gpt\nPART_ENTRY_TYPE=" + ROOT_TYPE},
    )
    assert find_esp("/dev/root") == "/dev/vda1"


def partition_id(name: str) -> str:
    return f"{UUID_START}{name}"


ESPS = (row("vda1", parttype=ESP_TYPE), row("vda2", parttype=ROOT_TYPE))
TWO_ESPS = row("vda", "disk", None, (*ESPS, row("vda3", parttype=ESP_TYPE)))
STICK = row(
    "sdb", "disk", None, (row("sdb1", parttype=ESP_TYPE), row("sdb2", parttype=XBOOTLDR_TYPE))
)


@pytest.mark.parametrize(
    ("preferred", "found"),
    [
        ((), "vda1"),
        (("vda3",), "vda3"),
        # The loader is on another disk than the root.
        (("sdb1",), "sdb1"),
        (("sdb1", "vda3"), "sdb1"),
        # These are no ESPs, or are gone.
        (("sdb2",), "vda1"),
        (("vda2",), "vda1"),
        (("gone",), "vda1"),
        (("gone", "vda3"), "vda3"),
    ],
)
def test_the_esp_that_the_loader_was_started_from(
    machine: Fake, preferred: tuple[str, ...], found: str
) -> None:
    machine({"vda": TWO_ESPS}, ON_DISK, all_disks=(STICK, TWO_ESPS))
    names = [partition_id(name) for name in preferred]
    assert find_esp("/dev/vda2", names) == f"/dev/{found}"


ESP_BESIDE = row("vdb", "disk", None, (row("vdb1", parttype=ESP_TYPE), row("vdb2")))


def test_the_mirrors_are_on_all_disks_below_the_root(machine: Fake) -> None:
    """Not those of other disks, and not what an array is made of."""
    member = row("vdb3", parttype=ESP_TYPE, children=(row("md1", "raid1"),))
    disk = row("vdb", "disk", None, (*ESP_BESIDE["children"], member))
    parts = (row("vdb2", children=(row("vdb", "disk"),)), ON_DISK["vda2"])
    array = row("md0", "raid1", None, parts)
    everything = (STICK, disk, TWO_ESPS)
    machine({"vdb": disk, "vda": TWO_ESPS}, {"md0": array}, all_disks=everything)
    ids = frozenset(map(partition_id, ("vdb1", "vda1", "vda3")))
    assert find_esps("/dev/md0") == Esps("/dev/vdb1", ("/dev/vda1", "/dev/vda3"), ids)
    started = [partition_id("vda3")]
    assert find_esps("/dev/md0", started) == Esps("/dev/vda3", ("/dev/vdb1", "/dev/vda1"), ids)
    elsewhere = find_esps("/dev/md0", [partition_id("sdb1")])
    assert elsewhere == Esps(
        "/dev/sdb1", ("/dev/vdb1", "/dev/vda1", "/dev/vda3"), ids | {partition_id("sdb1")}
    )
    assert find_mirrors("/dev/md0", "/dev/vda1") == ("/dev/vdb1", "/dev/vda3")


def test_the_disks_of_a_btrfs(
    machine: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("vda2", "vdb2"):
        path = tmp_path / "uuid/devices" / name
        path.mkdir(parents=True)
        (path / "uevent").write_text(f"MAJOR=1\nDEVNAME={name}\n")
    monkeypatch.setattr(partitions, "_BTRFS", str(tmp_path))
    monkeypatch.setattr(partitions, "_name_in_kernel", lambda device: device.rpartition("/")[2])
    inverse = {"vdb2": row("vdb2", children=(row("vdb", "disk"),))}
    machine({"vdb": ESP_BESIDE, "vda": DISK}, inverse | ON_DISK)
    ids = frozenset(map(partition_id, ("vda1", "vdb1")))
    assert find_esps("/dev/vdb2") == Esps("/dev/vdb1", ("/dev/vda1",), ids)
    assert find_esps("/dev/vda2") == Esps("/dev/vda1", ("/dev/vdb1",), ids)


@pytest.mark.parametrize(
    ("found", "missing"),
    [
        ({"a", "b"}, []),
        ({"a"}, ["b"]),
        ({"c"}, ["a", "b"]),
        # The disk was replaced.
        ({"a", "c"}, []),
        (None, []),
    ],
)
def test_an_esp_that_the_installation_wrote_is_missing(
    found: set[str] | None, missing: list[str]
) -> None:
    esps = Esps("/dev/vda1", ids=None if found is None else frozenset(found))
    assert esps.missing(["A", "b"]) == missing


def test_a_system_without_an_esp(machine: Fake) -> None:
    disk = row("vda", "disk", None, (row("vda2", parttype=ROOT_TYPE),))
    machine({"vda": disk}, ON_DISK)
    assert find_esps("/dev/vda2") is None


def test_a_copy_of_the_partition_table_on_another_disk(machine: Fake) -> None:
    """A cloned disk has the same PARTUUIDs; the ESP beside the root is the right one."""
    clone = row("sdb", "disk", None, (row("sdb1", parttype=ESP_TYPE),))
    clone["children"][0]["partuuid"] = partition_id("vda3")
    machine({"vda": TWO_ESPS}, ON_DISK, all_disks=(clone, TWO_ESPS))
    assert find_esp("/dev/vda2", [partition_id("vda3")]) == "/dev/vda3"


@pytest.mark.parametrize(
    ("filesystem", "found"), [("vfat\n", "/dev/vda3"), ("ext4\n", None), (None, None)]
)
def test_the_boot_partition_of_systemd_boot(
    machine: Fake, filesystem: str | None, found: str | None
) -> None:
    disk = row("vda", "disk", None, (*ESPS, row("vda3", parttype=XBOOTLDR_TYPE)))
    probed = {} if filesystem is None else {"vda3": filesystem}
    inverse = {"vda1": row("vda1", children=(row("vda", "disk"),))}
    machine({"vda": disk}, inverse, probed)
    assert find_xbootldr_beside("/dev/vda1") == found


def test_partitions_of_a_firmware_array(machine: Fake) -> None:
    volume = row("md126", "raid1", None, (row("md126p1", parttype=ESP_TYPE),))
    machine(
        {"sda": row("sda", "disk", None, (volume,))},
        {"x": row("x", children=(row("sda", "disk"),))},
    )
    assert find_esp("/dev/x") == "/dev/md126p1"


@pytest.mark.parametrize(
    ("table", "parttype", "found"),
    [
        ("dos", "0xef", True),
        ("dos", "0x6", True),
        ("dos", "0x83", False),
        ("gpt", "0xef", False),
        ("sun", "0xef", False),
        (None, ESP_TYPE, True),
    ],
)
def test_partition_tables(machine: Fake, table: str | None, parttype: str, found: bool) -> None:
    disk = row("vda", "disk", None, (row("vda1", parttype=parttype, table=table),))
    machine({"vda": disk}, ON_DISK)
    assert find_esp("/dev/vda2") == ("/dev/vda1" if found else None)


def test_blkid_is_asked_where_udev_knows_nothing(machine: Fake) -> None:
    disk = row("vda", "disk", None, (row("vda1"), row("vda2")), table=None)
    probe = f"DEVNAME=/dev/vda2\nPART_ENTRY_SCHEME=gpt\nPART_ENTRY_TYPE={ESP_TYPE}\n"
    machine({"vda": disk}, ON_DISK, {"vda2": probe})
    assert find_esp("/dev/vda2") == "/dev/vda2"


@pytest.mark.parametrize(
    ("table", "parttype", "found"),
    [("gpt", XBOOTLDR_TYPE, True), ("dos", "0xea", True), ("gpt", ESP_TYPE, False)],
)
def test_a_boot_partition_is_beside_the_root_partition(
    machine: Fake, table: str, parttype: str, found: bool
) -> None:
    disk = row("vda", "disk", None, (row("vda1", parttype=parttype, table=table),))
    machine({"vda": disk}, ON_DISK)
    assert find_xbootldr("/dev/vda2") == ("/dev/vda1" if found else None)


def test_the_file_system_of_a_device(machine: Fake) -> None:
    machine({}, {}, {"vda1": "ext4\n"})
    assert filesystem_on("/dev/vda1") == "ext4"
    with pytest.raises(CommandFailed) as caught:
        filesystem_on("/dev/vda3")
    assert one_line(caught.value).startswith("Looking for the file system on /dev/vda3: blkid")


def test_an_lsblk_that_fails_is_reported(machine: Fake) -> None:
    machine({}, {})
    with pytest.raises(CommandFailed) as caught:
        find_esp("/dev/vda2")
    assert one_line(caught.value).startswith(
        "Looking for the EFI system partition of /dev/vda2: lsblk"
    )


def test_a_file_system_without_device_is_named() -> None:
    with (
        Dir.open("/proc") as directory,
        pytest.raises(NoBackingDevice, match="/proc is not on a block device"),
    ):
        backing_device(directory)
