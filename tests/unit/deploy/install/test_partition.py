from __future__ import annotations

import dataclasses
import json
import uuid

import pytest

from bootc.boot.esp_size import default_esp_size_mib
from bootc.deploy.install import partition
from bootc.deploy.install.partition import (
    DiskSizes,
    Partition,
    PartitioningFailed,
    UnsupportedMachine,
    find_layout,
    fixed_size_mib,
    read_table,
    sfdisk_script,
)
from bootc.fs.process import CommandFailed
from support.commands import Commands

LABEL = uuid.UUID("0b1c2d3e-4f50-4162-8384-95a6b7c8d9e0")
BIOS_BOOT_TYPE = "21686148-6449-6e6f-744e-656564454649"
ESP_TYPE = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
BIOS_TYPE = "21686148-6449-6e6f-744e-656564454649"
ROOT_TYPE = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
MIB = 1 << 20


def test_the_script_on_x86_64() -> None:
    assert sfdisk_script("x86_64", LABEL, DiskSizes()) == (
        "label: gpt\n"
        "label-id: 0b1c2d3e-4f50-4162-8384-95a6b7c8d9e0\n"
        "size=1MiB, bootable, type=21686148-6449-6E6F-744E-656564454649, "
        'name="BIOS-BOOT"\n'
        'size=1024MiB, type=c12a7328-f81f-11d2-ba4b-00a0c93ec93b, name="EFI-SYSTEM"\n'
        'type=4f68bce3-e8cd-4db1-96e7-fbcaf984b709, name="bootc-unfinished"\n'
    )


def test_the_script_on_aarch64_with_a_size() -> None:
    assert sfdisk_script("aarch64", LABEL, DiskSizes(10240)) == (
        "label: gpt\n"
        "label-id: 0b1c2d3e-4f50-4162-8384-95a6b7c8d9e0\n"
        'size=1024MiB, type=c12a7328-f81f-11d2-ba4b-00a0c93ec93b, name="EFI-SYSTEM"\n'
        'size=10240MiB, type=b921b045-1df0-41c3-af44-4c6f280d3fae, name="bootc-unfinished"\n'
    )


@pytest.mark.parametrize("machine", ["s390x", "ppc64le", "riscv64", "i686", ""])
def test_machines_without_systemd_boot_or_layout(machine: str) -> None:
    with pytest.raises(UnsupportedMachine, match=f"^Unsupported architecture: {machine}$"):
        sfdisk_script(machine, LABEL, DiskSizes())
    with pytest.raises(UnsupportedMachine):
        fixed_size_mib(machine, DiskSizes())


def test_what_is_not_for_the_root() -> None:
    assert fixed_size_mib("x86_64", DiskSizes()) == 1 + 1024 + 2
    assert fixed_size_mib("aarch64", DiskSizes()) == 1024 + 2
    assert fixed_size_mib("x86_64", DiskSizes(esp_mib=300)) == 1 + 300 + 2


@pytest.mark.parametrize(
    ("disk_gib", "esp_mib"), [(2, 1024), (15.999, 1024), (16, 2048), (2000, 2048)]
)
def test_the_size_of_the_esp(disk_gib: float, esp_mib: int) -> None:
    assert default_esp_size_mib(int(disk_gib * 1024)) == esp_mib
    script = sfdisk_script("aarch64", LABEL, DiskSizes(esp_mib=esp_mib))
    assert f'size={esp_mib}MiB, type={ESP_TYPE}, name="EFI-SYSTEM"' in script


def test_a_table_as_sfdisk_tells_it(commands: Commands) -> None:
    sfdisk = commands.mock(
        "sfdisk",
        """
        echo '{"partitiontable": {"label": "gpt", "sectorsize": 4096, "partitions": [
          {"node": "/dev/vda1", "start": 256, "size": 256,
           "type": "21686148-6449-6E6F-744E-656564454649", "name": "BIOS-BOOT"},
          {"node": "/dev/vda2", "start": 512, "size": 262144,
           "type": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
           "uuid": "0B1C2D3E-4F50-4162-8384-95A6B7C8D9E0"}]}}'
        """,
    )
    table = read_table("/dev/vda")
    assert table == (
        Partition("/dev/vda1", BIOS_TYPE, MIB, "", 256, 256, "BIOS-BOOT"),
        Partition("/dev/vda2", ESP_TYPE, 1024 * MIB, str(LABEL), 512, 262144),
    )
    assert [row.number for row in table] == [1, 2]
    assert sfdisk.calls == [["--json", "/dev/vda"]]


def test_an_empty_table_and_old_sfdisk(commands: Commands) -> None:
    commands.mock("sfdisk", """echo '{"partitiontable": {"label": "gpt"}}'""")
    assert read_table("/dev/vda") == ()
    commands.mock(
        "sfdisk",
        """echo '{"partitiontable": {"partitions": [
           {"node": "/dev/vda1", "size": 2048, "type": "83"}]}}'""",
    )
    assert read_table("/dev/vda") == (Partition("/dev/vda1", "83", MIB, sectors=2048),)


def test_the_layout_of_a_table() -> None:
    esp, root = Partition("/dev/a2", ESP_TYPE, MIB), Partition("/dev/a3", ROOT_TYPE, MIB)
    layout = find_layout((Partition("/dev/a1", "x", MIB), esp, root), "x86_64")
    assert (layout.esp, layout.root) == (esp, root)


def test_the_layout_of_a_disk_without_an_esp() -> None:
    script = sfdisk_script("x86_64", LABEL, DiskSizes(esp_mib=None))
    assert [row.partition("type=")[2] for row in script.splitlines()[2:]] == [
        '21686148-6449-6E6F-744E-656564454649, name="BIOS-BOOT"',
        f'{ROOT_TYPE}, name="bootc-unfinished"',
    ]
    assert partition.fixed_size_mib("x86_64", DiskSizes(esp_mib=None)) == 3
    bios, root = Partition("/dev/a1", BIOS_BOOT_TYPE, MIB), Partition("/dev/a2", ROOT_TYPE, MIB)
    layout = find_layout((bios, root), "x86_64", with_esp=False)
    assert (layout.bios_boot, layout.esp, layout.root) == (bios, None, root)
    with pytest.raises(PartitioningFailed, match=f"no partition of type {ESP_TYPE}"):
        find_layout((bios, root), "x86_64")


def test_a_table_that_lacks_what_was_asked_for() -> None:
    with pytest.raises(PartitioningFailed, match=f"no partition of type {ROOT_TYPE}"):
        find_layout((Partition("/dev/a2", ESP_TYPE, MIB),), "x86_64")


def test_sfdisk_gets_the_script_and_says_no(commands: Commands) -> None:
    sfdisk = commands.mock("sfdisk", "echo 'sfdisk: cannot open /dev/vda: Busy' >&2; exit 1")
    with pytest.raises(CommandFailed, match="cannot open /dev/vda: Busy") as caught:
        partition.create_partitions("/dev/vda", "x86_64", DiskSizes(4096))
    assert caught.value.__notes__ == ["Partitioning /dev/vda"]
    assert sfdisk.calls == [["--wipe=always", "--wipe-partitions=always", "/dev/vda"]]
    label_id = uuid.UUID(sfdisk.stdin.splitlines()[1].removeprefix("label-id: "))
    assert sfdisk.stdin == sfdisk_script("x86_64", label_id, DiskSizes(4096))


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ({}, "partitiontable is missing"),
        ({"partitiontable": []}, "partitiontable is not an object"),
        ({"partitiontable": {"partitions": {}}}, "partitions is not a list"),
        ({"partitiontable": {"partitions": [{"size": 1}]}}, "node is missing"),
        ({"partitiontable": {"partitions": [{"node": "x", "type": 83}]}}, "type is not a string"),
        ({"partitiontable": {"partitions": [{"node": "x", "type": ""}]}}, "size is missing"),
        ({"partitiontable": {"sectorsize": "big"}}, "sectorsize is not a number"),
    ],
)
def test_a_table_that_makes_no_sense(commands: Commands, table: object, what: str) -> None:
    commands.mock("sfdisk", f"echo '{json.dumps(table)}'")
    with pytest.raises(CommandFailed, match=f"^sfdisk --json /dev/vda failed: .*: {what}$"):
        read_table("/dev/vda")


def test_a_table_is_unfinished_until_it_is_marked(commands: Commands) -> None:
    root = Partition("/dev/nvme0n1p3", ROOT_TYPE, MIB, name="bootc-unfinished", number=3)
    assert partition.is_unfinished((Partition("/dev/nvme0n1p1", "x", MIB, name="root"), root))
    assert not partition.is_unfinished((dataclasses.replace(root, name="root"),))
    sfdisk = commands.mock("sfdisk")
    partition.mark_finished("/dev/nvme0n1", root)
    (call,) = sfdisk.calls
    assert call[-4:] == ["--part-label", "/dev/nvme0n1", "3", "root"]
