"""Cleaning up after commands and by ``composefs-gc``: records, messages, exit codes."""

from __future__ import annotations

import argparse
import contextlib
import errno
import logging
import os
from collections.abc import Iterator

import pytest

from bootc.cli.verbs import internals
from bootc.deploy import cleanup, upgrade
from bootc.deploy.cleanup import CleanupIncomplete
from bootc.deploy.host.session import HostSession, HostView
from bootc.deploy.plan.steps import (
    CollectObjects,
    RemoveArtifact,
    RemoveState,
)
from bootc.errors import one_line
from bootc.events import Sink
from bootc.fs import removal
from support import osimages
from support.bench import Bench
from support.machine import view_of
from support.tidying import TRIED_AGAIN, collect, counts, fail_step, kinds, left_over, tidy_counts


def test_the_record_tells_since_when(untidy: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    note = untidy.machine.physical / "state/cleanup-failures.json"
    with monkeypatch.context() as patch:
        fail_step(patch, lambda step: isinstance(step, CollectObjects | RemoveState))
        with pytest.raises(CleanupIncomplete):
            collect(untidy)
        before = (note.read_bytes(), note.stat().st_ino)
        with pytest.raises(CleanupIncomplete):
            collect(untidy)
    # Nothing is written where nothing is new.
    assert (note.read_bytes(), note.stat().st_ino) == before
    # The shutdown does not touch the repository, and tells nothing of it.
    collect(untidy, repository=False)
    (text,) = left_over(untidy)
    assert f"{TRIED_AGAIN} --prune-repo" in text
    collect(untidy)
    assert not note.exists()


def test_a_dry_run_records_nothing(untidy: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    before = untidy.machine.contents(repository=True)
    with monkeypatch.context() as patch:
        fail_step(patch, lambda step: True)
        collect(untidy, dry_run=True)
    assert untidy.machine.contents(repository=True) == before


def test_a_command_succeeds_where_its_clean_up_fails(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench.update(osimages.NEW)
    bench.upgrade(osimages.TURNED)
    with monkeypatch.context() as patch:
        fail_step(patch, lambda step: isinstance(step, RemoveState))
        said = bench.machine.command(upgrade.cancel)
    assert said == ["The staged deployment is dropped."]
    assert bench.machine.announced() is None
    turned = bench.id(osimages.TURNED)
    assert (
        f"could not remove the state of deployment {turned}: /the/thing: Input/output error"
        in caplog.text
    )
    assert "leftover" in kinds(bench)
    bench.machine.command(cleanup.collect_garbage)
    assert turned not in bench.machine.states()
    assert bench.findings() == []


def test_a_shutdown_succeeds_where_its_clean_up_fails(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench.update(osimages.NEW)
    bench.upgrade(osimages.TURNED)
    with monkeypatch.context() as patch:
        fail_step(patch, lambda step: isinstance(step, RemoveState | RemoveArtifact))
        assert bench.machine.reboot() is None
    assert bench.shown() == ["turned", "new"]
    assert "cleaning the boot partition up failed: /the/thing: Input/output error" in caplog.text
    assert set(kinds(bench)) == {"leftover"}
    bench.update(osimages.RENAMED)
    assert bench.findings() == []


def unremovable(patch: pytest.MonkeyPatch, name: str) -> None:
    """Let files of this name be on a disk that cannot forget them."""
    unlink = removal._unlink

    def failing(directory: int, entry: str) -> bool:
        if entry == name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return unlink(directory, entry)

    patch.setattr(removal, "_unlink", failing)


def test_going_back_to_what_cannot_be_removed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write("stuck", "")
    with monkeypatch.context() as patch:
        unremovable(patch, "stuck")
        bench.update(osimages.NEW)
        (bench.machine.state(bench.machine.booted_id) / "etc/stuck").unlink()
        for image in (osimages.TURNED, osimages.OLD, osimages.NEW):
            bench.update(image)
        (left,) = (name for name in bench.machine.states() if name.startswith("."))
        assert left.startswith(f".removed-{bench.id(osimages.OLD)}-")
        assert bench.shown() == ["new", "old"]
        assert kinds(bench) == ["leftover"]
        (text,) = bench.findings()
        assert f"state/deploy/{left}/etc/stuck: Input/output error" in text
    collect(bench)
    assert sorted(bench.machine.states()) == sorted(map(bench.id, (osimages.OLD, osimages.NEW)))
    assert bench.findings() == []


def test_staging_does_not_wait_for_a_removal(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an interrupted attempt left may be as stuck as it likes."""
    bench.upgrade(osimages.NEW)
    state = bench.machine.state(bench.id(osimages.NEW))
    (state / f"{state.name}.origin").unlink()
    (state / "etc/stuck").write_text("")
    bench.machine.start()
    with monkeypatch.context() as patch:
        unremovable(patch, "stuck")
        bench.update(osimages.NEW)
    assert bench.shown() == ["new", "old"]
    assert "stuck" not in bench.machine.etc(bench.id(osimages.NEW))


def run_gc(
    bench: Bench, patch: pytest.MonkeyPatch, *, no_op: bool = False
) -> tuple[str, CleanupIncomplete | None]:
    """Run the verb; return what it printed, and its error."""

    @contextlib.contextmanager
    def open_host(sink: Sink) -> Iterator[HostSession]:
        with bench.machine.open() as system:
            yield system

    @contextlib.contextmanager
    def view_host(sink: Sink, *, lock: bool) -> Iterator[HostView]:
        with bench.machine.open() as system:
            yield view_of(system)

    patch.setattr(internals, "open_host", open_host)
    patch.setattr(internals, "view_host", view_host)
    printed: list[str] = []
    context = argparse.Namespace(
        sink=lambda event: None, write=printed.append, messages_are_the_result=lambda: None
    )
    args = argparse.Namespace(dry_run=False, assert_no_op=no_op, prune_repo=True)
    failure = None
    try:
        internals.composefs_gc(args, context)  # type: ignore[arg-type]
    except CleanupIncomplete as exc:
        failure = exc
    return "".join(printed), failure


def test_composefs_gc_fails_when_all_else_is_done(
    untidy: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        failed = fail_step(patch, lambda step: isinstance(step, RemoveState) and not failed)
        printed, failure = run_gc(untidy, patch)
    assert "Objects: " in printed
    assert failure is not None
    assert failure.exit_code == 1
    assert len(untidy.machine.states()) == 3
    printed, failure = run_gc(untidy, monkeypatch)
    assert failure is None
    assert len(untidy.machine.states()) == 2


def test_what_cannot_be_looked_at_may_be_untidy(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, failure = run_gc(bench, monkeypatch, no_op=True)
    assert failure is None

    def fail(*args: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "/esp")

    with monkeypatch.context() as patch:
        patch.setattr(cleanup, "list_artifacts", fail)
        before = bench.machine.contents(repository=True)
        _, failure = run_gc(bench, patch, no_op=True)
        assert failure is not None
        assert one_line(failure) == "/esp: Input/output error"
        assert bench.machine.contents(repository=True) == before


def test_composefs_gc_cleans_what_has_nothing_to_do_with_a_damaged_image(
    untidy: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = untidy.machine.booted_id
    path = untidy.machine.physical / "composefs/objects" / image[:2] / image[2:]
    content = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(content[:-1] + b"X")
    before = counts(untidy)
    printed, failure = run_gc(untidy, monkeypatch)
    assert printed == ""
    assert failure is not None
    said = one_line(failure)
    assert image in said
    assert "is needed and cannot be read" in said
    assert "bootc internals cfs fsck --repair" in said
    assert kinds(untidy) == ["leftover"]
    path.write_bytes(content)
    found, clean = counts(untidy), tidy_counts(untidy)
    assert found[:3] == clean[:3]
    assert found[3] == before[3]


def test_an_image_that_makes_no_sense_keeps_nothing_else(
    untidy: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """As if the rollback deployment had been made by a tool that knows more."""
    with untidy.machine.open() as system:
        (other,) = (
            shown.image_id
            for shown in untidy.machine.menu()
            if shown.image_id != untidy.machine.booted_id
        )
        path = untidy.machine.physical / "composefs/objects" / other[:2] / other[2:]
        odd = path.read_bytes().replace(b"usr", b"u/r")
        stored = system.repository.images.add(odd)
        system.repository.images.set_ref("odd", stored)
    with caplog.at_level(logging.WARNING):
        found = tidy_counts(untidy)
    assert f"images/{stored}: invalid EROFS image: " in caplog.text
    assert untidy.findings() == []
    with untidy.machine.open() as system:
        (system.repository.dir).unlink("images/refs/odd")
    assert tidy_counts(untidy)[3] <= found[3] - 1
