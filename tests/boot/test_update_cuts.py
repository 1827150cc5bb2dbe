"""The power fails while an update is staged, and while the shutdown finalizes one.

One system goes back and forth between two images with different kernels. Each round cuts
the power twice; what boots then is complete, its status answers, and the same command
once more completes. No round cleans up but for the deployment it came from: what else is
left behind is for bootc to deal with.

A round takes a minute and a half. Every second one is run, ten cuts in all; with
``BOOTC_ALL_CUTS`` in the environment all are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from journeys import FINALIZE_UNIT, Installed, Journey
from system_checks import assert_clean, default_entry, kernels, slots, states

from support.variants import Variant
from testbed.registry import Registry

pytestmark = [pytest.mark.boot, pytest.mark.timeout(2400)]

#: Just before these: the first object, the image's tag, the kernel's directory and both files,
#: the state directory, the last file of its /etc, its origin, the menu, the announcement.
STAGING = (
    "os.link ('/proc/self/fd/",
    "os.symlink ('../../oci-manifest",
    "os.mkdir ('bootc_composefs-",
    "'vmlinuz'",
    "'initrd'",
    "os.mkdir ('etc'",
    "'xattr.conf'",
    ".origin'",
    "-1.conf'",
    "'staged-deployment'",
)
#: Just before these: looking for the ESP, the merged /etc and its last file, what was /etc
#: being removed from its first file to itself, the exchange of the menus.
BEFORE_EXCHANGE = (
    "'/usr/bin/lsblk'",
    "os.mkdir ('etc.merged'",
    "'alternatives'",
    "'xattr.conf'",
    "os.remove ('passwd'",
    "os.rmdir ('etc.merged'",
    "os.remove ('finalize-failure.json'",
)
#: Just before these: the old menu being removed, and the announcement.
AFTER_EXCHANGE = (
    "os.remove ('entries.staged'",
    "os.rmdir ('entries.staged'",
    "os.remove ('staged-deployment'",
)


def test_power_fails_while_staging_and_while_finalizing(
    installed_v1: Installed,
    update_registry: Registry,
    variants: Mapping[str, Variant],
    logs: Path,
    tmp_path: Path,
) -> None:
    rounds = list(zip(STAGING, (*BEFORE_EXCHANGE, *AFTER_EXCHANGE), strict=True))
    if not os.environ.get("BOOTC_ALL_CUTS"):
        rounds = rounds[::2]
    with Journey(
        installed_v1, update_registry, name="cuts", directory=tmp_path, logs=logs
    ) as journey:
        go_through(journey, rounds, variants["v1"], variants["v3-plain"])


def go_through(
    journey: Journey, rounds: Sequence[tuple[str, str]], booted: Variant, other: Variant
) -> None:
    for variant in (booted, other):
        journey.publish(variant, variant.tag)
    assert journey.boot() == "running"
    for staging, finalizing in rounds:
        cut_while_staging(journey, staging, booted, other)
        cut_while_finalizing(journey, finalizing, booted, other)
        if finalizing in AFTER_EXCHANGE:
            booted, other = other, booted
        journey.bootc("delete-deployment rollback")
        assert journey.slots() == slots(booted)
        assert kernels(journey) == states(journey) == {booted.image_id.hex}
        assert_clean(journey)


def cut_while_staging(journey: Journey, moment: str, booted: Variant, other: Variant) -> None:
    journey.cut_at(moment, "/usr/bin/bootc", "upgrade", "--tag", other.tag)
    assert journey.boot() == "running"
    assert journey.slots() == slots(booted)
    journey.bootc(f"upgrade --tag {other.tag}")
    assert journey.slots() == slots(booted, staged=other)
    assert {booted.image_id.hex, other.image_id.hex} == kernels(journey) == states(journey)


def cut_while_finalizing(journey: Journey, moment: str, booted: Variant, other: Variant) -> None:
    journey.machine.run("echo local >/etc/local")
    journey.cut_at_finalize(moment)
    assert journey.boot() == "running"
    if moment in AFTER_EXCHANGE:
        assert journey.slots() == slots(other, rollback=booted)
        assert journey.machine.run("cat /etc/local").stdout == "local\n"
        return
    assert journey.slots() == slots(booted)
    journey.bootc(f"upgrade --tag {other.tag}")
    # As the shutdown would.
    journey.machine.run(f"systemctl stop {FINALIZE_UNIT}", timeout_s=300)
    assert default_entry(journey) == other.image_id.hex
    assert (
        journey.machine.run(f"cat /sysroot/state/deploy/{other.image_id}/etc/local").stdout
        == "local\n"
    )
    journey.bootc("rollback")
