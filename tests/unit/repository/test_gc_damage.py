"""Garbage collection in a repository with broken or unreadable parts."""

from __future__ import annotations

import errno
import itertools
import os
import struct
from pathlib import Path

import pytest

from bootc.errors import one_line
from bootc.events import null_sink
from bootc.formats import splitstream
from bootc.formats.digest import Algorithm, Digest
from bootc.formats.splitstream import StreamWriter
from bootc.fs.dir import Dir
from bootc.repository import reachable
from bootc.repository.fsck import check
from bootc.repository.gc import UnreadableRoot, collect
from bootc.repository.repair import repair
from bootc.repository.repository import Repository
from support.collecting import ONE, TWO, damage, hexes, listing
from support.deep import cleared, few_descriptors
from support.foreign import FOREIGN_REFS, plant_in_refs
from support.stored import Store, check_registered, object_names
from support.verity import FakeVerity


def test_a_reference_to_nothing_is_reported_and_pruned(
    repository: Repository, store: Store
) -> None:
    one = store.add(repository, ONE, tag="one")
    repository.streams.set_ref("oci/gone", "oci-manifest-sha256:gone")
    report = collect(repository, dry_run=True)
    assert collect(repository) == report
    assert report.warnings == (
        "streams/refs/oci/gone refers to 'oci-manifest-sha256:gone', which does not exist",
    )
    assert report.streams_pruned == 1
    assert repository.streams.refs() == {"oci/one": one.manifest_id}


def test_a_stream_whose_object_is_gone_is_reported_and_pruned(
    repository: Repository, store: Store
) -> None:
    one = store.add(repository, ONE, tag="one")
    two = store.add(repository, TWO, tag="two")
    lost = repository.streams.digest_of(two.manifest_id)
    repository.dir.unlink(f"objects/{lost.object_path}")
    report = collect(repository)
    assert report.warnings == (
        f"streams/{two.manifest_id} is referred to, and its object is missing",
    )
    assert report.streams_pruned == 4  # its tag, manifest, configuration and layer
    assert object_names(repository) == hexes(one.objects)


def test_a_lost_configuration_costs_its_image_and_not_the_layers(
    repository: Repository, store: Store
) -> None:
    one = store.add(repository, ONE, tag="one")
    config = repository.streams.digest_of(one.config_id)
    repository.dir.unlink(f"objects/{config.object_path}")
    report = collect(repository)
    assert report.warnings == (
        f"streams/{one.config_id} is referred to, and its object is missing",
    )
    assert repository.streams.exists(one.layer_id)
    assert repository.images.names() == []


@pytest.mark.parametrize("part", ["manifest_id", "config_id", "layer_id"])
def test_a_damaged_stream_that_is_needed_stops_everything(
    repository: Repository, store: Store, part: str
) -> None:
    one = store.add(repository, ONE, tag="one")
    store.add(repository, TWO)
    name = getattr(one, part)
    damage(repository, repository.streams.digest_of(name))
    before = listing(repository)
    for dry_run in (True, False):
        with pytest.raises(UnreadableRoot, match=f"streams/{name} is needed") as caught:
            collect(repository, dry_run=dry_run)
        assert "nothing was removed" in one_line(caught.value)
        assert "fsck" in str(caught.value.hint)
    assert listing(repository) == before


def test_damage_tells_nothing_of_what_was_needed(repository: Repository, store: Store) -> None:
    one = store.add(repository, ONE, tag="one")
    damage(repository, Digest.from_hex(one.image_id))
    repository.objects.put(b"stray")
    before = object_names(repository)
    with pytest.raises(UnreadableRoot, match=f"images/{one.image_id} is needed"):
        collect(repository)
    assert object_names(repository) >= before


def test_older_streams_are_streams() -> None:
    digest = Digest(Algorithm.SHA512, b"\1" * 64)
    stream = StreamWriter(Algorithm.SHA512, splitstream.OCI_LAYER)
    stream.refer("name", digest)
    new = stream.finish()
    old = struct.pack("<QQH11sBBB", 32, 112, 0, b"SplitStream", 0, 2, 12) + new[32:]
    for data in (new, old):
        needs = reachable.needs_of(data, Algorithm.SHA512)
        assert needs is not None
        assert dict(needs.named) == {digest.raw: "name"}
        assert needs.contents == frozenset()


def test_damage_that_nobody_needs_is_swept(repository: Repository, store: Store) -> None:
    one = store.add(repository, ONE, tag="one")
    two = store.add(repository, TWO)
    damage(repository, repository.streams.digest_of(two.manifest_id))
    damage(repository, Digest.from_hex(two.image_id))
    collect(repository)
    assert object_names(repository) == hexes(one.objects)


@pytest.mark.parametrize(
    "content", [b"", b"neither", b"SplitStream", bytes(1024) + b"\xe2\xe1\xf5\xe0"]
)
def test_a_needed_stream_that_is_none_stops_everything(
    repository: Repository, content: bytes
) -> None:
    repository.streams.write("s", content)
    repository.streams.set_ref("keep", "s")
    repository.objects.put(b"stray")
    with pytest.raises(UnreadableRoot, match="streams/s is needed"):
        collect(repository)
    assert len(object_names(repository)) == 2


def test_a_stream_of_another_algorithm_stops_everything(repository: Repository) -> None:
    repository.streams.write("s", StreamWriter(Algorithm.SHA256, b"anything").finish())
    repository.streams.set_ref("keep", "s")
    with pytest.raises(UnreadableRoot, match="digests are sha256"):
        collect(repository)


def test_a_needed_link_to_no_object_stops_everything(repository: Repository) -> None:
    repository.streams.set_ref("keep", "s")
    repository.dir.symlink("/etc/passwd", "streams/s")
    with pytest.raises(UnreadableRoot, match="streams/s is needed and links to no object"):
        collect(repository)


def test_a_needed_image_that_is_another_stops_everything(
    repository: Repository, store: Store
) -> None:
    one = store.add(repository, ONE)
    other = "0" * 128
    repository.dir.symlink(repository.dir.readlink(f"images/{one.image_id}"), f"images/{other}")
    with pytest.raises(UnreadableRoot, match=f"images/{other} is needed and links to another"):
        collect(repository, roots=[other])


def test_a_link_to_an_object_of_another_algorithm_stops_everything(
    repository: Repository,
) -> None:
    repository.streams.set_ref("keep", "s")
    repository.dir.symlink(f"../objects/00/{'0' * 62}", "streams/s")
    with pytest.raises(UnreadableRoot, match="streams/s is needed and is not named by sha512"):
        collect(repository)


def test_a_demanded_root_must_be_there(repository: Repository, store: Store) -> None:
    one = store.add(repository, ONE)
    before = listing(repository)
    with pytest.raises(UnreadableRoot, match="'oci-typo' is needed and is no image or stream"):
        collect(repository, roots=[one.image_id, "oci-typo"])
    assert listing(repository) == before
    repository.dir.unlink(f"objects/{Digest.from_hex(one.image_id).object_path}")
    with pytest.raises(UnreadableRoot, match=f"images/{one.image_id} is needed and its object"):
        collect(repository, roots=[one.image_id])


def test_what_is_kept_may_be_gone(repository: Repository, store: Store) -> None:
    one = store.add(repository, ONE)
    two = store.add(repository, TWO)
    repository.dir.unlink(f"objects/{Digest.from_hex(two.image_id).object_path}")
    keep = [one.image_id, two.image_id, "oci-never-was"]
    (warning,) = collect(repository, keep=keep).warnings
    assert warning.startswith(f"images/{two.image_id} is referred to")
    assert one.image_id in object_names(repository)
    assert repository.images.names() == [one.image_id]


@pytest.mark.parametrize("part", ["manifest_id", "config_id", "layer_id", "image_id"])
def test_the_hint_about_damage_leads_out(insecure: Repository, store: Store, part: str) -> None:
    one = store.add(insecure, ONE, tag="one")
    two = store.add(insecure, TWO, tag="two")
    name = getattr(two, part)
    damaged = Digest.from_hex(name) if part == "image_id" else insecure.streams.digest_of(name)
    damage(insecure, damaged)
    with pytest.raises(UnreadableRoot) as caught:
        collect(insecure, keep=[two.image_id])
    assert "bootc internals cfs fsck --repair" in one_line(caught.value)
    repair(insecure, check(insecure, null_sink), null_sink)
    collect(insecure, keep=[one.image_id, two.image_id])
    assert hexes(one.objects) <= object_names(insecure)
    assert damaged.hex not in object_names(insecure)


def test_what_the_disk_or_the_kernel_refuses_stops_everything(parent: Dir, store: Store) -> None:
    kernel = FakeVerity()
    with Repository.create(parent, secure=True, verity=kernel) as repository:
        one = store.add(repository, ONE, tag="one")
        before = listing(repository)
        kernel.error = errno.EIO
        with pytest.raises(UnreadableRoot, match=f"streams/{one.manifest_id} is needed and cannot"):
            collect(repository)
        kernel.error = errno.EACCES
        with pytest.raises(PermissionError) as caught:
            collect(repository)
        assert f"Reading streams/{one.manifest_id}" in one_line(caught.value)
        assert listing(repository) == before


def test_what_cannot_be_removed_keeps_only_what_it_leads_to(
    repository: Repository, store: Store
) -> None:
    one = store.add(repository, ONE, tag="one")
    unlink = Dir.unlink
    seen = set()
    for number in itertools.count():
        store.add(repository, TWO)
        calls = itertools.count()

        def failing_once(directory: Dir, relpath: str) -> None:
            if next(calls) == number:  # noqa: B023
                path = f"{directory.path}/{relpath}"
                raise OSError(errno.EPERM, os.strerror(errno.EPERM), path)
            unlink(directory, relpath)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Dir, "unlink", failing_once)
            report = collect(repository)
        # Every link leads to what it led to.
        check_registered(repository)
        if not report.failures:
            break
        (failure,) = report.failures
        path, _, why = failure.rpartition(":")
        assert why == " Operation not permitted"
        seen.add(Path(path).relative_to(repository.dir.path).parts[0])
        assert collect(repository).failures == ()
        assert object_names(repository) == hexes(one.objects)
    assert seen == {"streams", "images", "objects"}


def test_a_link_that_stays_and_cannot_be_read_keeps_all_objects(
    repository: Repository, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add(repository, ONE, tag="one")
    two = store.add(repository, TWO)
    damage(repository, repository.streams.digest_of(two.manifest_id))
    before = object_names(repository)
    unlink = Dir.unlink

    def refuse(directory: Dir, relpath: str) -> None:
        if two.manifest_id in relpath:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), relpath)
        unlink(directory, relpath)

    monkeypatch.setattr(Dir, "unlink", refuse)
    with pytest.raises(UnreadableRoot, match=f"streams/{two.manifest_id} is needed"):
        collect(repository)
    assert object_names(repository) == before


def test_references_nested_deeper_than_python_calls(insecure: Repository, store: Store) -> None:
    one = store.add(insecure, ONE)
    with cleared(Path(insecure.dir.path, "streams/refs/d")), few_descriptors():
        insecure.streams.set_ref("/".join(["d"] * 1200), one.manifest_id)
        assert collect(insecure).warnings == ()
        assert object_names(insecure) == hexes(one.objects)


def test_what_others_put_among_the_references(repository: Repository, store: Store) -> None:
    one = store.add(repository, ONE, tag="one")
    store.add(repository, TWO)
    for kind in ("streams", "images"):
        plant_in_refs(Path(repository.dir.path, kind, "refs", "oci"))
    report = collect(repository)
    assert len(report.warnings) == 2 * len(FOREIGN_REFS)
    assert report.failures == ()
    assert object_names(repository) == hexes(one.objects)


def test_a_directory_that_cannot_be_read_stops_everything(repository: Repository) -> None:
    repository.dir.symlink("/etc", "streams")
    repository.objects.put(b"stray")
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        collect(repository)
    assert len(object_names(repository)) == 1


def test_a_repository_open_for_reading_is_only_tried(repository: Repository, parent: Dir) -> None:
    repository.objects.put(b"stray")
    repository.objects.flush()
    repository.close()
    verity = FakeVerity(error=None if repository.secure else 95)
    with Repository.open(parent, require_verity=False, verity=verity) as reader:
        assert collect(reader, dry_run=True).objects_removed == 1
        with pytest.raises(OSError, match="reading only"):
            collect(reader)
