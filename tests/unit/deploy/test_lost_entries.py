"""Machines that lost boot entries: the next update makes them again.

Real commands on directories; the machine around them is made up.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bootc.deploy import cleanup, rollback
from bootc.formats.origin import BootType
from support import firmware, osimages
from support.bench import Bench
from support.bootdirs import SYSTEMD
from support.machine import Command
from support.osimages import Images

ANOTHER_ENTRY = "no entry starts the {}; the next update makes one if its kernel is there"


def pin(image_id: str) -> Command:
    return lambda system, journal: rollback.set_pin(system, image_id, journal, pinned=True)


def test_a_lost_entry_of_what_runs_is_made_anew(any_bench: Bench) -> None:
    bench = any_bench
    options = bench.machine.menu()[0].options
    added = r"BOOT_IMAGE=(hd0,gpt2)/vmlinuz initrd=\EFI\Linux\initrd"
    bench.machine.booted = replace(bench.machine.booted, cmdline=f"{added} {options}")
    bench.machine.lose_entry(bench.id(osimages.NEW))
    finding = (
        "no entry starts the booted deployment; the next update makes one if its kernel is there"
    )
    assert finding in bench.findings()
    bench.machine.command(cleanup.collect_garbage)
    bench.upgrade(osimages.TURNED)
    bench.machine.command(cleanup.collect_garbage)
    assert bench.machine.reboot() is None
    assert bench.shown() == ["turned", "new"]
    assert bench.findings() == []
    assert sorted(bench.machine.menu()[1].options.split()) == sorted(options.split())
    bench.machine.command(rollback.rollback)
    bench.machine.start()
    assert bench.machine.booted_id == bench.id(osimages.NEW)


def test_going_back_where_the_entry_of_what_runs_is_lost(any_bench: Bench) -> None:
    bench = any_bench
    bench.machine.lose_entry(bench.id(osimages.NEW))
    bench.upgrade(osimages.TURNED)
    assert bench.machine.command(rollback.rollback) == [
        "Next boot: rollback deployment",
        f"The staged deployment {bench.id(osimages.TURNED)} is dropped; "
        "bootc upgrade stages it anew.",
    ]
    assert bench.machine.announced() is None
    assert bench.machine.command(rollback.rollback) == ["Next boot: rollback deployment"]
    assert bench.machine.reboot() is None
    assert bench.shown() == ["old"]
    bench.update(osimages.TURNED)
    assert bench.shown() == ["turned", "old"]


def test_a_menu_that_is_lost_as_a_whole(any_bench: Bench) -> None:
    bench = any_bench
    for image in (osimages.NEW, osimages.OLD):
        bench.machine.lose_entry(bench.id(image))
    # What a firmware without entries starts.
    (bench.machine.esp / firmware.FALLBACK).unlink(missing_ok=True)
    said = bench.upgrade(osimages.TURNED)
    assert "Nothing is cleaned up: the boot menu is damaged, see bootc status." in said
    assert bench.machine.reboot() is None
    assert bench.shown() == ["turned", "new"]


def test_a_lost_entry_of_a_kernel_that_another_deployment_brought(
    top: Path, made: dict[BootType, Images]
) -> None:
    # RENAMED boots the kernel that OLD brought, and OLD is gone.
    images = made[BootType.BLS]
    bench = Bench(SYSTEMD, top, images, osimages.OLD, osimages.RENAMED, osimages.NEW)
    assert bench.id(osimages.OLD) not in bench.machine.states()
    bench.machine.command(rollback.rollback)
    bench.machine.start()
    assert bench.machine.booted_id == bench.id(osimages.RENAMED)
    bench.machine.lose_entry(bench.id(osimages.RENAMED))
    bench.machine.command(cleanup.collect_garbage)
    bench.update(osimages.TURNED)
    assert bench.shown() == ["turned", "renamed"]


def test_a_pinned_deployment_whose_entry_is_lost(any_bench: Bench) -> None:
    bench, old = any_bench, any_bench.id(osimages.OLD)
    shown = next(shown for shown in bench.machine.menu() if shown.image_id == old)
    bench.machine.command(pin(old))
    bench.machine.lose_entry(old)
    assert ANOTHER_ENTRY.format(f"pinned deployment {old}") in bench.findings()
    bench.machine.command(cleanup.collect_garbage)
    bench.machine.check_bootable(shown)
    bench.update(osimages.TURNED)
    bench.machine.command(cleanup.collect_garbage)
    assert bench.machine.pinned() == {old}
    assert bench.shown() == ["turned", "new", "old"]
    assert bench.findings() == []
    again = bench.machine.menu()[2]
    assert again.files == shown.files
    assert sorted(again.options.split()) == sorted(shown.options.split())


def test_a_pinned_deployment_of_which_too_much_is_lost(bench: Bench) -> None:
    """Without its kernel no entry can be made; the update goes on without, and status tells."""
    old = bench.id(osimages.OLD)
    shown = next(shown for shown in bench.machine.menu() if shown.image_id == old)
    bench.machine.command(pin(old))
    bench.machine.lose_entry(old)
    shown.files[0].unlink()
    bench.update(osimages.TURNED)
    assert bench.shown() == ["turned", "new"]
    assert bench.findings() == [ANOTHER_ENTRY.format(f"pinned deployment {old}")]
