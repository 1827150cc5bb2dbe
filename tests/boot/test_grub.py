"""GRUB as a boot loader that bootc installs: installed, booted, updated, rolled back."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import second_drive
from journeys import Journey, install
from stations import save_live

from support import grubtree, howto, variants
from support.variants import Variant
from testbed.demo_os import DemoOs
from testbed.registry import Registry
from testbed.saved import Saved

pytestmark = [pytest.mark.boot, pytest.mark.timeout(3600)]

INSTALL = howto.installer("grub", "bootc install")
#: An argument that GRUB must pass on as it is.
KARG = " --karg 'demo=\"a b\"'"
#: Where the guest finds the menu.
GRUB = "/sysroot/boot/grub2"
ENTRIES = "/sysroot/boot/loader/entries"
MENU = f"{ENTRIES}/grub.cfg"
#: Prints the path of the program that the firmware started.
STARTED = r"""
cd /sys/firmware/efi/efivars
python3 - <<'END'
import re, struct
guid = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
(current,) = struct.unpack("<H", open(f"BootCurrent-{guid}", "rb").read()[4:])
option = open(f"Boot{current:04X}-{guid}", "rb").read().decode("latin-1").replace("\0", "")
print(*re.findall(r"\\EFI[\\A-Za-z0-9.]*\.efi", option))
END
"""
#: Prints what the loader told the system about itself, one variable a line. ``tail`` alone would
#: seek, which these files refuse.
TOLD = """
cd /sys/firmware/efi/efivars
for name in LoaderInfo LoaderDevicePartUUID; do
    cat $name-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f | tail -c +5 | tr -d '\\0'
    echo
done
"""
#: Removes the root from the boot entries, as a user would who mounts /sysroot writable.
FORGET_ROOT = f"""
unshare --mount sh -ec '
    mount -o remount,bind,rw /sysroot
    sed -i "s/ root=UUID=[^ ]*//" {ENTRIES}/*.conf
'
"""

#: Builds the images of a family, once.
Build = Callable[[str], dict[str, Variant]]


@pytest.fixture(scope="module")
def build(demo_os: DemoOs, tmp_path_factory: pytest.TempPathFactory) -> Build:
    for tree in grubtree.TREES:
        tree.find()

    @functools.cache
    def built(family: str) -> dict[str, Variant]:
        return variants.build(demo_os, tmp_path_factory.mktemp("grub-variants"), family)

    return built


@dataclass(frozen=True, slots=True)
class Cell:
    """A machine's firmware and the family of its images, and what an installation leaves."""

    name: str
    root: int
    record: tuple[str, ...]
    family: str = variants.GRUB

    @property
    def is_bios(self) -> bool:
        return "firmware = bios" in self.record

    @property
    def is_uki(self) -> bool:
        return self.family == variants.GRUB_UKI

    @property
    def tells_partition(self) -> bool:
        """GRUB tells the system which partition it was started from."""
        return self.family == variants.GRUB_SID and not self.is_bios


_ON_BIOS = ("bootloader = grub", "firmware = bios")
_ON_UEFI = ("bootloader = grub", "firmware = uefi", "esp = ESP")
CELLS = (
    Cell("bios", 2, _ON_BIOS),
    Cell("bios_sid", 2, _ON_BIOS, variants.GRUB_SID),
    Cell("uefi", 3, _ON_UEFI),
    Cell("uefi_sid", 3, _ON_UEFI, variants.GRUB_SID),
    # Not "-uki", which would share the installation of the other unified kernel images.
    Cell("uefi_uki", 3, _ON_UEFI, variants.GRUB_UKI),
)


def live(
    cell: Cell, request: pytest.FixtureRequest, directory: Path, logs: Path
) -> tuple[Saved, Callable[[], None]]:
    """Return a live machine with this firmware, and what removes it when it was used."""
    if not cell.is_bios:
        shared: Saved = request.getfixturevalue("live_machine")
        return shared, lambda: None
    own = save_live(request.getfixturevalue("demo_os"), directory, logs, bios=True)
    return own, own.remove


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_a_machine_is_installed_updated_and_rolled_back(
    cell: Cell,
    request: pytest.FixtureRequest,
    build: Build,
    update_registry: Registry,
    tmp_path: Path,
    logs: Path,
) -> None:
    made = build(cell.family)
    first, second = made[f"{cell.family}1"], made[f"{cell.family}2"]
    name = f"grub-{cell.name}"
    (tmp_path / "live").mkdir()
    saved, done = live(cell, request, tmp_path / "live", logs)
    start = install(
        saved,
        update_registry,
        first,
        name=name,
        directory=tmp_path,
        logs=logs,
        command=INSTALL + ("" if cell.is_uki else KARG),
        root=cell.root,
    )
    done()
    (tmp_path / "run").mkdir()
    with Journey(
        start,
        update_registry,
        name=name,
        directory=tmp_path / "run",
        logs=logs,
        second_drive=True,
    ) as machine:
        live_through(machine, cell, first, second)
    start.disk.unlink()


def live_through(machine: Journey, cell: Cell, first: Variant, second: Variant) -> None:
    """Boot, update and roll back a fresh installation."""
    assert machine.boot() == "running"
    efi = machine.machine.run("test -e /sys/firmware/efi", check=False).rc
    assert efi == (1 if cell.is_bios else 0)
    if not cell.is_bios:
        # The boot entry that the installer wrote, and not the fallback.
        assert machine.machine.run(STARTED).stdout == "\\EFI\\debian\\shimx64.efi\n"
    if not cell.is_uki:
        # What GRUB passes on is what the entry says.
        assert '"demo=a b"' in machine.machine.run("cat /proc/cmdline").stdout
    check(machine, cell, booted=first)
    record = "sed -n '/^.bootc/,/^$/p' /sysroot/state/deploy/*/*.origin"
    said = machine.machine.run(record).stdout.splitlines()
    kept = [re.sub(r"^esp = [0-9a-f-]{36}$", "esp = ESP", line) for line in said if line]
    assert kept == ["[bootc]", *cell.record]
    if cell.tells_partition:
        name, partition = machine.machine.run(TOLD).stdout.splitlines()
        assert name.startswith(f"GRUB {grubtree.SID.version}")
        assert f"esp = {partition.lower()}" in said
        # From here on, the initramfs finds the root by its type on the disk of that partition.
        machine.machine.run(FORGET_ROOT)
    second_drive.set_up(machine)

    machine.publish(second)
    machine.bootc("upgrade")
    assert machine.reboot() == "running"
    check(machine, cell, booted=second, rollback=first)
    assert "variant=second" in machine.machine.run("cat /proc/cmdline").stdout
    second_drive.check(machine)

    machine.bootc("rollback")
    assert machine.reboot() == "running"
    check(machine, cell, booted=first, rollback=second)
    second_drive.check(machine)


def check(
    machine: Journey, cell: Cell, *, booted: Variant, rollback: Variant | None = None
) -> None:
    """Compare what runs, what status says, and GRUB's menu."""
    if cell.tells_partition and rollback is not None:
        assert "root=" not in machine.machine.run("cat /proc/cmdline").stdout
    host = machine.status()["status"]
    assert host["booted"]["composefs"]["verity"] == booted.image_id.hex
    assert host["booted"]["composefs"]["bootloader"] == "grub"
    assert host["booted"]["image"]["imageDigest"] == str(booted.manifest_digest)
    expected = [booted.image_id.hex]
    if rollback is not None:
        expected.append(rollback.image_id.hex)
        assert host["rollback"]["composefs"]["verity"] == rollback.image_id.hex
    if cell.is_uki:
        menu = machine.machine.run(f"cat {GRUB}/user.cfg").stdout
        paths = re.findall(r"^chainloader /EFI/Linux/bootc/bootc_composefs-(.+)\.efi$", menu, re.M)
        assert paths == expected
        assert machine.machine.run(f"ls {ENTRIES}", check=False).rc != 0
    else:
        menu = machine.machine.run(f"cat {MENU}").stdout
        assert re.findall(r"--id 'bootc-([0-9a-f]+)'", menu) == expected
        assert re.findall(r"'composefs=([0-9a-f]+)'", menu) == expected
        assert machine.machine.run(f"cat {GRUB}/bootc-last.cfg").stdout == menu
    human = machine.bootc("status --format humanreadable").stdout
    assert ".cfg" not in human, "the menu agrees with the entries"
