"""Cleaning up: one thing that cannot be removed keeps nothing else, and is told of.

Real commands on directories; the machine around them is made up.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bootc.boot import artifacts
from bootc.cli.verbs import internals
from bootc.deploy import cleanup, execute, finalize, upgrade
from bootc.deploy.cleanup import CleanupIncomplete
from bootc.deploy.host.session import HostSession, HostView
from bootc.deploy.plan.steps import (
    CollectObjects,
    DiscardStagedMenu,
    RemoveArtifact,
    RemoveLeftover,
    RemoveState,
    RemoveTag,
    Step,
)
from bootc.errors import one_line
from bootc.events import Sink
from bootc.formats.origin import BootType
from bootc.fs import removal
from support import deep, osimages
from support.bench import Bench
from support.bootdirs import SYSTEMD
from support.foreign import plant_in_refs
from support.machine import view_of
from support.osimages import Images
from support.protection import IMMUTABLE, flags_of, set_flags, unprotect
from support.stored import IN_MEMORY

TRIED_AGAIN = "bootc internals composefs-gc"


@pytest.fixture(scope="module")
def images() -> Iterator[Images]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        yield Images(Path(path), BootType.BLS)


@pytest.fixture
def bench(tmp_path: Path, images: Images) -> Iterator[Bench]:
    """Return a machine that runs OLD."""
    yield Bench(SYSTEMD, tmp_path, images, osimages.OLD)
    unprotect(tmp_path)


@pytest.fixture
def untidy(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Return a machine that runs RENAMED, and where nothing was ever cleaned up.

    The power failed when OLD was staged for the second time.
    """
    with monkeypatch.context() as patch:
        patch.setattr(upgrade, "collect_afterwards", lambda *args: None)
        patch.setattr(finalize, "clean_up", lambda *args, **more: None)
        for image in (osimages.NEW, osimages.TURNED, osimages.RENAMED):
            bench.update(image)
        bench.upgrade(osimages.OLD)
    bench.machine.start()
    return bench


def collect(bench: Bench, **more: Any) -> None:
    bench.machine.command(lambda system, sink: cleanup.collect_garbage(system, sink, **more))


def objects(bench: Bench) -> int:
    return len(list((bench.machine.physical / "composefs/objects").glob("*/*")))


def tags(bench: Bench) -> int:
    return len(os.listdir(bench.machine.physical / "composefs/streams/refs/oci"))


def kernels(bench: Bench) -> int:
    return len(list((bench.machine.esp / "EFI/Linux").glob("bootc_composefs-*")))


def kinds(bench: Bench) -> list[str]:
    findings = bench.machine.status()["status"].get("findings", [])
    return [finding["kind"] for finding in findings]


def left_over(bench: Bench) -> list[str]:
    """Return what status says of things that could not be removed."""
    findings = bench.machine.status()["status"].get("findings", [])
    return [finding["text"] for finding in findings if finding["kind"] == "leftover"]


#: How many states, kernels, tags and objects there are, and whether there is a staged menu.
Counts = tuple[int, int, int, int, bool]


def counts(bench: Bench) -> Counts:
    staged = (bench.machine.esp / "loader/entries.staged").exists()
    return len(bench.machine.states()), kernels(bench), tags(bench), objects(bench), staged


def tidy_counts(bench: Bench) -> Counts:
    collect(bench)
    return counts(bench)


# -- what people protect


@pytest.mark.root
@pytest.mark.parametrize("path", ["etc/resolv.conf", "etc", "etc/x", ""])
def test_what_chattr_protects_costs_nothing(tmp_path: Path, images: Images, path: str) -> None:
    found = []
    for name in ("plain", "protected"):
        (tmp_path / name).mkdir()
        bench = Bench(SYSTEMD, tmp_path / name, images, osimages.OLD)
        machine = bench.machine
        bench.write("resolv.conf", "nameserver 192.0.2.1\n")
        first = machine.state(machine.booted_id) / path
        if name == "protected":
            set_flags(first, IMMUTABLE)
        for image in (osimages.NEW, osimages.RENAMED):
            bench.update(image)
            found.append((name, image.tag, counts(bench), bench.findings()))
            if name == "protected" and path:
                here = machine.state(machine.booted_id) / path
                assert flags_of(here) == IMMUTABLE
        # Back to where it began, of which nothing is left.
        bench.update(osimages.OLD)
        assert machine.etc(machine.booted_id)["resolv.conf"] == "nameserver 192.0.2.1\n"
        unprotect(tmp_path)
    assert [row[1:] for row in found[:2]] == [row[1:] for row in found[2:]]


def test_directories_may_be_nested_as_they_like(images: Images) -> None:
    with deep.directory() as path:
        bench = Bench(SYSTEMD, path, images, osimages.OLD)
        deep.make_deep(bench.machine.state(bench.machine.booted_id) / "etc", 1300)
        with deep.few_descriptors(200):
            for image in (osimages.NEW, osimages.RENAMED):
                bench.update(image)
        assert deep.depth_of(bench.machine.state(bench.machine.booted_id) / "etc") == 1300
        assert (len(bench.machine.states()), bench.findings()) == (2, [])


# -- one step that fails


def fail_step(patch: pytest.MonkeyPatch, fails: Callable[[Step], bool]) -> list[Step]:
    """Let some steps of plans fail; return the list that those are added to."""
    failed: list[Step] = []
    carry_out = execute._carry_out

    def failing(step: Step, *args: Any) -> None:
        if fails(step):
            failed.append(step)
            raise OSError(errno.EIO, os.strerror(errno.EIO), "/the/thing")
        carry_out(step, *args)

    patch.setattr(execute, "_carry_out", failing)
    return failed


@pytest.mark.parametrize(
    ("kind", "left"),
    [
        (DiscardStagedMenu, (0, 0, 0, 0, True)),
        (RemoveArtifact, (0, 1, 0, 0, False)),
        (RemoveState, (1, 0, 0, 0, False)),
        (RemoveLeftover, (1, 0, 0, 0, False)),
    ],
)
def test_a_step_that_fails_keeps_no_other(
    untidy: Bench, kind: type, left: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        once = iter([True])
        failed = fail_step(patch, lambda step: isinstance(step, kind) and next(once, False))
        with pytest.raises(CleanupIncomplete) as caught:
            collect(untidy)
    assert len(failed) == 1
    assert one_line(caught.value) == "/the/thing: Input/output error"
    found = counts(untidy)
    (text,) = left_over(untidy)
    assert text.startswith(f"/the/thing: Input/output error ({TRIED_AGAIN} tries again, ")
    clean = tidy_counts(untidy)
    assert found[:4] == tuple(a + b for a, b in zip(clean[:4], left[:4], strict=True))
    assert found[4] is left[4]
    assert untidy.findings() == []


def test_a_tag_that_stays_keeps_its_own_image_only(
    untidy: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = counts(untidy)
    with monkeypatch.context() as patch:
        failed = fail_step(patch, lambda step: isinstance(step, RemoveTag) and not failed)
        with pytest.raises(CleanupIncomplete):
            collect(untidy)
    (text,) = left_over(untidy)
    assert f"{TRIED_AGAIN} --prune-repo" in text
    found, clean = counts(untidy), tidy_counts(untidy)
    assert found[:3] == (clean[0], clean[1], clean[2] + 1)
    assert clean[3] < found[3] < before[3]


def test_a_repository_that_cannot_be_collected_keeps_nothing_else(
    untidy: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = counts(untidy)
    with monkeypatch.context() as patch:
        fail_step(patch, lambda step: isinstance(step, CollectObjects))
        with pytest.raises(CleanupIncomplete):
            collect(untidy)
    found, clean = counts(untidy), tidy_counts(untidy)
    assert found[:3] == clean[:3]
    assert found[3] == before[3]


@pytest.mark.parametrize("what", ["list_artifacts", "lost_kernels"])
def test_kernels_that_cannot_be_listed_stay_and_keep_nothing_else(
    untidy: Bench, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "/esp")

    before = counts(untidy)
    with monkeypatch.context() as patch:
        patch.setattr(cleanup, what, fail)
        with pytest.raises(CleanupIncomplete, match=r"^/esp: Input/output error$|Errno 5"):
            collect(untidy)
    found, clean = counts(untidy), tidy_counts(untidy)
    assert found[1] == before[1]
    assert (found[0], *found[2:]) == (clean[0], *clean[2:])


def test_a_kernel_whose_size_is_not_known_is_removed(
    untidy: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object) -> Iterator[os.stat_result]:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "/esp/x")

    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "files_below", fail)
        collect(untidy)
    found = counts(untidy)
    assert "the size of a kernel is unknown: /esp/x" in caplog.text
    assert found == tidy_counts(untidy)


def test_tags_that_cannot_be_read_keep_nothing_else(
    untidy: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(system: HostSession) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "/refs")

    with monkeypatch.context() as patch:
        patch.setattr(cleanup, "_tags", fail)
        with pytest.raises(CleanupIncomplete):
            collect(untidy)
    found, clean = counts(untidy), tidy_counts(untidy)
    assert found[:2] == clean[:2]


def test_everything_may_fail_at_once(untidy: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    before = counts(untidy)
    with monkeypatch.context() as patch:
        failed = fail_step(patch, lambda step: True)
        with pytest.raises(CleanupIncomplete) as caught:
            collect(untidy)
    assert counts(untidy) == before
    assert one_line(caught.value).endswith(f"; and {len(failed) - 3} more, see bootc status")
    assert len(left_over(untidy)) == len(failed)


# -- what is on record


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


# -- commands that clean up afterwards


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


# -- what others put in the way


@pytest.mark.parametrize("kind", ["file", "link", "loop"])
def test_something_has_the_place_of_a_deployment(bench: Bench, kind: str) -> None:
    place = bench.machine.state(bench.id(osimages.NEW))
    if kind == "file":
        place.write_text("no directory")
    else:
        place.symlink_to("." if kind == "loop" else "/nowhere")
    bench.update(osimages.NEW)
    assert bench.shown() == ["new", "old"]
    assert len(bench.machine.states()) == 2
    assert bench.findings() == []


def test_foreign_references_keep_nothing(untidy: Bench) -> None:
    refs = untidy.machine.physical / "composefs/streams/refs"
    plant_in_refs(refs / "oci")
    planted = len(os.listdir(refs / "oci")) - tags(untidy)
    clean = tidy_counts(untidy)
    assert untidy.findings() == []
    assert clean[0] == 2
    assert planted == 0
    untidy.update(osimages.OLD)
    assert untidy.shown() == ["old", "renamed"]


def test_references_that_are_no_directory_hinder_nothing(
    untidy: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    refs = untidy.machine.physical / "composefs/streams/refs"
    (refs / "oci").rename(refs / "elsewhere")
    (refs / "oci").write_text("a file")
    collect(untidy)
    assert "streams/refs/oci is not a directory: moved to quarantine/oci" in caplog.text
    assert (refs.parent.parent / "quarantine/oci").read_text() == "a file"
    assert len(untidy.machine.states()) == 2
    assert kernels(untidy) == 2
    # Nothing that deployments need has gone with the tags that were gone.
    for shown in untidy.machine.menu():
        untidy.machine.check_bootable(shown)
    assert kinds(untidy) == []


# -- composefs-gc


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
