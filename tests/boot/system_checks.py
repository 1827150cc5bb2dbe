"""What a system is asked, and how it is to answer, in journeys with updates."""

from __future__ import annotations

import json

from journeys import Journey

from support.variants import Variant


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


def kernels(journey: Journey) -> set[str]:
    """Return the deployments that the kernels on the ESP are called by; each is complete."""
    found: dict[str, set[str]] = {}
    for path in journey.esp_files():
        _, prefix, rest = path.partition("EFI/Linux/bootc_composefs-")
        if prefix:
            deployment, _, name = rest.partition("/")
            found.setdefault(deployment, set()).add(name)
    assert all(names == {"vmlinuz", "initrd"} for names in found.values()), found
    return set(found)


def default_entry(journey: Journey) -> str:
    """Return the deployment that systemd-boot's own listing starts with."""
    listed = journey.machine.run("bootctl list --json=short").stdout
    (default,) = (entry for entry in json.loads(listed) if entry.get("isDefault"))
    (karg,) = (word for word in default["options"].split() if word.startswith("composefs="))
    return str(karg.removeprefix("composefs="))


def assert_clean(journey: Journey) -> None:
    """A clean-up would find nothing, in the repository neither."""
    journey.bootc("internals composefs-gc --assert-no-op --prune-repo")
