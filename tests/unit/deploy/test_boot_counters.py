"""Machines whose systemd-boot counts boots in the names of entries.

The loader and ``systemd-bless-boot`` rename entries. An entry stays the same entry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.boot import menu_write
from bootc.deploy.cleanup import collect_garbage
from bootc.deploy.rollback import rollback
from bootc.formats.digest import Digest
from bootc.fs.dir import Dir
from support import osimages
from support.bench import Bench
from support.bootdirs import SYSTEMD, SYSTEMD_UKI, scheme_name
from support.osimages import Images


@pytest.fixture(params=[SYSTEMD, SYSTEMD_UKI], ids=scheme_name)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """Return a machine that runs NEW and can go back to OLD."""
    images = Images(tmp_path / "images", request.param.boot_type)
    return Bench(request.param, tmp_path, images, osimages.OLD, osimages.NEW)


def go_back(bench: Bench) -> None:
    bench.machine.command(rollback)


def clean_up(bench: Bench) -> None:
    bench.machine.command(collect_garbage)


def names(bench: Bench) -> list[str]:
    return sorted(path.name for path in bench.machine.entries.iterdir())


def test_an_entry_that_was_counted_is_the_same_entry(bench: Bench) -> None:
    machine = bench.machine
    new, old = bench.id(osimages.NEW), bench.id(osimages.OLD)
    machine.set_counter(new, "+3")
    machine.set_counter(old, "+2-1")
    assert machine.start() == new
    assert machine.counter(new) == (2, 1)
    status = machine.status()["status"]
    assert status["booted"]["composefs"]["verity"] == new
    assert status["rollback"]["composefs"]["verity"] == old
    assert "findings" not in status
    clean_up(bench)
    assert bench.shown() == ["new", "old"]
    assert (machine.counter(new), machine.counter(old)) == ((2, 1), (2, 1))


def test_an_update_keeps_the_counter_of_the_booted_entry(bench: Bench) -> None:
    machine, new = bench.machine, bench.id(osimages.NEW)
    machine.set_counter(new, "+2-1")
    bench.upgrade(osimages.TURNED)
    assert machine.reboot() is None
    assert bench.shown() == ["turned", "new"]
    assert machine.counter(bench.id(osimages.TURNED)) == ()
    assert machine.counter(new) == (2, 1)


@pytest.mark.parametrize(("staged_as", "live", "kept"), [("+2-1", "", ()), ("", "+1-2", (1, 2))])
def test_a_counter_that_changed_after_staging(
    bench: Bench, staged_as: str, live: str, kept: tuple[int, ...]
) -> None:
    """The boot is blessed, or counted, between staging and the shutdown."""
    machine, new = bench.machine, bench.id(osimages.NEW)
    machine.set_counter(new, staged_as)
    bench.upgrade(osimages.TURNED)
    machine.set_counter(new, live)
    assert machine.reboot() is None
    assert bench.shown() == ["turned", "new"]
    assert machine.counter(new) == kept


def test_a_boot_that_is_blessed_in_the_middle_of_the_exchange(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, new = bench.machine, bench.id(osimages.NEW)
    machine.set_counter(new, "+2-1")
    bench.upgrade(osimages.TURNED)
    carry, sync = menu_write.carry_foreign, Dir.sync
    pending: list[str] = []

    def carry_foreign(live: Dir, staged: Dir) -> None:
        carry(live, staged)
        if machine.counter(new):
            pending.append(new)

    def bless_and_sync(directory: Dir) -> None:
        sync(directory)
        # At this time the commit has read the counters, and has not exchanged the menus.
        while pending:
            machine.set_counter(pending.pop(), "")

    monkeypatch.setattr(menu_write, "carry_foreign", carry_foreign)
    monkeypatch.setattr(Dir, "sync", bless_and_sync)
    assert machine.reboot() is None
    assert bench.shown() == ["turned", "new"]
    assert machine.counter(new) == ()


def test_rolling_back_to_an_entry_without_tries_left(bench: Bench) -> None:
    """The user decides: the loader would show the entry last, and never start it by itself."""
    machine = bench.machine
    new, old = bench.id(osimages.NEW), bench.id(osimages.OLD)
    machine.set_counter(old, "+0-3")
    machine.set_counter(new, "+1-1")
    go_back(bench)
    assert machine.reboot() is None
    assert machine.booted_id == old
    assert bench.shown() == ["old", "new"]
    assert machine.counter(old) == ()
    assert machine.counter(new) == (1, 1)


def test_the_loader_has_given_an_update_up(bench: Bench) -> None:
    machine = bench.machine
    new, old = bench.id(osimages.NEW), bench.id(osimages.OLD)
    machine.set_counter(new, "+1")
    assert machine.start() == new
    assert machine.start() == old
    status = machine.status()["status"]
    assert status["booted"]["composefs"]["verity"] == old
    assert status["rollback"]["composefs"]["verity"] == new
    assert status["rollbackQueued"] is False
    clean_up(bench)
    assert bench.shown() == ["old", "new"]
    bench.upgrade(osimages.TURNED)
    assert machine.reboot() is None
    assert bench.shown() == ["turned", "old"]


@pytest.mark.parametrize(("first", "second"), [("+2", "+1-1"), ("", "+1-1"), ("+1-1", "+1")])
def test_a_cut_renaming_leaves_two_names(bench: Bench, first: str, second: str) -> None:
    """The entry has the fewest tries left; the other name keeps systemd-boot from counting."""
    machine, new = bench.machine, bench.id(osimages.NEW)
    name = machine.set_counter(new, first)
    other = re.sub(r"(\+.*)?\.conf", f"{second}.conf", name)
    (machine.entries / other).write_bytes((machine.entries / name).read_bytes())
    left, kept = (other, name) if second == "+1" else (name, other)
    item = machine.facts().active_item(Digest.from_hex(new))
    assert item is not None
    assert item.name == kept
    text = "it repeats an entry with fewer tries left, and keeps systemd-boot from counting"
    assert bench.findings() == [text]
    clean_up(bench)
    assert left not in names(bench)
    assert bench.shown() == ["new", "old"]
    assert "findings" not in machine.status()["status"]
