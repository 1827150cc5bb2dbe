"""A machine with ukiboot: what two partitions and the counters of the loader mean for commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootc.boot.menu_compose import CannotCompose
from bootc.boot.space import NoSpaceOnBoot
from bootc.deploy import cleanup, rollback
from bootc.formats.origin import BootType
from support import osimages, slots
from support.bench import Bench
from support.bootdirs import UKIBOOT
from support.osimages import Channel, Images


@pytest.fixture
def lone(top: Path, made: dict[BootType, Images]) -> Bench:
    """Return a machine that runs NEW from slot B and can go back to OLD."""
    return Bench(UKIBOOT, top, made[BootType.UKI], osimages.OLD, osimages.NEW)


def test_an_update_and_a_rollback(lone: Bench) -> None:
    assert lone.machine.slot == "b"
    assert lone.shown() == ["new", "old"]
    lone.upgrade(osimages.TURNED)
    assert lone.shown() == ["new", "old"]
    assert lone.machine.reboot() is None
    assert (lone.machine.slot, lone.shown()) == ("a", ["turned", "new"])
    lone.machine.command(rollback.rollback)
    assert lone.machine.start() == lone.id(osimages.NEW)
    assert lone.shown() == ["new", "turned"]
    assert lone.findings() == []
    shown = lone.machine.status()["status"]
    assert shown["booted"]["composefs"]["bootType"] == "Aboot"
    assert shown["rollback"]["composefs"]["missingVerityAllowed"] is True
    # The deployment that was overwritten has gone, and its payload as well.
    lone.machine.command(cleanup.collect_garbage)
    assert len(lone.machine.states()) == 2
    assert not list(lone.machine.physical.glob("state/deploy/*/aboot"))


def test_a_power_cut_after_staging(lone: Bench) -> None:
    lone.upgrade(osimages.TURNED)
    assert lone.machine.start() == lone.id(osimages.NEW)
    (finding,) = lone.findings()
    assert "bootc upgrade stages it again" in finding
    lone.update(osimages.TURNED)
    assert lone.shown() == ["turned", "new"]
    assert lone.findings() == []


def test_a_deployment_that_does_not_boot_is_replaced(lone: Bench) -> None:
    lone.upgrade(osimages.TURNED)
    lone.machine.shut_down()
    for _ in range(7):
        assert slots.start(lone.machine.path) == "a"
    assert lone.machine.start() == lone.id(osimages.NEW)
    (finding,) = lone.findings()
    assert "its deployment did not boot" in finding
    lone.machine.command(cleanup.collect_garbage)
    assert lone.machine.states() == [lone.id(osimages.NEW)]
    lone.update(osimages.RENAMED)
    assert lone.shown() == ["renamed", "new"]
    assert lone.findings() == []


def test_a_pinned_rollback_deployment_needs_its_partition(lone: Bench) -> None:
    old = lone.id(osimages.OLD)
    lone.machine.command(lambda system, sink: rollback.set_pin(system, old, sink, pinned=True))
    before = lone.machine.contents(repository=False)
    with pytest.raises(CannotCompose, match="boots from two partitions") as caught:
        lone.upgrade(osimages.TURNED)
    assert caught.value.hint == f"unpin it first: bootc unpin {old}"
    assert lone.machine.contents(repository=False) == before


def test_an_image_that_is_too_large_is_refused_before_it_is_written(
    lone: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lone.machine.path / "parts/a").write_bytes(bytes(512))
    before = lone.machine.contents(repository=False)
    with pytest.raises(NoSpaceOnBoot, match="the partition ukiboot_a only 512 B"):
        lone.upgrade(osimages.TURNED)
    assert lone.machine.contents(repository=False) == before


def test_an_image_without_a_unified_kernel_image_is_refused(
    lone: Bench, made: dict[BootType, Images], top: Path
) -> None:
    lone.channel = Channel(top / "other", made[BootType.BLS], osimages.TURNED)
    link = Path(lone.machine.state(lone.id(osimages.NEW)), f"{lone.id(osimages.NEW)}.origin")
    link.write_text(link.read_text().replace(str(top / "channel"), str(top / "other")))
    with pytest.raises(CannotCompose, match="boot loader of this machine starts only unified"):
        lone.upgrade(osimages.TURNED)
    assert lone.shown() == ["new", "old"]
