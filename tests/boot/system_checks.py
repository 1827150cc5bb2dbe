"""What a system is asked, and how it is to answer, in journeys with updates."""

from __future__ import annotations

import json
import re

from journeys import Journey

from support.variants import Variant
from testbed.machine import Machine


def slots(
    booted: Variant, *, staged: Variant | None = None, rollback: Variant | None = None
) -> dict[str, str | None]:
    """Return what :meth:`Journey.slots` is to be."""
    return {
        slot: variant and variant.image_id.hex
        for slot, variant in (("booted", booted), ("staged", staged), ("rollback", rollback))
    }


def states(journey: Journey) -> set[str]:
    """Return the deployments that have state."""
    return set(journey.machine.run("ls /sysroot/state/deploy").stdout.split())


def initramfs_log(machine: Machine) -> str:
    """Return what the step of the initramfs said in this boot."""
    return machine.run("journalctl -b -o cat -u bootc-root-setup.service").stdout


def kernels(journey: Journey) -> set[str]:
    """Return the deployments that the kernels on the ESP are called by; each is complete."""
    found: dict[str, set[str]] = {}
    for path in journey.esp_files():
        # A directory of two files, or a unified image.
        match = re.fullmatch(r"EFI/Linux/(?:bootc/)?bootc_composefs-([0-9a-f]+)[/.](\w+)", path)
        if match:
            found.setdefault(match[1], set()).add(match[2])
    assert all(names in ({"vmlinuz", "initrd"}, {"efi"}) for names in found.values()), found
    return set(found)


def brought_by(first: Variant, *deployed: Variant) -> set[str]:
    """Return what :func:`kernels` is to be, on a system that was installed from ``first``.

    A deployment boots with the first one's kernel if it is the same; unified images differ.
    """
    return {
        (
            first if variant.boot_digest == first.boot_digest and not variant.is_uki else variant
        ).image_id.hex
        for variant in deployed
    }


def default_entry(journey: Journey) -> str:
    """Return the deployment that systemd-boot's own listing starts with."""
    listed = journey.machine.run("bootctl list --json=short").stdout
    (default,) = (entry for entry in json.loads(listed) if entry.get("isDefault"))
    match = re.search(r"composefs[=-]([0-9a-f]{128})\b", default.get("options") or default["efi"])
    assert match, default
    return match[1]


def assert_clean(journey: Journey) -> None:
    """A clean-up would find nothing, in the repository neither."""
    journey.bootc("internals composefs-gc --assert-no-op --prune-repo")
