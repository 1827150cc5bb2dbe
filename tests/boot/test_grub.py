"""GRUB as a boot loader that bootc installs: installed, booted, updated, rolled back."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import budget
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

INSTALL = f"{howto.installer('grub-bios', 'bootc install')} --karg 'demo=\"a b\"'"
#: Where the guest finds the menu.
ENTRIES = "/sysroot/boot/loader/entries"
MENU = f"{ENTRIES}/grub.cfg"


@pytest.fixture(scope="module")
def grub_images(demo_os: DemoOs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Variant]:
    grubtree.find()
    return variants.build(demo_os, tmp_path_factory.mktemp("grub-variants"), variants.GRUB)


@dataclass(frozen=True, slots=True)
class Firmware:
    """A machine's firmware, and what an installation on it leaves."""

    name: str
    root: int
    record: tuple[str, ...]

    @property
    def is_bios(self) -> bool:
        return self.name == "bios"


BIOS = Firmware("bios", 2, ("bootloader = grub", "firmware = bios"))


def live(
    firmware: Firmware, request: pytest.FixtureRequest, directory: Path, logs: Path
) -> tuple[Saved, Callable[[], None]]:
    """Return a live machine with this firmware, and what removes it when it was used."""
    if not firmware.is_bios:
        shared: Saved = request.getfixturevalue("live_machine")
        return shared, lambda: None
    own = save_live(request.getfixturevalue("demo_os"), directory, logs, bios=True)
    return own, own.remove


@pytest.mark.parametrize("firmware", [BIOS], ids=lambda firmware: firmware.name)
def test_a_machine_is_installed_updated_and_rolled_back(
    firmware: Firmware,
    request: pytest.FixtureRequest,
    grub_images: dict[str, Variant],
    update_registry: Registry,
    tmp_path: Path,
    logs: Path,
) -> None:
    if not budget.is_left():
        budget.skip_rest(0, 1)
    first, second = grub_images["g1"], grub_images["g2"]
    name = f"grub-{firmware.name}"
    (tmp_path / "live").mkdir()
    saved, done = live(firmware, request, tmp_path / "live", logs)
    start = install(
        saved,
        update_registry,
        first,
        name=name,
        directory=tmp_path,
        logs=logs,
        command=INSTALL,
        root=firmware.root,
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
        assert machine.boot() == "running"
        efi = machine.machine.run("test -e /sys/firmware/efi", check=False).rc
        assert efi == (1 if firmware.is_bios else 0)
        # What GRUB passes on is what the entry says.
        assert '"demo=a b"' in machine.machine.run("cat /proc/cmdline").stdout
        check(machine, booted=first)
        record = "sed -n '/^.bootc/,/^$/p' /sysroot/state/deploy/*/*.origin"
        said = machine.machine.run(record).stdout.splitlines()
        kept = [re.sub(r"^esp = [0-9a-f-]{36}$", "esp = ESP", line) for line in said if line]
        assert kept == ["[bootc]", *firmware.record]
        second_drive.set_up(machine)

        machine.publish(second)
        machine.bootc("upgrade")
        assert machine.reboot() == "running"
        check(machine, booted=second, rollback=first)
        assert "variant=second" in machine.machine.run("cat /proc/cmdline").stdout
        second_drive.check(machine)

        machine.bootc("rollback")
        assert machine.reboot() == "running"
        check(machine, booted=first, rollback=second)
        second_drive.check(machine)
    start.disk.unlink()


def check(machine: Journey, *, booted: Variant, rollback: Variant | None = None) -> None:
    """Compare what runs, what status says, and GRUB's menu."""
    host = machine.status()["status"]
    assert host["booted"]["composefs"]["verity"] == booted.image_id.hex
    assert host["booted"]["composefs"]["bootloader"] == "grub"
    assert host["booted"]["image"]["imageDigest"] == str(booted.manifest_digest)
    expected = [booted.image_id.hex]
    if rollback is not None:
        expected.append(rollback.image_id.hex)
        assert host["rollback"]["composefs"]["verity"] == rollback.image_id.hex
    menu = machine.machine.run(f"cat {MENU}").stdout
    assert re.findall(r"--id 'bootc-([0-9a-f]+)'", menu) == expected
    assert re.findall(r"'composefs=([0-9a-f]+)'", menu) == expected
    assert machine.machine.run("cat /sysroot/boot/grub2/bootc-last.cfg").stdout == menu
    human = machine.bootc("status --format humanreadable").stdout
    assert "grub.cfg" not in human, "the menu agrees with the entries"
