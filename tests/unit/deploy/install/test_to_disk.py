from __future__ import annotations

import dataclasses

import pytest

from bootc.deploy.install import to_disk
from bootc.deploy.install.checks import Decisions
from bootc.deploy.install.checks_disk import DiskPlan
from bootc.deploy.install.filesystem import Filesystem
from bootc.deploy.install.loader_systemd_boot import SystemdBootInstaller
from bootc.deploy.install.partition import DiskSizes
from bootc.deploy.install.request import DiskRequest
from bootc.deploy.install.target_disk import Device
from bootc.deploy.install.to_disk import DiskDestination
from bootc.events import Message
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import Signature
from bootc.oci.sigpolicy import PolicyNotEnforced

REGISTRY = ImageReference("registry", "example.com/os:1")
LAYOUT = ImageReference("oci", "/media/os:1")
DECISIONS = Decisions(
    "x86_64", SystemdBootInstaller(), Filesystem.EXT4, False, (), signature=Signature()
)
PLAN = DiskPlan(
    DECISIONS,
    Device("/dev/none", "disk", 8 << 30, False, None, "S1", ()),
    sizes=DiskSizes(),
)


@pytest.mark.parametrize(("source", "target"), [(LAYOUT, REGISTRY), (REGISTRY, LAYOUT)])
def test_signatures_that_nobody_would_check_are_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, source: ImageReference, target: ImageReference
) -> None:
    monkeypatch.setattr(to_disk, "check_disk", lambda *_: None)
    monkeypatch.setattr(to_disk, "plan_disk", lambda *_: PLAN)
    monkeypatch.setattr(to_disk, "read_config", lambda *_: None)
    request = DiskRequest(device="/dev/none", source=source, target=target, bootloader="systemd")
    with pytest.raises(PolicyNotEnforced, match=f"cannot be enforced for {LAYOUT}"):
        to_disk.install_to_disk(request, pytest.fail)


@pytest.mark.parametrize("generic", [False, True])
def test_the_image_of_a_disk_is_for_other_machines(
    monkeypatch: pytest.MonkeyPatch, generic: bool
) -> None:
    seen: list[DiskRequest] = []
    monkeypatch.setattr(to_disk, "check_disk", lambda *_: None)
    monkeypatch.setattr(to_disk, "plan_disk", lambda *_: PLAN)
    monkeypatch.setattr(to_disk, "read_config", lambda *_: None)
    monkeypatch.setattr(to_disk, "install", lambda request, *_: seen.append(request))
    messages: list[object] = []
    request = DiskRequest(
        device="/disk.img",
        source=LAYOUT,
        target=REGISTRY,
        bootloader="systemd",
        via_loopback=True,
        generic_image=generic,
    )
    to_disk.install_to_disk(request, messages.append)
    assert [request.generic_image for request in seen] == [True]
    notice = Message("notice: --via-loopback implies --generic-image")
    assert messages == ([] if generic else [notice])


def test_the_lines_and_steps_of_a_disk() -> None:
    assert DiskDestination(PLAN).facts == (
        "Block setup: direct",
        f"       Size: {8 << 30}",
        "     Serial: S1",
        "      Model: <unknown>",
        " Partitions: UUID",
    )
    assert DiskDestination(PLAN).steps == (
        "Write a GPT to /dev/none: EFI-SYSTEM 1024 MiB, root the rest",
        "Create FAT on EFI-SYSTEM and ext4 on root",
    )
    plan = dataclasses.replace(PLAN, wipe=True, sizes=DiskSizes(4096, None))
    assert DiskDestination(plan).steps == (
        "Wipe /dev/none",
        "Write a GPT to /dev/none: root 4096 MiB",
        "Create ext4 on root",
    )
