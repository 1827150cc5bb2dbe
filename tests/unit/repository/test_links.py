"""Links are computed and parsed, and nothing unexpected is taken for one."""

from __future__ import annotations

import pytest

from bootc.formats.digest import Algorithm, Digest
from bootc.repository import links

DIGEST = Digest(Algorithm.SHA512, bytes(range(64)))


def test_object_links() -> None:
    target = f"../objects/00/{DIGEST.hex[2:]}"
    assert links.parse_object_link(target, "x") == DIGEST


@pytest.mark.parametrize(
    "target",
    [
        "",
        "../objects/",
        f"../objects/0/{DIGEST.hex[1:]}",
        f"../objects/{DIGEST.hex}",
        f"objects/00/{DIGEST.hex[2:]}",
        f"../objects/00/{DIGEST.hex[2:]}/x",
        f"../objects/00/{DIGEST.hex[2:]}0",
        f"../../objects/00/{DIGEST.hex[2:]}",
        f"/objects/00/{DIGEST.hex[2:]}",
        "../objects/00/" + "Z" * 126,
    ],
)
def test_other_links_are_broken(target: str) -> None:
    with pytest.raises(links.BrokenReference, match="streams/x links to"):
        links.parse_object_link(target, "streams/x")


@pytest.mark.parametrize(
    ("name", "target"),
    [("x", "../e"), ("oci/x", "../../e"), ("a/b/c", "../../../e")],
)
def test_references_climb_back(name: str, target: str) -> None:
    assert links.ref_target(name, "e") == target
    assert links.parse_ref_target(name, target, "w") == "e"


@pytest.mark.parametrize("target", ["../e", "../../..", "../../refs", "../../", "/e", "../../a/e"])
def test_references_to_elsewhere_are_broken(target: str) -> None:
    with pytest.raises(links.BrokenReference):
        links.parse_ref_target("oci/x", target, "w")


@pytest.mark.parametrize(
    ("tag", "encoded"),
    [
        ("latest", "latest"),
        ("docker://a/b:1", "docker:%2F%2Fa%2Fb:1"),
        ("100%", "100%25"),
        ("%2F/%25", "%252F%2F%2525"),
    ],
)
def test_tags_become_one_component_and_back(tag: str, encoded: str) -> None:
    assert links.encode_tag(tag) == encoded
    assert links.decode_tag(encoded) == tag


def test_names() -> None:
    assert links.is_entry_name("oci-layer-sha256:ab")
    assert not any(map(links.is_entry_name, ["", ".", "..", "refs", "a/b", "a\0"]))
    assert links.is_ref_name("oci/a")
    assert not any(map(links.is_ref_name, ["", "/a", "a/", "a//b", "../a", "a/.", "a\0"]))


@pytest.mark.parametrize("name", ["a", "a/b", "refs/a", "é", "a" * 255])
def test_names_that_users_give(name: str) -> None:
    assert links.new_ref_name(name, "a stream") == name.removeprefix("refs/")


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "a/../b", "/a", "a//b", "a/", "a\0b"),
        *("refs", "refs/", "refs/refs/a", "refs/refs"),
        *("a\nb", "a\x1b[2J", "a\u202eb", "a\x7f", "a\udcff"),
        *("a" * 256, "é" * 128, "a/" * 2000 + "a"),
    ],
)
def test_names_that_users_cannot_give(name: str) -> None:
    with pytest.raises(links.BadName) as caught:
        links.new_ref_name(name, "a stream")
    assert caught.value.message.isprintable()
    assert "cannot name a stream" in caught.value.message
