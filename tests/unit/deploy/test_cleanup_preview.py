"""What is counted before is what is removed after."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.cli.verbs.internals import planned_removal
from bootc.deploy.cleanup import Collection, preview
from bootc.deploy.plan.steps import CollectObjects, Plan, RemoveState, RemoveTag, SetTag, Step
from bootc.formats.digest import Digest
from bootc.fs.dir import Dir
from bootc.oci.names import manifest_of
from bootc.repository.gc import GcReport, collect
from bootc.repository.repository import Repository
from support.stored import Store
from support.sysroot import image_id

ONE = {"a": b"a" * 100, "b": b"b" * 5000}
TWO = {"b": b"b" * 5000, "c": b"c" * 100}


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Dir.open(tmp_path) as parent:
        Repository.create(parent, secure=False).close()
        with Repository.open(parent, require_verity=False, writable=True) as opened:
            yield opened


def test_without_a_collection_nothing_is_counted(repository: Repository) -> None:
    assert preview(Plan(after=(RemoveState(image_id("aa")),)), repository) is None


def test_tags_that_change_before_count(repository: Repository) -> None:
    store = Store()
    untagged = store.add(repository, ONE)
    store.add(repository, TWO, tag="two")
    manifest = manifest_of(untagged.manifest_id)
    assert manifest is not None
    (tag,) = repository.streams.refs()
    collection = CollectObjects((image_id("ee"),), (manifest,))
    steps = (SetTag(manifest), RemoveTag(tag), collection)
    counted = preview(Plan(after=steps), repository)
    assert list(repository.streams.refs()) == [tag]
    repository.streams.set_ref("oci/kept", untagged.manifest_id)
    repository.streams.remove_ref(tag)
    assert collect(repository) == counted
    assert counted is not None
    assert counted.objects_removed > 0


def test_images_of_deployments_are_kept(repository: Repository) -> None:
    stored = Store().add(repository, ONE)
    image = Digest.from_hex(stored.image_id)
    counted = preview(Plan(after=(CollectObjects((image,)),)), repository)
    assert counted is not None
    assert counted.images_pruned == 0


def collection(*steps: Step, counted: GcReport | None = None) -> Collection:
    return Collection(Plan(after=steps), counted)


def test_what_is_clean_passes() -> None:
    nothing = GcReport(0, 0, 0, 0, 1, ())
    assert not collection(CollectObjects(()), counted=nothing).removes_anything
    assert not collection().removes_anything


def test_what_is_not_clean_is_named() -> None:
    state = collection(RemoveState(image_id("aa")))
    assert state.removes_anything
    assert re.fullmatch(rf"remove .* {image_id('aa')}", planned_removal(state))
    objects = collection(CollectObjects(()), counted=GcReport(2, 9, 0, 1, 0, ()))
    assert objects.removes_anything
    assert planned_removal(objects) == (
        "remove 2 object(s), 0 image symlink(s), 1 stream symlink(s)"
    )
