"""GRUB as a boot loader that bootc installs: installed, booted, updated, rolled back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import budget
import pytest
from journeys import Installed, Journey, install
from stations import save_live

from support import grubtree, variants
from support.variants import Variant
from testbed.demo_os import DemoOs
from testbed.registry import Registry

pytestmark = [pytest.mark.boot, pytest.mark.timeout(3600)]

INSTALL = "bootc install to-disk --bootloader grub --filesystem ext4 --karg 'demo=\"a b\"'"
#: Where the guest finds the menu.
ENTRIES = "/sysroot/boot/loader/entries"
MENU = f"{ENTRIES}/grub.cfg"


@pytest.fixture(scope="module")
def grub_images(demo_os: DemoOs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Variant]:
    grubtree.find()
    return variants.build(demo_os, tmp_path_factory.mktemp("grub-variants"), variants.GRUB)


@pytest.fixture(scope="module")
def bios(
    demo_os: DemoOs,
    grub_images: dict[str, Variant],
    update_registry: Registry,
    logs: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installed]:
    """A disk that was installed on a machine with a BIOS."""
    if not budget.is_left():
        budget.skip_rest(0, 1)
    directory = tmp_path_factory.mktemp("grub-bios")
    live = save_live(demo_os, tmp_path_factory.mktemp("live-bios"), logs, bios=True)
    try:
        start = install(
            live,
            update_registry,
            grub_images["g1"],
            name="grub-bios",
            directory=directory,
            logs=logs,
            command=INSTALL,
            root=2,
        )
    finally:
        live.remove()
    yield start
    start.disk.unlink()


def test_a_bios_machine_boots_is_updated_and_rolled_back(
    bios: Installed,
    grub_images: dict[str, Variant],
    update_registry: Registry,
    tmp_path: Path,
    logs: Path,
) -> None:
    first, second = grub_images["g1"], grub_images["g2"]
    with Journey(bios, update_registry, name="grub-bios", directory=tmp_path, logs=logs) as machine:
        assert machine.boot() == "running"
        assert machine.machine.run("test -e /sys/firmware/efi", check=False).rc == 1
        # What GRUB passes on is what the entry says.
        assert '"demo=a b"' in machine.machine.run("cat /proc/cmdline").stdout
        check(machine, booted=first)
        record = "grep -A9 '^\\[bootc\\]' /sysroot/state/deploy/*/*.origin"
        said = machine.machine.run(record).stdout.splitlines()
        assert said == ["[bootc]", "bootloader = grub", "firmware = bios"]

        machine.publish(second)
        machine.bootc("upgrade")
        assert machine.reboot() == "running"
        check(machine, booted=second, rollback=first)
        assert "variant=second" in machine.machine.run("cat /proc/cmdline").stdout

        machine.bootc("rollback")
        assert machine.reboot() == "running"
        check(machine, booted=first, rollback=second)


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
