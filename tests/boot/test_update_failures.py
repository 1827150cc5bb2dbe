"""An update that cannot be finalized, and one that there is no room for.

The ESP has room for two and a half sets of kernel and initramfs, or unified kernel images.
"""

from __future__ import annotations

import re
from pathlib import Path

import budget
import pytest
from journeys import FINALIZE_UNIT, Images, Installed, Journey
from system_checks import assert_clean, default_entry, kernels, slots, states

from support.variants import CONFLICT, Variant
from testbed.registry import Registry

pytestmark = [pytest.mark.boot, pytest.mark.timeout(3600)]


def test_updates_that_fail(
    running: Installed,
    update_registry: Registry,
    images: Images,
    logs: Path,
    tmp_path: Path,
) -> None:
    if not budget.is_left():
        budget.skip_rest(0, 2)
    name = f"failures-{images['1'].tag}"
    with Journey(running, update_registry, name=name, directory=tmp_path, logs=logs) as journey:
        journey.resume()
        journey.leave_on_esp(3 * sum(images["1"].boot_files.values()) // 2)
        conflict_after_staging(journey, images["1"], images["3"])
        done = 1
        if budget.is_left():
            no_room_for_a_third(journey, images["1"], images["3"], images["4"])
            done = 2
    budget.skip_rest(done, 2)


def conflict_after_staging(journey: Journey, v1: Variant, v3: Variant) -> None:
    """What conflicts is made between staging and shutdown; a decision settles it."""
    machine = journey.machine
    journey.publish(v3)
    journey.bootc("upgrade")
    assert journey.slots() == slots(v1, staged=v3)
    machine.run(f"echo local >/{CONFLICT}")
    listed = journey.bootc("etc diff").stdout
    assert "The update cannot be finalized: decide with bootc etc keep PATH" in listed
    entries = journey.esp_entries()
    assert "Failed to stop" not in journey.shut_down()

    assert journey.boot() == "running"
    machine = journey.machine
    assert journey.slots() == slots(v1)
    assert journey.esp_entries() == entries
    (finding,) = journey.findings()
    assert (finding["kind"], finding["subject"]) == ("failed", f"deployment {v3.image_id}")
    assert "Merge conflicts found in etc: " in finding["text"]
    assert "conflict.d" in finding["text"]
    assert finding["text"] in journey.bootc("status --format humanreadable").stdout
    log = machine.run(f"journalctl --boot=-1 --unit={FINALIZE_UNIT} --output=cat").stdout
    assert "bootc status tells what boots next: Merge conflicts found in etc: " in log

    journey.bootc(f"etc take /{CONFLICT}")
    journey.bootc("upgrade")
    assert journey.slots() == slots(v1, staged=v3)
    assert journey.findings() == []
    assert journey.reboot() == "running"
    machine = journey.machine
    assert journey.slots() == slots(v3, rollback=v1)
    assert machine.run(f"cat /{CONFLICT}/default.conf").stdout == "in a directory\n"


def no_room_for_a_third(journey: Journey, v1: Variant, v3: Variant, v4: Variant) -> None:
    assert kernels(journey) == {v1.image_id.hex, v3.image_id.hex}
    before = journey.esp_files(), states(journey)
    journey.publish(v4)
    refused = journey.bootc("upgrade", check=False)
    assert refused.rc == 1
    wanted = sum(v4.boot_files.values()) / (1 << 20)
    sums = re.search(r"has ([0-9.]+) MiB free, but the update needs ([0-9.]+) MiB", refused.stderr)
    assert sums, refused.stderr
    assert float(sums[1]) < wanted <= float(sums[2]) < wanted + 1
    assert "remove a deployment with bootc delete-deployment" in refused.stderr
    assert journey.slots() == slots(v3, rollback=v1)
    assert (journey.esp_files(), states(journey)) == before

    journey.bootc("delete-deployment rollback")
    journey.bootc("upgrade")
    assert journey.slots() == slots(v3, staged=v4)
    assert kernels(journey) == {v3.image_id.hex, v4.image_id.hex}
    journey.machine.run(f"systemctl stop {FINALIZE_UNIT}", timeout_s=300)
    assert default_entry(journey) == v4.image_id.hex
    assert_clean(journey)
