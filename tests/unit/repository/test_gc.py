"""Garbage collection keeps what is needed, and does not touch files of others."""

from __future__ import annotations

import os
from pathlib import Path

from bootc.formats.digest import Digest
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.splitstream import StreamWriter
from bootc.formats.tree import Directory, External, Leaf, Stat
from bootc.repository import reachable
from bootc.repository.gc import GcReport, collect
from bootc.repository.repository import Repository
from support.collecting import NOTHING, ONE, TWO, hexes, listing
from support.stored import Store, check_registered, object_names


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
