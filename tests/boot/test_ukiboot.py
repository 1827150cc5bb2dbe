"""A machine with ukiboot, Debian's own: two partitions, of which one starts.

It is installed, updated and rolled back, and repairs the control block after damage.
"""

from __future__ import annotations

from pathlib import Path

import budget
import pytest
from journeys import Journey, install
from system_checks import slots

from support import howto, ukiboottree, variants
from support.variants import Variant
from testbed.demo_os import DemoOs
from testbed.registry import Registry
from testbed.saved import Saved

pytestmark = [pytest.mark.boot, pytest.mark.timeout(3600)]

#: The number of the root partition, after BIOS-BOOT, the ESP and those of ukiboot.
_ROOT = 6
_BY_NAME = "/dev/disk/by-partlabel"
#: The control block after a boot from slot A, and after one from slot B.
_PRINT = f"dd if={_BY_NAME}/ukibootctl bs=12 count=1 status=none | od -An -tx1 -j4"


@pytest.fixture(scope="module")
def ukiboot_images(demo_os: DemoOs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Variant]:
    ukiboottree.find()
    return variants.build(demo_os, tmp_path_factory.mktemp("ukiboot"), variants.UKIBOOT)


def test_a_life_with_two_partitions(
    live_machine: Saved,
    update_registry: Registry,
    ukiboot_images: dict[str, Variant],
    logs: Path,
    tmp_path: Path,
) -> None:
    if not budget.is_left():
        budget.skip_rest(0, 1)
    first, second = ukiboot_images["a1"], ukiboot_images["a2"]
    start = install(
        live_machine,
        update_registry,
        first,
        name="ukiboot",
        directory=tmp_path,
        logs=logs,
        command=howto.installer("ab-device", "bootc install to-disk"),
        root=_ROOT,
    )
    with Journey(start, update_registry, name="ukiboot", directory=tmp_path, logs=logs) as journey:
        assert journey.boot() == "running"
        booted = journey.status()["status"]["booted"]["composefs"]
        assert (booted["bootloader"], booted["bootType"]) == ("ukiboot", "Aboot")
        check(journey, "a", slots(first))
        # The new slot has never been written.
        assert control(journey) == "0f 00 01 00 00 00 00 00"

        journey.publish(second)
        journey.bootc("upgrade")
        assert journey.slots() == slots(first, staged=second)
        assert journey.reboot() == "running"
        check(journey, "b", slots(second, rollback=first))
        assert "variant=second" in journey.machine.run("cat /proc/cmdline").stdout
        assert control(journey) == "0e 00 01 00 0f 00 01 00"
        assert journey.machine.run("ls /sysroot/state/boot/aboot").stdout.split() == ["slots"]
        payloads = "ls -d /sysroot/state/deploy/*/aboot"
        assert journey.machine.run(payloads, check=False).stdout == ""

        journey.bootc("rollback")
        assert control(journey) == "0f 07 00 00 0e 00 01 00"
        assert journey.reboot() == "running"
        check(journey, "a", slots(first, rollback=second))

        # Damage: the loader would start slot A first.
        journey.machine.run(
            f"dd if=/dev/zero of={_BY_NAME}/ukibootctl bs=512 count=1 conv=fsync status=none"
        )
        (finding,) = journey.findings()
        assert finding["subject"] == "ukibootctl"
        journey.machine.run(howto.command("ab-device", "systemctl restart"))
        check(journey, "a", slots(first, rollback=second))
        assert control(journey) == "0f 00 01 00 0e 07 00 00"


def check(journey: Journey, slot: str, expected: dict[str, str | None]) -> None:
    """Compare what runs, from which slot, and that nothing is wrong."""
    assert journey.slots() == expected
    cmdline = journey.machine.run("cat /proc/cmdline").stdout.split()
    assert f"androidboot.slot_suffix=_{slot}" in cmdline
    assert journey.findings() == []
    seen = journey.machine.run(f"cat /sysroot/state/boot/aboot/slots/{slot}").stdout
    assert seen == expected["booted"]


def control(journey: Journey) -> str:
    """Return priority, tries and success of both slots, in hex."""
    return journey.machine.run(_PRINT).stdout.strip()
