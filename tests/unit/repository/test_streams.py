"""Streams and images are found by name, and their links are the reference implementation's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootc.formats.digest import Algorithm, Digest
from bootc.formats.verity import verity_digest
from bootc.repository.links import BrokenReference
from bootc.repository.repository import Repository
from support.deep import cleared, few_descriptors
from support.foreign import FOREIGN_REFS, plant_in_refs

ID = "oci-manifest-sha256:" + "ab" * 32


def test_write_and_read(repository: Repository) -> None:
    assert not repository.streams.exists(ID)
    digest = repository.streams.write(ID, b"stream")
    assert digest == verity_digest(b"stream", Algorithm.SHA512)
    assert repository.streams.exists(ID)
    assert repository.streams.digest_of(ID) == digest
    assert repository.streams.read(ID) == b"stream"
    assert repository.dir.readlink(f"streams/{ID}") == f"../objects/{digest.object_path}"


def test_writing_again_replaces_the_link(repository: Repository) -> None:
    repository.streams.write(ID, b"one")
    repository.streams.write(ID, b"two")
    assert repository.streams.read(ID) == b"two"
    assert repository.dir.names() == ["meta.json", "objects", "streams"]


def test_a_stream_without_its_object_does_not_exist(repository: Repository) -> None:
    digest = repository.streams.write(ID, b"one")
    repository.dir.unlink(f"objects/{digest.object_path}")
    assert not repository.streams.exists(ID)


def test_a_missing_stream_is_an_error(repository: Repository) -> None:
    with pytest.raises(FileNotFoundError):
        repository.streams.read(ID)


@pytest.mark.parametrize("target", ["/etc/passwd", "../meta.json", "../../etc/passwd"])
def test_a_link_elsewhere_is_not_followed(repository: Repository, target: str) -> None:
    repository.dir.mkdir("streams")
    repository.dir.symlink(target, f"streams/{ID}")
    with pytest.raises(BrokenReference, match=f"links to '{target}'"):
        repository.streams.read(ID)


@pytest.mark.parametrize("name", ["", "refs", "a/b", "..", "../x", "a\0"])
def test_names_that_cannot_be_streams(repository: Repository, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a stream"):
        repository.streams.write(name, b"")


@pytest.mark.parametrize(
    ("name", "link"),
    [("x", "../"), ("oci/x", "../../"), ("a/b/c", "../../../")],
)
def test_references(repository: Repository, name: str, link: str) -> None:
    repository.streams.write(ID, b"one")
    repository.streams.set_ref(name, ID)
    assert repository.dir.readlink(f"streams/refs/{name}") == link + ID
    assert os.stat(f"{repository.dir.path}/streams/refs/{name}").st_size == 3
    repository.streams.set_ref(name, "other")
    assert repository.streams.refs() == {name: "other"}


def test_references_by_prefix(repository: Repository) -> None:
    assert repository.streams.refs() == {}
    for name in ("oci/a", "oci/b", "mine/c/d", "e"):
        repository.streams.set_ref(name, ID)
    assert repository.streams.refs("oci") == {"oci/a": ID, "oci/b": ID}
    assert repository.streams.refs("mine") == {"mine/c/d": ID}
    assert sorted(repository.streams.refs()) == ["e", "mine/c/d", "oci/a", "oci/b"]
    assert repository.streams.refs("none") == {}


def test_a_reference_elsewhere_is_an_error(repository: Repository) -> None:
    repository.streams.set_ref("oci/a", ID)
    repository.dir.symlink("/etc/passwd", "streams/refs/oci/evil")
    with pytest.raises(BrokenReference, match=r"streams/refs/oci/evil links to '/etc/passwd'"):
        repository.streams.refs("oci")
    Path(repository.dir.path, "streams/refs/oci/evil").unlink()
    Path(repository.dir.path, "streams/refs/oci/evil").write_text("")
    with pytest.raises(BrokenReference, match=r"streams/refs/oci/evil is no link"):
        repository.streams.refs("oci")


def test_what_is_no_reference_is_passed_over(
    repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    repository.streams.set_ref("oci/a", ID)
    repository.streams.set_ref("oci/deep/b", ID)
    refs = Path(repository.dir.path, "streams/refs")
    plant_in_refs(refs / "oci")
    found = repository.streams.refs("oci", pass_over=True)
    assert found == {"oci/a": ID, "oci/deep/b": ID}
    for name in FOREIGN_REFS:
        assert f"{refs}/oci/{name}" in caplog.text
    (refs / "file").write_text("")
    (refs / "link").symlink_to("oci")
    for name in ("file", "link"):
        assert repository.streams.refs(name, pass_over=True) == {}
        assert f"{refs}/{name} is no directory: passed over" in caplog.text


def test_references_nested_deeper_than_python_calls(insecure: Repository) -> None:
    name = "/".join(["d"] * 1200)
    with cleared(Path(insecure.dir.path, "streams/refs/d")), few_descriptors():
        insecure.streams.set_ref(name, ID)
        assert insecure.streams.refs() == {name: ID}
        assert insecure.streams.refs("d/d") == {name: ID}


@pytest.mark.parametrize("name", ["", "../x", "a//b", "/x", "a/"])
def test_names_that_cannot_be_references(repository: Repository, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a reference"):
        repository.streams.set_ref(name, ID)


def test_what_a_user_calls_a_stream(repository: Repository) -> None:
    repository.streams.set_ref("a/b", ID)
    assert repository.streams.resolve("refs/a/b") == ID
    assert repository.streams.resolve(ID) == ID
    with pytest.raises(FileNotFoundError):
        repository.streams.resolve("refs/a/c")


def test_images(repository: Repository) -> None:
    assert repository.images.names() == []
    digest = repository.images.add(b"image")
    assert repository.images.add(b"image") == digest
    assert repository.images.exists(digest)
    assert not repository.images.exists(Digest(Algorithm.SHA512, bytes(64)))
    assert repository.images.names() == [digest.hex]
    assert repository.dir.readlink(f"images/{digest}") == f"../objects/{digest.object_path}"
    repository.dir.ensure_dir("images/refs").close()
    assert repository.images.names() == [digest.hex]


def test_a_damaged_image_link_is_replaced(repository: Repository) -> None:
    digest = verity_digest(b"image", Algorithm.SHA512)
    repository.dir.mkdir("images")
    repository.dir.symlink("/etc/passwd", f"images/{digest}")
    repository.images.add(b"image")
    assert repository.dir.readlink(f"images/{digest}") == f"../objects/{digest.object_path}"
