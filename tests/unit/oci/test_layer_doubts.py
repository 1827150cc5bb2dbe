"""What only the layers of an image show: parents that nobody lists, hard links across layers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.events import null_sink
from bootc.oci.layer_doubts import LayerDoubts
from bootc.oci.trees import image_tree
from support import images
from support.images import Member, directory, file, hardlink, symlink

BIG = b"a file that is an object of its own " * 9
ROOT = (directory("usr"), directory("boot"), directory("sysroot"))


def doubts_of(path: Path, *layers: tuple[Member, ...]) -> tuple[LayerDoubts, list[str]]:
    doubts = LayerDoubts()
    layout = images.single(path, images.layer(*ROOT), *(images.layer(*one) for one in layers))
    with images.opened(layout) as source:
        root = image_tree(source, null_sink, bootable=False, doubts=doubts).whole
    return doubts, list(doubts.sentences(root))


@pytest.mark.parametrize(
    "layers",
    [
        (),
        ((directory("usr/a"), file("usr/a/b")),),
        ((directory("usr/a"),), (file("usr/a/b"),)),
        ((file("usr/.wh.nothing"), file("new/.wh.nothing")),),
        ((file("usr/x", BIG), hardlink("usr/y", "usr/x")),),
        # Both names are replaced, or both files are another.
        ((file("usr/x", BIG), hardlink("usr/y", "usr/x")), (file("usr/x", b"other" * 99),)),
        (
            (file("usr/x", BIG), hardlink("usr/y", "usr/x")),
            (file("usr/x", BIG), hardlink("usr/y", "usr/x")),
        ),
        # One name, touched.
        ((file("usr/x", BIG),), (file("usr/x", BIG, mtime=5),)),
        # Small files with equal content.
        ((file("usr/x", b"x"), hardlink("usr/y", "usr/x")), (file("usr/x", b"x"),)),
        # The copy is not there any more.
        (
            (file("usr/x", BIG), hardlink("usr/y", "usr/x")),
            (file("usr/x", BIG),),
            (file("usr/.wh.x"),),
        ),
    ],
)
def test_ordinary_layers(tmp_path: Path, layers: tuple[tuple[Member, ...], ...]) -> None:
    assert doubts_of(tmp_path, *layers)[1] == []


def test_paths_through_symlinks(tmp_path: Path) -> None:
    doubts, texts = doubts_of(
        tmp_path, (directory("usr/lib"), symlink("lib", "usr/lib")), (file("lib/x"), file("lib/y"))
    )
    assert doubts.followed == {b"lib/x": b"usr/lib/x", b"lib/y": b"usr/lib/y"}
    assert texts == [
        "the layers name files through symbolic links: /lib/x (to /usr/lib/x), /lib/y (to "
        "/usr/lib/y). Some programs replace the link with a directory, others refuse the layer; "
        "use the paths that the links lead to"
    ]


def test_a_file_replaced_through_a_symlink_is_known_by_its_own_path(tmp_path: Path) -> None:
    doubts, _ = doubts_of(
        tmp_path,
        (directory("usr/lib"), symlink("lib", "usr/lib")),
        (file("usr/lib/x", BIG), hardlink("usr/y", "usr/lib/x")),
        (file("lib/x", BIG),),
    )
    assert list(doubts._replaced) == [b"usr/lib/x"]


def test_parents_that_are_not_listed_before(tmp_path: Path) -> None:
    doubts, texts = doubts_of(
        tmp_path,
        (file("usr/a/b/c"), directory("usr/a"), file("usr/a/b/d")),
        (file("usr/n\n\udcff/x"), hardlink("usr/other/link", "usr/a/b/c")),
    )
    assert list(doubts.implicit) == [b"usr/a", b"usr/a/b", b"usr/n\n\xff", b"usr/other"]
    assert texts[0] == (
        "the layers use directories before they list them: /usr/a, /usr/a/b, /usr/n\\n\\xff and 1 "
        "more. Other programs refuse that, or give them another mode and time; list parent "
        "directories first"
    )


def test_hard_links_to_a_lower_layer(tmp_path: Path) -> None:
    layers = (file("usr/x", BIG),), (hardlink("usr/y", "usr/x"), hardlink("usr/z", "usr/y"))
    doubts, texts = doubts_of(tmp_path, *layers)
    assert list(doubts.foreign) == [b"usr/y", b"usr/z"]
    assert texts == [
        "hard links lead to files of lower layers: /usr/y, /usr/z. Container engines cannot unpack "
        "them; put both names into one layer"
    ]


def test_hard_links_that_became_copies(tmp_path: Path) -> None:
    first = (file("usr/x", BIG), hardlink("usr/y", "usr/x"), hardlink("usr/z", "usr/x"))
    _, texts = doubts_of(tmp_path, first, (file("usr/y", BIG, mtime=5),))
    assert texts == [
        "a later layer replaced hard links with copies: /usr/y (as /usr/x). A tree on a disk that "
        "still has the links gives another digest; change the file in the layer that it comes from"
    ]


def test_how_many_names_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bootc.oci.layer_doubts._MAX_NAMES", 5)

    def many() -> Iterator[Member]:
        for number in range(20):
            yield file(f"usr/d{number}/x")

    doubts, texts = doubts_of(tmp_path, tuple(many()))
    assert len(doubts.implicit) == 5
    assert "/usr/d0, /usr/d1, /usr/d2 and 2 more" in texts[0]
