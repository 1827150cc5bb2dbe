"""A unified kernel image that names its image in both format versions.

The repository makes images of the second version, as one of upstream's 1.16.0 does. The machine
boots the first image, boots the second one when the first is gone, and is updated from there.
"""

from __future__ import annotations

from pathlib import Path

import budget
import pytest
from journeys import Images, Installed, Journey
from system_checks import initramfs_log, slots

from bootc.formats.digest import Algorithm
from bootc.repository.metadata import Metadata
from support import variants
from testbed.registry import Registry
from testbed.tamper import root_filesystem

pytestmark = [pytest.mark.boot, pytest.mark.timeout(3600)]

REPOSITORY = "/sysroot/composefs"


@pytest.mark.parametrize(
    "family", [pytest.param(variants.UKI, id="uki")], indirect=True, scope="session"
)
def test_either_image_boots(
    installation: Installed,
    update_registry: Registry,
    images: Images,
    logs: Path,
    tmp_path: Path,
) -> None:
    if not budget.is_left():
        budget.skip_rest(0, 1)
    first, two, last = images["1"], images["2-two"], images["3-plain"]
    assert two.second_id is not None
    with Journey(
        installation, update_registry, name="two", directory=tmp_path, logs=logs
    ) as journey:
        root_filesystem(journey.disk).replace(
            "/composefs/meta.json", Metadata.new(Algorithm.SHA512, 2).to_bytes()
        )
        assert journey.boot() == "running"
        journey.publish(two)
        journey.bootc("upgrade")
        assert journey.slots() == slots(first, staged=two)
        assert journey.reboot() == "running"
        assert root_of(journey) == f"composefs:{two.image_id}"

        journey.shut_down()
        link = f"/composefs/images/{two.image_id}"
        root_filesystem(journey.disk).debugfs(f'rm "{link}"', write=True)
        assert journey.boot() == "running"
        assert root_of(journey) == f"composefs:{two.second_id}"
        assert journey.slots() == slots(two, rollback=first)
        report = f"does not have image {two.image_id}; mounting {two.second_id}"
        assert report in initramfs_log(journey.machine)

        journey.publish(last)
        journey.bootc("upgrade")
        assert journey.reboot() == "running"
        assert journey.slots() == slots(last, rollback=two)
        journey.bootc(f"internals cfs --repo {REPOSITORY} fsck")


def root_of(journey: Journey) -> str:
    """Return the source of the root file system."""
    return journey.machine.run("findmnt -no SOURCE /").stdout.strip()
