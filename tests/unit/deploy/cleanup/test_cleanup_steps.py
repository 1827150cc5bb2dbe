"""Cleaning up: one thing that cannot be removed keeps nothing else."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.boot import artifacts
from bootc.deploy import cleanup
from bootc.deploy.cleanup import CleanupIncomplete
from bootc.deploy.host.session import HostSession
from bootc.deploy.plan.steps import (
    CollectObjects,
    DiscardStagedMenu,
    RemoveArtifact,
    RemoveLeftover,
    RemoveState,
    RemoveTag,
)
from bootc.errors import one_line
from support import deep, osimages
from support.bench import Bench
from support.bootdirs import SYSTEMD
from support.foreign import plant_in_refs
from support.osimages import Images
from support.protection import IMMUTABLE, flags_of, set_flags, unprotect
from support.tidying import (
    TRIED_AGAIN,
    Counts,
    collect,
    counts,
    fail_step,
    kernels,
    kinds,
    left_over,
    tags,
    tidy_counts,
)


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
