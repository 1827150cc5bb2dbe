"""Wrong and damaged streams are set aside, and one pull after a repair heals them."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bootc.cli.render.repair import repaired_images_json, repaired_images_text
from bootc.formats import splitstream
from bootc.formats.digest import Digest, OciDigest
from bootc.oci.documents import write_documents
from bootc.oci.layoutdir import LayoutSource
from bootc.oci.pull import Pulled, pull
from bootc.oci.repair import RepairedImages, repair_images
from bootc.oci.stored import list_images, read_image
from bootc.oci.unpack import split_layer
from bootc.repository.content import objects_of
from bootc.repository.fsck import check
from bootc.repository.gc import collect
from bootc.repository.repair import repair
from bootc.repository.repository import Repository
from support.layers import (
    DIFF_IDS,
    FLIPPED,
    checked,
    damage,
    objects_in_layer,
    path_of,
    put_document,
)

WRONG_LAYER = f"oci-layer-{DIFF_IDS[1]}"


def repaired(repository: Repository) -> RepairedImages:
    return repair_images(repository, checked(repository))


def wrong_layer(repository: Repository, pulled: Pulled) -> str:
    """Store another layer under the name, and let the image's documents name it."""
    documents = read_image(repository, pulled.manifest_digest).documents
    stream = split_layer(io.BytesIO(FLIPPED), OciDigest.of(FLIPPED), repository.objects)
    repository.streams.write(WRONG_LAYER, stream)
    write_documents(repository, documents, {})
    return WRONG_LAYER


def wrong_manifest(repository: Repository, pulled: Pulled) -> str:
    """Store a manifest under the digest of another, as earlier versions did of Docker's."""
    name = f"oci-manifest-{pulled.manifest_digest}"
    stream = repository.streams.digest_of(name)
    found = read_image(repository, pulled.manifest_digest)
    refs = {f"config:{pulled.config_digest}": found.stored_config.stream}
    refs |= {d: repository.streams.digest_of(f"oci-layer-{d}") for d in DIFF_IDS}
    converted = found.documents.manifest_raw + b" "
    assert put_document(repository, name, splitstream.OCI_MANIFEST, converted, refs) != stream
    return name


def wrong_config(repository: Repository, pulled: Pulled) -> str:
    """Store a configuration under the digest of another, and let the manifest name it."""
    found = read_image(repository, pulled.manifest_digest).documents
    layers = {d: repository.streams.digest_of(f"oci-layer-{d}") for d in DIFF_IDS}
    name = f"oci-config-{pulled.config_digest}"
    config = put_document(repository, name, splitstream.OCI_CONFIG, found.config_raw + b" ", layers)
    put_document(
        repository,
        f"oci-manifest-{pulled.manifest_digest}",
        splitstream.OCI_MANIFEST,
        found.manifest_raw,
        {f"config:{pulled.config_digest}": config, **layers},
    )
    return name


def garbage_of_another_type(repository: Repository, pulled: Pulled) -> str:
    """Store a sound stream that is no manifest under the name of one."""
    name = f"oci-manifest-{pulled.manifest_digest}"
    put_document(repository, name, splitstream.OCI_CONFIG, b"{}", {})
    return name


Spoil = Callable[[Repository, Pulled], str]


WRONG: tuple[Spoil, ...] = (wrong_layer, wrong_manifest, wrong_config, garbage_of_another_type)


def test_nothing_to_repair(repository: Repository, pulled: Pulled) -> None:
    before = sorted(Path(repository.dir.path).rglob("*"))
    done = repaired(repository)
    assert repaired_images_text(done) == "nothing to repair\n"
    assert sorted(Path(repository.dir.path).rglob("*")) == before


@pytest.mark.parametrize("spoil", WRONG)
@pytest.mark.parametrize(
    "make", [Path.mkdir, Path.touch, os.mkfifo], ids=lambda make: make.__name__
)
def test_something_else_in_the_place_of_a_mark_is_in_nobodys_way(
    repository: Repository,
    source: LayoutSource,
    pulled: Pulled,
    spoil: Spoil,
    make: Callable[[Path], object],
) -> None:
    name = spoil(repository, pulled)
    mark = Path(repository.dir.path, "verified", name)
    mark.unlink(missing_ok=True)
    make(mark)
    assert repaired(repository).set_aside == (name,)
    assert pull(repository, source, tag="os").image_id == pulled.image_id
    assert checked(repository).ok


@pytest.mark.parametrize("spoil", WRONG)
@pytest.mark.parametrize("collects", [False, True], ids=["", "collected between"])
def test_what_is_wrong_is_put_aside_and_healed(
    repository: Repository, source: LayoutSource, pulled: Pulled, spoil: Spoil, collects: bool
) -> None:
    name = spoil(repository, pulled)
    assert checked(repository).repository.ok
    done = repaired(repository)
    assert done.set_aside == (name,)
    assert done.repository is None
    assert done.pull_again == ("os",)
    assert f"set aside: {name}\n" in repaired_images_text(done)
    assert repaired_images_text(done).endswith("pull again: os\n")
    assert repository.streams.find(name) is None
    assert repository.streams.find(f"wrong-{name}") is not None
    assert repository.streams.verified(name) is None
    healthy = repository.streams.find(f"oci-layer-{DIFF_IDS[0]}")
    assert healthy is not None
    if collects and spoil is not garbage_of_another_type:
        collect(repository)
        # Everything that the image had is there still: its pull fetches what was wrong.
        assert repository.streams.find(f"oci-layer-{DIFF_IDS[0]}") == healthy
    assert pull(repository, source, tag="os").image_id == pulled.image_id
    assert checked(repository).ok
    collect(repository)
    assert repository.streams.find(f"wrong-{name}") is None
    assert checked(repository).ok


def test_images_made_of_a_wrong_layer_stay(
    repository: Repository, source: LayoutSource, pulled: Pulled
) -> None:
    wrong_layer(repository, pulled)
    objects = {pulled.image_id, *objects_of(repository.objects, pulled.image_id)}
    repaired(repository)
    collect(repository, roots=[pulled.image_id.hex])
    assert repository.objects.missing(objects) == []
    assert repository.images.exists(pulled.image_id)


def test_a_tag_follows_what_it_refers_to(repository: Repository, pulled: Pulled) -> None:
    name = wrong_manifest(repository, pulled)
    repository.streams.set_ref("oci/second", name)
    repository.streams.set_ref("oci/other", f"oci-config-{pulled.config_digest}")
    done = repaired(repository)
    assert done.pull_again == ("os", "second")
    assert repository.streams.refs() == {
        "oci/os": f"wrong-{name}",
        "oci/second": f"wrong-{name}",
        "oci/other": f"oci-config-{pulled.config_digest}",
    }
    assert list(list_images(repository)) == []
    # Once more, with the same name taken.
    wrong_manifest_again = put_document(repository, name, splitstream.OCI_MANIFEST, b"{} ", {})
    done = repaired(repository)
    assert done.set_aside == (name,)
    assert repository.streams.digest_of(f"wrong-{name}.1") == wrong_manifest_again


def test_a_right_name_of_the_same_stream_stays(repository: Repository, pulled: Pulled) -> None:
    # The other tool was given a damaged layer twice, once by its own digest.
    wrong_layer(repository, pulled)
    stream = repository.streams.digest_of(WRONG_LAYER)
    right = f"oci-layer-{OciDigest.of(FLIPPED)}"
    repository.streams.write(right, repository.streams.read(WRONG_LAYER))
    assert repository.streams.digest_of(right) == stream
    assert repaired(repository).set_aside == (WRONG_LAYER,)
    assert repository.streams.find(right) == stream


def test_damage_and_wrong_content_at_once(
    repository: Repository, source: LayoutSource, pulled: Pulled
) -> None:
    wrong_manifest(repository, pulled)
    damaged = repository.objects.put(b"kernel" * 1000)
    Path(repository.dir.path, "objects", damaged.object_path).write_bytes(b"x")
    done = repaired(repository)
    assert done.repository is not None
    assert done.repository.quarantined == (damaged,)
    told = json.loads(json.dumps(repaired_images_json(done)))
    assert told["quarantined"] == [damaged.hex]
    assert told["set_aside"] == [
        f"oci-layer-{DIFF_IDS[0]}",
        f"oci-manifest-{pulled.manifest_digest}",
    ]
    assert told["pull_again"] == ["os"]
    assert pull(repository, source, tag="os").image_id == pulled.image_id
    assert checked(repository).ok


def test_what_is_untagged_is_put_aside_too(repository: Repository, pulled: Pulled) -> None:
    wrong_layer(repository, pulled)
    repository.streams.remove_ref("oci/os")
    done = repaired(repository)
    assert (done.set_aside, done.pull_again) == ((WRONG_LAYER,), ())


def heal(repository: Repository, source: LayoutSource) -> None:
    report = check(repository)
    assert not report.ok
    repair(repository, report)
    pull(repository, source, tag="os")
    assert checked(repository).ok


def test_a_damaged_file_costs_its_layer_only(
    repository: Repository, source: LayoutSource, pulled: Pulled, fetched: list[int]
) -> None:
    for digest in objects_in_layer(repository, 1):
        damage(path_of(repository, digest))
    heal(repository, source)
    assert fetched == [1]


def test_a_missing_file_costs_its_layer_only(
    repository: Repository, source: LayoutSource, pulled: Pulled, fetched: list[int]
) -> None:
    path_of(repository, objects_in_layer(repository, 2)[0]).unlink()
    heal(repository, source)
    assert fetched == [2]


def test_a_damaged_layer_stream_costs_its_layer_only(
    repository: Repository, source: LayoutSource, pulled: Pulled, fetched: list[int]
) -> None:
    name = f"oci-layer-{DIFF_IDS[0]}"
    damage(path_of(repository, repository.streams.digest_of(name)))
    heal(repository, source)
    assert fetched == [0]


def test_garbage_collection_in_between_takes_nothing_healthy(
    repository: Repository, source: LayoutSource, pulled: Pulled, fetched: list[int]
) -> None:
    bad, *healthy = objects_in_layer(repository, 1)
    assert healthy
    damage(path_of(repository, bad))
    repair(repository, check(repository))
    collect(repository)
    assert all(map(repository.objects.exists, healthy))
    pull(repository, source, tag="os")
    assert fetched == [1]
    assert checked(repository).ok
    collect(repository)
    assert checked(repository).ok


@contextmanager
def damaged(repository: Repository, digest: Digest) -> Iterator[None]:
    damage(path_of(repository, digest))
    yield
    assert path_of(repository, digest).exists()


def test_damaged_images_and_documents_cost_no_layer(
    repository: Repository, source: LayoutSource, pulled: Pulled, fetched: list[int]
) -> None:
    streams = repository.streams
    manifest = streams.digest_of(f"oci-manifest-{pulled.manifest_digest}")
    config = streams.digest_of(f"oci-config-{pulled.config_digest}")
    with (
        damaged(repository, pulled.image_id),
        damaged(repository, manifest),
        damaged(repository, config),
    ):
        heal(repository, source)
    assert fetched == []
