"""The power fails while an update is staged, and while the shutdown finalizes one.

One system goes back and forth between two images with different kernels, with Type #1 entries
and with unified kernel images. Each round cuts the power twice; what boots then is complete,
its status answers, and the same command once more completes. No round cleans up but for the
deployment it came from: what else is left behind is for bootc to deal with.

There are ten rounds for each, of a minute or more. Some are run while there is time
(:mod:`budget`); with ``BOOTC_ALL_CUTS`` in the environment all are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import budget
import pytest
from journeys import FINALIZE_UNIT, Images, Installed, Journey
from system_checks import assert_clean, default_entry, kernels, slots, states

from support.variants import TYPE1, UKI, Variant
from testbed.registry import Registry

pytestmark = [pytest.mark.boot, pytest.mark.timeout(3600)]

#: Which of the rounds are run.
SOME = {TYPE1: slice(3, None, 5), UKI: slice(3, None, 10)}
#: Just before these: the first object, the image's tag; the kernel's directory, its name and a
#: file in it, or old add-ons being removed, the unified image being opened and getting its name.
PULLING = ("os.link ('/proc/self/fd/", "os.symlink ('../../oci-manifest")
KERNEL = {
    TYPE1: (
        "os.mkdir ('.tmp-file-bootc_composefs-",
        "os.rename ('.tmp-file-bootc_composefs-",
        "'initrd'",
    ),
    UKI: (
        ".efi.extra.d'",
        "open ('.tmp-file-bootc_composefs-",
        "os.rename ('.tmp-file-bootc_composefs-",
    ),
}
#: Just before these: the state directory, the last file of its /etc, its origin, the menu, the
#: announcement.
STAGING = ("os.mkdir ('etc'", "'xattr.conf'", ".origin'", "-1.conf'", "'staged-deployment'")
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
    family: str,
    running: Installed,
    update_registry: Registry,
    images: Images,
    logs: Path,
    tmp_path: Path,
) -> None:
    staging = (*PULLING, *KERNEL[family], *STAGING)
    rounds = list(zip(staging, (*BEFORE_EXCHANGE, *AFTER_EXCHANGE), strict=True))
    if not budget.is_unlimited():
        rounds = rounds[SOME[family]]
    if not budget.is_left():
        budget.skip_rest(0, len(rounds))
    name = f"cuts-{images['1'].tag}"
    with Journey(running, update_registry, name=name, directory=tmp_path, logs=logs) as journey:
        done = go_through(journey, rounds, images["1"], images["3-plain"])
    budget.skip_rest(done, len(rounds))


def go_through(
    journey: Journey, rounds: Sequence[tuple[str, str]], booted: Variant, other: Variant
) -> int:
    """Go through rounds while there is time, at least one; return how many."""
    done = 0
    for variant in (booted, other):
        journey.publish(variant, variant.tag)
    journey.resume()
    for staging, finalizing in rounds:
        if done and not budget.is_left():
            break
        cut_while_staging(journey, staging, booted, other)
        cut_while_finalizing(journey, finalizing, booted, other)
        if finalizing in AFTER_EXCHANGE:
            booted, other = other, booted
        journey.bootc("delete-deployment rollback")
        assert journey.slots() == slots(booted)
        assert kernels(journey) == states(journey) == {booted.image_id.hex}
        assert_clean(journey)
        done += 1
    return done


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
