"""Finalizing at shutdown, on machines to which things happen that no plan foresees.

Real commands on directories; the machine around them is made up.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.boot.scheme import Scheme
from bootc.deploy import finalize
from bootc.deploy.plan.finalize import CannotFinalize
from bootc.formats.digest import Digest
from bootc.formats.origin import BootType
from support import osimages
from support.bench import Bench, upgrade
from support.bootdirs import GRUB, SYSTEMD, scheme_name
from support.failing import FAILURES, Failing
from support.machine import FakeMachine
from support.osimages import Images


def failures(bench: Bench, top: Path, failing_at: Failing) -> Iterator[FakeMachine]:
    """Yield machines whose finalizer failed at its first, its second … change."""
    for number in itertools.count(1):
        machine = bench.machine.copy(top / str(number))
        with failing_at(number) as changes:
            try:
                machine.shut_down()
            except (KeyboardInterrupt, OSError):
                assert changes.failed
        machine.start()
        yield machine
        shutil.rmtree(machine.path)
        if not changes.failed:
            return


@pytest.mark.parametrize(("failing_at", "reason"), FAILURES.values(), ids=FAILURES)
def test_a_finalizer_that_fails_says_so(
    bench: Bench, top: Path, failing_at: Failing, reason: str
) -> None:
    bench.write("local", "mine")
    bench.upgrade(osimages.TURNED)
    new, staged = bench.id(osimages.NEW), bench.id(osimages.TURNED)
    outcomes = []
    for machine in failures(bench, top, failing_at):
        outcomes.append(machine.booted_id)
        findings = machine.status()["status"].get("findings", [])
        failed = [found["text"] for found in findings if found["kind"] == "failed"]
        if machine.booted_id == staged:
            assert failed == []
            continue
        assert len(failed) == 1
        assert reason in failed[0]
        machine.command(upgrade())
        assert machine.reboot() is None
        assert machine.booted_id == staged
        assert machine.etc(staged)["local"] == "mine"
        assert not machine.status()["status"].get("findings")
    # A full disk may only hinder the removal of the old /etc, which is no failure.
    assert (outcomes[0], outcomes[-1]) == (new, staged)
    if failing_at is not FAILURES["full"][0]:
        # Before the exchange the old system, after it the new one.
        assert outcomes == sorted(outcomes, key=[new, staged].index)
    assert set(outcomes) == {new, staged}


def test_a_kernel_that_is_gone_at_shutdown(any_bench: Bench) -> None:
    bench = any_bench
    bench.upgrade(osimages.RENAMED)
    staged = bench.id(osimages.RENAMED)
    shown = bench.machine.facts().staged_item(Digest.from_hex(staged))
    assert shown is not None
    assert shown.artifact is not None
    for path in bench.machine.path.rglob(f"bootc_composefs-{shown.artifact}*"):
        if bench.machine.run not in path.parents and ".conf" not in path.name:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert isinstance(bench.machine.reboot(), CannotFinalize)
    assert bench.machine.booted_id == bench.id(osimages.NEW)
    assert any(f"kernel of the staged deployment {staged} is gone" in f for f in bench.findings())
    bench.update(osimages.RENAMED)
    assert bench.findings() == []


def test_a_state_that_is_gone_at_shutdown_costs_the_note_only(bench: Bench) -> None:
    bench.upgrade(osimages.RENAMED)
    shutil.rmtree(bench.machine.state(bench.id(osimages.RENAMED)))
    assert isinstance(bench.machine.reboot(), CannotFinalize)
    bench.update(osimages.RENAMED)


def test_a_failure_that_nobody_foresaw_is_told_as_it_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RecursionError("too deep")

    bench.upgrade(osimages.TURNED)
    monkeypatch.setattr(finalize, "plan_finalize", broken)
    with pytest.raises(RecursionError):
        bench.machine.shut_down()
    bench.machine.start()
    assert any("too deep" in text for text in bench.findings())


@pytest.mark.parametrize("scheme", [SYSTEMD, GRUB], ids=scheme_name)
def test_what_is_edited_after_staging_stays(
    scheme: Scheme, top: Path, made: dict[BootType, Images]
) -> None:
    bench = Bench(scheme, top, made[BootType.BLS], osimages.OLD)
    bench.upgrade(osimages.NEW)
    path = bench.machine.entries / bench.machine.menu()[0].name
    path.write_text(path.read_text().replace("options ", "options debug-mine "))
    assert bench.machine.reboot() is None
    assert bench.shown() == ["new", "old"]
    new, old = bench.machine.menu()
    assert "debug-mine" in old.options.split()
    assert "debug-mine" not in new.options.split()
