"""Garbage collection keeps what is needed, says what is odd, and touches nothing of others."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bootc.errors import Error, one_line
from bootc.events import Done, Event, Message, Start, null_sink
from bootc.formats import splitstream
from bootc.formats.digest import Algorithm, Digest
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.splitstream import StreamWriter
from bootc.formats.tree import Directory, External, Leaf, Stat
from bootc.fs.dir import Dir
from bootc.fs.lock import LockedByOther, LockedHere, lock_exclusive, lock_shared
from bootc.repository import reachable
from bootc.repository.fsck import check
from bootc.repository.gc import GcReport, UnreadableRoot, collect
from bootc.repository.repair import repair
from bootc.repository.repository import Repository
from support.children import let_go_after, lock_held
from support.deep import cleared, few_descriptors
from support.foreign import FOREIGN_REFS, plant_in_refs
from support.stored import Store, check_registered, object_names
from support.verity import FakeVerity

NOTHING = GcReport(0, 0, 0, 0, 0, ())
ONE = {"a": b"a" * 100, "b": b"b" * 5000}
TWO = {"b": b"b" * 5000, "c": b"c" * 100}


@pytest.fixture
def store() -> Store:
    return Store()


def listing(repository: Repository) -> list[str]:
    return sorted(
        os.path.relpath(os.path.join(where, name), repository.dir.path)
        for where, below, names in os.walk(repository.dir.path)
        for name in [*below, *names]
    )


def hexes(digests: frozenset[Digest]) -> set[str]:
    return {digest.hex for digest in digests}


def damage(repository: Repository, digest: Digest) -> None:
    path = f"{repository.dir.path}/objects/{digest.object_path}"
    os.truncate(path, os.stat(path).st_size - 1)
    os.setxattr(path, "user.test.verity", b"\2" + bytes(64))


# -- what stays and what goes


def test_an_empty_repository(repository: Repository) -> None:
    assert collect(repository) == NOTHING


def test_what_is_tagged_stays_and_the_rest_goes(repository: Repository, store: Store) -> None:
    one = store.add(repository, ONE, tag="one")
    two = store.add(repository, TWO)
    stray = repository.objects.put(b"stray" * 100)
    repository.objects.flush()
    gone = two.objects - one.objects | {stray}
    size = sum(repository.dir.stat(f"objects/{d.object_path}").st_size for d in gone)
    expected = GcReport(len(gone), size, 1, 3, 0, ())
    before = listing(repository)
    assert collect(repository, dry_run=True) == expected
    assert listing(repository) == before
    assert collect(repository) == expected
    assert object_names(repository) == hexes(one.objects)
    assert repository.streams.refs() == {"oci/one": one.manifest_id}
    assert repository.images.names() == [one.image_id]
    assert not repository.streams.exists(two.layer_id)
    check_registered(repository)
    assert collect(repository) == NOTHING


def test_a_dry_run_can_take_a_reference_for_removed(repository: Repository, store: Store) -> None:
    store.add(repository, ONE, tag="one")
    store.add(repository, TWO, tag="two")
    (tag,) = (name for name in repository.streams.refs() if name.endswith("two"))
    expected = collect(repository, without=[tag, "oci/no-such"], dry_run=True)
    assert tag in repository.streams.refs()
    repository.streams.remove_ref(tag)
    assert collect(repository) == expected
    assert expected.objects_removed > 0


def test_an_image_that_only_a_stream_names_is_walked(repository: Repository) -> None:
    content = repository.objects.put(b"only in the image" * 10)
    root = Directory(Stat(mode=0o755))
    root.entries[b"f"] = Leaf(Stat(mode=0o644), External(content, 170))
    image = repository.images.add(mkfs_erofs(root))
    stream = StreamWriter(repository.algorithm, b"anything")
    stream.refer("composefs.image", image)
    repository.streams.write("s", stream.finish())
    repository.streams.set_ref("keep", "s")
    assert collect(repository) == NOTHING
    # Also when its link was lost; only the link makes it an image to others.
    repository.dir.unlink(f"images/{image}")
    assert collect(repository) == NOTHING
    assert repository.objects.exists(content)


def test_roots_by_name_of_image_or_stream(repository: Repository, store: Store) -> None:
    one = store.add(repository, ONE)
    two = store.add(repository, TWO)
    collect(repository, roots=[one.image_id, two.layer_id])
    assert repository.images.names() == [one.image_id]
    with repository.dir.open_dir("streams") as streams:
        assert streams.names() == [two.layer_id]
    for data in (*ONE.values(), *TWO.values()):
        repository.objects.put(data)
    assert {repository.objects.put(data).hex for data in (*ONE.values(), *TWO.values())} | {
        one.image_id,
        repository.streams.digest_of(two.layer_id).hex,
    } == object_names(repository)


def test_references_to_images_keep_them(repository: Repository, store: Store) -> None:
    one = store.add(repository, ONE)
    repository.dir.ensure_dir("images/refs/deep").close()
    repository.dir.symlink(f"../../{one.image_id}", "images/refs/deep/name")
    collect(repository)
    assert repository.images.names() == [one.image_id]
    assert {digest.hex for digest in store.files[Digest.from_hex(one.image_id)]} | {
        one.image_id
    } == object_names(repository)


def test_an_older_manifest_keeps_what_its_own_configuration_names(
    repository: Repository, store: Store
) -> None:
    plain = store.add(repository, ONE, note="1", tag="plain")
    boot = store.add(repository, ONE, note="2", tag="boot", image_key="composefs.image.boot.v1")
    assert plain.config_id == boot.config_id
    repository.dir.unlink("streams/refs/oci/boot")
    collect(repository)
    assert object_names(repository) == hexes(plain.objects)
    assert not repository.streams.exists(plain.config_id)  # the link had gone on


def test_content_that_is_a_registered_stream_keeps_it_whole(
    repository: Repository, store: Store
) -> None:
    inner = store.add(repository, ONE)
    layer = repository.objects.read(repository.streams.digest_of(inner.layer_id))
    outer = store.add(repository, {"layer": layer}, tag="outer")
    collect(repository)
    assert repository.streams.exists(inner.layer_id)
    check_registered(repository)
    assert object_names(repository) > hexes(outer.objects)


def test_objects_without_a_name_yet_are_objects(repository: Repository) -> None:
    repository.objects.put(b"not referred to")
    assert collect(repository).objects_removed == 1
    assert object_names(repository) == set()


def test_rings_of_streams_end(repository: Repository) -> None:
    # No tool can write one; a digest would have to contain itself.
    calls = []

    def examine(raw: bytes) -> reachable.Needs:
        calls.append(raw)
        return reachable.Needs(frozenset({b"leaf"}), {b"a": "", b"b": ""})

    assert reachable.reachable([b"a"], frozenset(), examine) == {b"a", b"b", b"leaf"}
    assert sorted(calls) == [b"a", b"b"]


# -- what is not ours


def test_what_is_not_ours_is_reported_and_stays(repository: Repository, store: Store) -> None:
    one = store.add(repository, ONE, tag="one")
    base = Path(repository.dir.path)
    bucket = base / "objects" / one.image_id[:2]
    (base / "objects" / "lost+found").mkdir()
    (base / "objects" / "README").write_text("hello")
    (base / "objects" / "zz").symlink_to("/etc")
    (bucket / "UPPER").write_text("")
    (bucket / ("a" * 62)).write_text("another algorithm's")
    (bucket / ("b" * 126)).mkdir()
    (base / "streams" / "file").write_text("")
    (base / "streams" / "refs" / "file").write_text("")
    (base / "images" / "elsewhere").symlink_to("/etc/passwd")
    (base / "streams" / "refs" / "wild").symlink_to("/nowhere/at-all")
    os.symlink(b"x", os.fsencode(base / "streams") + b"/\xff")
    before = listing(repository)
    report = collect(repository, dry_run=True)
    assert collect(repository) == report
    assert listing(repository) == before
    assert (report.objects_removed, report.images_pruned, report.streams_pruned) == (0, 0, 0)
    assert len(report.warnings) == 11
    for word in ("lost+found", "README", "zz", "UPPER", "a" * 62, "b" * 126, "elsewhere", "wild"):
        assert any(word in warning for warning in report.warnings), word
    assert all(warning.endswith("left alone") for warning in report.warnings)
    # Whoever shows them escapes what is not printable.
    assert any("\udcff" in warning for warning in report.warnings)
    assert any(f"{bucket}/UPPER is no name of an object" in warning for warning in report.warnings)


def test_a_reference_of_a_strange_form_keeps_its_entry(
    repository: Repository, store: Store
) -> None:
    one = store.add(repository, ONE)
    repository.dir.ensure_dir("streams/refs").close()
    repository.dir.symlink(f"./../{one.manifest_id}", "streams/refs/strange")
    (warning,) = collect(repository).warnings
    assert "streams/refs/strange" in warning
    assert object_names(repository) == hexes(one.objects)


def test_leftovers_of_interrupted_runs_go(repository: Repository) -> None:
    base = Path(repository.dir.path)
    (base / "objects" / ".tmp-object-0123456789ab").write_bytes(b"half")
    (base / ".tmp-object-0123456789ab").write_bytes(b"half")
    (base / ".symlink-0123456789ab").symlink_to("../x")
    (base / ".symlink-file").write_text("")
    (base / "notes").write_text("mine")
    report = collect(repository, dry_run=True)
    assert collect(repository) == report
    assert report.leftovers_removed == 3
    assert report.objects_removed == 0
    assert len(report.warnings) == 1
    assert ".symlink-file" in report.warnings[0]
    assert repository.dir.names() == [".symlink-file", "meta.json", "notes", "objects"]


# -- what is broken


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


# -- locks


def test_a_second_handle_of_this_process_is_told_and_not_waited_for(
    repository: Repository, parent: Dir
) -> None:
    verity = FakeVerity(error=None if repository.secure else 95)
    with Repository.open(parent, require_verity=False, verity=verity) as second:
        with pytest.raises(LockedHere, match="open twice in this process"):
            collect(repository)
        assert collect(second, dry_run=True) == NOTHING
    assert collect(repository) == NOTHING


def test_opening_within_a_collection_is_told(repository: Repository, parent: Dir) -> None:
    with repository.alone(), pytest.raises(LockedHere):
        Repository.open(parent, require_verity=False)
    Repository.open(parent, require_verity=False, verity=FakeVerity(error=95)).close()


@pytest.fixture
def other_process(repository: Repository) -> Iterator[Callable[[], None]]:
    """Another process that uses the repository; call it to let it end."""
    with lock_held(repository.dir.path, fcntl.LOCK_SH) as other:
        yield other.let_go


@pytest.mark.usefixtures("other_process")
def test_another_process_is_not_disturbed(repository: Repository) -> None:
    repository.objects.put(b"stray")
    with pytest.raises(LockedByOther) as caught:
        collect(repository, wait=False)
    assert isinstance(caught.value, Error)
    assert collect(repository, dry_run=True).objects_removed == 1
    # The shared lock is back.
    with Dir.open(repository.dir.path) as directory, pytest.raises(LockedHere):
        lock_exclusive(directory)


def test_waiting_for_another_process_is_announced(
    repository: Repository, other_process: Callable[[], None]
) -> None:
    events: list[Event] = []

    def sink(event: Event) -> None:
        events.append(event)
        if isinstance(event, Message):
            let_go_after(0.05, other_process)

    assert collect(repository, sink=sink) == NOTHING
    assert isinstance(events[0], Message)
    assert repository.dir.path in events[0].text
    assert [type(event) for event in events[1:]] == [Start, Done, Start, Done]


def test_another_process_that_is_quick_is_waited_for_in_silence(
    repository: Repository, other_process: Callable[[], None]
) -> None:
    let_go_after(0.1, other_process)
    events: list[Event] = []
    with repository.alone(sink=events.append):
        pass
    assert events == []


def test_the_lock_is_shared_again_after_a_failure(repository: Repository) -> None:
    with pytest.raises(UnreadableRoot):
        collect(repository, roots=["typo"])
    with Dir.open(repository.dir.path) as directory:
        lock_shared(directory, wait=False)


def test_who_locks_during_the_sweep_waits(repository: Repository) -> None:
    with (
        repository.alone(),
        Dir.open(repository.dir.path) as directory,
        pytest.raises(LockedHere),
    ):
        lock_shared(directory, wait=False)
