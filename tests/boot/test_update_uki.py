"""Updates and a rollback on a system that boots unified kernel images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from journeys import Journey, install
from system_checks import assert_clean, slots, states

from support.variants import Variant
from testbed.demo_os import DemoOs
from testbed.registry import Registry

pytestmark = [pytest.mark.boot, pytest.mark.timeout(1800)]

UKIS = "EFI/Linux/bootc/"


def test_a_life_with_unified_kernel_images(
    demo_os: DemoOs,
    update_registry: Registry,
    variants: Mapping[str, Variant],
    logs: Path,
    tmp_path: Path,
) -> None:
    u1, u2, u3 = (variants[tag] for tag in ("u1", "u2", "u3"))
    start = install(demo_os, update_registry, u1, name="uki", directory=tmp_path, logs=logs)
    with Journey(start, update_registry, name="uki-life", directory=tmp_path, logs=logs) as journey:
        assert journey.boot() == "running"
        assert_runs(journey, u1)
        assert journey.status()["status"]["booted"]["composefs"]["bootType"] == "Uki"
        journey.machine.run("echo mine >/etc/mine")
        update(journey, u1, u2)
        journey.machine.run("echo second >/etc/second")
        update(journey, u2, u3)
        journey.machine.run("echo third >/etc/second")

        journey.bootc("rollback")
        assert journey.status()["status"]["rollbackQueued"] is True
        assert journey.reboot() == "running"
        assert journey.slots() == slots(u2, rollback=u3)
        assert_runs(journey, u2)
        assert journey.machine.run("cat /etc/mine /etc/second").stdout == "mine\nsecond\n"
        journey.bootc("internals composefs-gc --prune-repo")
        assert_clean(journey)
    start.disk.unlink()


def update(journey: Journey, old: Variant, new: Variant) -> None:
    """Update from one to the other and boot that; what was before the old one is gone then."""
    journey.publish(new)
    journey.bootc("upgrade")
    staged = journey.status()["status"]["staged"]["composefs"]
    assert (staged["verity"], staged["bootDigest"]) == (new.image_id.hex, new.boot_digest)
    assert journey.reboot() == "running"
    assert journey.slots() == slots(new, rollback=old)
    assert_runs(journey, new)
    assert ukis(journey) == {
        f"bootc_composefs-{variant.image_id}.efi": size
        for variant in (old, new)
        for size in variant.boot_files.values()
    }
    assert states(journey) == {old.image_id.hex, new.image_id.hex}
    assert journey.machine.run("cat /etc/mine").stdout == "mine\n"


def ukis(journey: Journey) -> dict[str, int]:
    """Return the sizes of all that lies beside the unified kernel images."""
    files = journey.esp_files().items()
    return {path.removeprefix(UKIS): size for path, size in files if path.startswith(UKIS)}


def assert_runs(journey: Journey, variant: Variant) -> None:
    """The system is this image, with the arguments that are sealed in it."""
    release = journey.machine.run(". /etc/os-release; echo $ID $VERSION_ID").stdout.split()
    assert release == [variant.os_id, variant.version]
    arguments = journey.machine.run("cat /proc/cmdline").stdout.split()
    assert arguments == [*variant.kargs, f"composefs={variant.image_id}", "rw"]
