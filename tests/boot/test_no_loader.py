"""A machine without a boot loader: the firmware starts its unified kernel images.

It is installed, updated and rolled back by the boot entries of the firmware, and starts by
``EFI/BOOT`` when the firmware has forgotten them.
"""

from __future__ import annotations

import json
from pathlib import Path

import budget
import pytest
from journeys import Images, Journey, install
from system_checks import initramfs_log, slots

from support import howto, variants
from testbed.qemu import find_qemu
from testbed.registry import Registry
from testbed.saved import Saved

pytestmark = [pytest.mark.boot, pytest.mark.timeout(3600)]

#: Prints the programs of ``BootOrder``, one a line, and then the entry that started this boot.
_ENTRIES = r"""
cd /sys/firmware/efi/efivars
python3 - <<'END'
import glob, struct
guid = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
def read(name):
    return open(f"{name}-{guid}", "rb").read()[4:]
def program(number):
    text = read(f"Boot{number:04X}").decode("latin-1").replace("\0", "")
    return text[text.index("bootc_composefs-") :][16:144] if "bootc_composefs-" in text else None
order = struct.unpack(f"<{len(read('BootOrder')) // 2}H", read("BootOrder"))
current = struct.unpack("<H", read("BootCurrent"))
print([found for found in map(program, order) if found], program(*current), sep="\n")
END
"""


@pytest.mark.parametrize(
    "family", [pytest.param(variants.UKI, id="uki")], indirect=True, scope="session"
)
def test_a_life_without_a_boot_loader(
    live_machine: Saved,
    update_registry: Registry,
    images: Images,
    logs: Path,
    tmp_path: Path,
) -> None:
    if not budget.is_left():
        budget.skip_rest(0, 1)
    first, second = images["1"], images["3-plain"]
    start = install(
        live_machine,
        update_registry,
        first,
        name="none",
        directory=tmp_path,
        logs=logs,
        command=howto.installer("uki", "bootc install to-disk --bootloader none"),
    )
    with Journey(start, update_registry, name="none", directory=tmp_path, logs=logs) as journey:
        assert journey.boot() == "running"
        assert journey.status()["status"]["booted"]["composefs"]["bootloader"] == "none"
        assert entries(journey) == ([first.image_id.hex], first.image_id.hex)
        assert loaders(journey) == ["EFI/BOOT/BOOTX64.EFI"]
        assert "Secure Boot is off" in initramfs_log(journey.machine)

        journey.publish(second)
        journey.bootc("upgrade")
        assert journey.slots() == slots(first, staged=second)
        assert entries(journey)[0] == [first.image_id.hex]
        assert journey.reboot() == "running"
        assert journey.slots() == slots(second, rollback=first)
        both = [second.image_id.hex, first.image_id.hex]
        assert entries(journey) == (both, second.image_id.hex)
        assert journey.findings() == []

        journey.bootc("rollback")
        journey.shut_down()
        journey.forget_firmware(find_qemu().firmware_vars)
        # The fallback is a copy of what was not the default: the second image.
        assert journey.boot() == "running"
        assert journey.slots()["booted"] == second.image_id.hex
        # By its name there is no entry that started it, and the unit has written those it lost.
        assert entries(journey) == ([first.image_id.hex, second.image_id.hex], None)
        journey.machine.run(howto.command("uki", "systemctl restart"))
        log = journey.machine.run(howto.command("uki", "journalctl")).stdout
        assert "bootc-refresh-boot-menu" in log
        assert journey.findings() == []

        assert journey.reboot() == "running"
        assert journey.slots() == slots(first, rollback=second)
        assert entries(journey)[1] == first.image_id.hex


def entries(journey: Journey) -> tuple[list[str], str | None]:
    """Return the deployments in ``BootOrder``, and the one whose entry started this boot."""
    order, current = journey.machine.run(_ENTRIES).stdout.splitlines()
    listed = json.loads(order.replace("'", '"'))
    return listed, None if current == "None" else current


def loaders(journey: Journey) -> list[str]:
    """Return the programs on the ESP that are no unified kernel images of a deployment."""
    programs = (path for path in journey.esp_files() if path.lower().endswith(".efi"))
    return [path for path in programs if not path.startswith("EFI/Linux/bootc/")]
