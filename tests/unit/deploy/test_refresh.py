"""A machine without a boot loader whose firmware forgets, and what it cannot boot."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootc.boot.menu_compose import CannotCompose
from bootc.deploy import rollback
from bootc.deploy.refresh import refresh_menu
from bootc.formats.origin import BootType
from support import firmware, osimages
from support.bench import Bench
from support.bootdirs import NONE_UKI, SYSTEMD
from support.osimages import Channel, Images


@pytest.fixture
def lone(top: Path, made: dict[BootType, Images]) -> Bench:
    """Return a machine that runs NEW and can go back to OLD, without a boot loader."""
    return Bench(NONE_UKI, top, made[BootType.UKI], osimages.OLD, osimages.NEW)


def test_the_firmware_forgets_between_two_boots(lone: Bench) -> None:
    machine = lone.machine
    machine.command(rollback.rollback)
    firmware.erase(machine.path / "efivars")
    # The fallback starts what was not the default.
    assert machine.start() == lone.id(osimages.NEW)
    assert len(lone.findings()) == 2
    machine.command(refresh_menu)
    assert lone.findings() == []
    assert lone.shown() == ["old", "new"]
    assert machine.start() == lone.id(osimages.OLD)


def test_an_update_before_the_boot_entries_are_back(lone: Bench) -> None:
    firmware.erase(lone.machine.path / "efivars")
    assert lone.machine.start() == lone.id(osimages.OLD)
    lone.update(osimages.TURNED)
    assert lone.shown() == ["turned", "old"]
    assert lone.findings() == []


def test_the_refresh_keeps_what_is_staged(lone: Bench) -> None:
    lone.upgrade(osimages.TURNED)
    firmware.put_order(lone.machine.path / "efivars", 0, 1)
    lone.machine.command(refresh_menu)
    assert lone.shown() == ["old", "new"]
    assert lone.machine.reboot() is None
    assert lone.shown() == ["turned", "new"]


def test_a_machine_with_a_boot_loader_has_nothing_to_refresh(bench: Bench) -> None:
    before = bench.machine.contents(repository=False)
    assert bench.machine.scheme == SYSTEMD
    bench.machine.command(refresh_menu)
    assert bench.machine.contents(repository=False) == before


def test_an_image_without_a_unified_kernel_image_is_refused(
    lone: Bench, made: dict[BootType, Images], top: Path
) -> None:
    lone.channel = Channel(top / "other", made[BootType.BLS], osimages.TURNED)
    link = Path(lone.machine.state(lone.id(osimages.NEW)), f"{lone.id(osimages.NEW)}.origin")
    text = link.read_text().replace(str(top / "channel"), str(top / "other"))
    link.write_text(text)
    before = lone.shown()
    with pytest.raises(CannotCompose, match="starts only unified kernel images") as caught:
        lone.upgrade(osimages.TURNED)
    assert caught.value.hint is not None
    assert lone.shown() == before
