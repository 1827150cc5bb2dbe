"""A sealed unified kernel image on a BIOS machine: taken apart, booted by GRUB, updated.

The image has no other kernel, and GRUB starts it from a BIOS only in parts. The installer does
that only for a user who asks for it.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import budget
import pytest
from journeys import Journey, install
from stations import save_live
from test_grub import MENU

from support import grubtree, howto, variants
from support.variants import Variant
from testbed.demo_os import DemoOs
from testbed.registry import Registry

pytestmark = [pytest.mark.boot, pytest.mark.timeout(3600)]

_INSTALL = howto.installer("uki", "bootc install to-disk --bootloader grub")
_WHOLE = _INSTALL.replace(" --boot-type bls", "")
#: Installs after two refusals, which write nothing: the last one needs no --wipe.
_SCRIPT = f"""
set -e
refused() {{
    if "$@" >/tmp/said 2>&1; then exit 1; fi
    cat /tmp/said
}}
refused {_WHOLE} "$@"
grep -q -e "--boot-type bls" /tmp/said
refused {_INSTALL} "$@"
grep -q -e "--disable-sealing" /tmp/said
{_INSTALL} --disable-sealing "$@"
"""


def test_a_life_of_a_kernel_taken_apart(
    demo_os: DemoOs,
    update_registry: Registry,
    tmp_path: Path,
    logs: Path,
) -> None:
    if not budget.is_unlimited():
        budget.skip_rest(0, 1)
    grubtree.TRIXIE.find()
    images = variants.build(demo_os, tmp_path / "images", variants.GRUB_UKI)
    first, second = images["gu1"], images["gu2"]
    for name in ("live", "run"):
        (tmp_path / name).mkdir()
    live = save_live(demo_os, tmp_path / "live", logs, bios=True)
    start = install(
        live,
        update_registry,
        first,
        name="parts",
        directory=tmp_path,
        logs=logs,
        command=f"bash -c {shlex.quote(_SCRIPT)} install",
        root=2,
    )
    live.remove()
    with Journey(
        start, update_registry, name="parts", directory=tmp_path / "run", logs=logs
    ) as machine:
        assert machine.boot() == "running"
        check(machine, booted=first)

        machine.publish(second)
        machine.bootc("upgrade")
        assert machine.reboot() == "running"
        check(machine, booted=second, rollback=first)
        assert "variant=second" in machine.machine.run("cat /proc/cmdline").stdout
        # Both have the same kernel, and share it.
        assert kernels(machine) == [first.image_id.hex]

        machine.bootc("rollback")
        assert machine.reboot() == "running"
        check(machine, booted=first, rollback=second)
        assert "variant=second" not in machine.machine.run("cat /proc/cmdline").stdout
    start.disk.unlink()


def check(machine: Journey, *, booted: Variant, rollback: Variant | None = None) -> None:
    """Compare what runs, what status says, and GRUB's menu."""
    host = machine.status()["status"]
    assert host["booted"]["composefs"] == {
        "verity": booted.image_id.hex,
        "bootType": "Bls",
        "bootloader": "grub",
        "bootDigest": booted.boot_digest,
        "missingVerityAllowed": False,
        "waived": ["disable-sealing"],
    }
    expected = [booted.image_id.hex]
    if rollback is not None:
        expected.append(rollback.image_id.hex)
        assert host["rollback"]["composefs"]["verity"] == rollback.image_id.hex
    menu = machine.machine.run(f"cat {MENU}").stdout
    assert re.findall(r"'composefs=([0-9a-f]+)'", menu) == expected
    assert machine.findings() == []
    human = machine.bootc("status --format humanreadable").stdout
    assert human.count("not sealed: its unified kernel image boots in parts") == len(expected)


def kernels(machine: Journey) -> list[str]:
    """Return the names of the kernels on the boot partition."""
    listed = machine.machine.run("ls /sysroot/boot").stdout.split()
    return [name.removeprefix("bootc_composefs-") for name in listed if "composefs-" in name]
