"""Archives that engines take and composefs-rs refuses: our tree is the one umoci extracts."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from support import images
from support.images import Member, directory, file, hardlink, layer, member, symlink
from support.umoci import Shape, our_tree, shape_of_directory, shape_of_tree, umoci

pytestmark = pytest.mark.interop

BASE = (
    directory("usr"),
    directory("usr/lib"),
    file("usr/lib/a", b"a" * 100),
    symlink("lib", "usr/lib"),
)


def both(tmp_path: Path, *layers: bytes) -> tuple[Shape, Shape]:
    """Return the shapes of our tree of an image and of the one that umoci extracts."""
    layout = tmp_path / "layout"
    images.Layout(layout).image(layers, tag="os")
    umoci("unpack", "--image", f"{layout}:os", str(tmp_path / "final"))
    theirs = shape_of_directory(tmp_path / "final/rootfs")
    ours = shape_of_tree(our_tree(f"oci:{layout}:os"))
    del theirs["/"], ours["/"]
    return ours, theirs


def sized(name: str, kind: bytes, **attributes: object) -> Member:
    """An entry without a body whose header states a size."""
    info, content = member(name, kind, **attributes)
    info.size = 4096
    return info, content


def raw(*members: Member) -> bytes:
    """An archive of headers alone; ``tarfile`` would write bodies by their sizes."""
    return b"".join(info.tobuf(tarfile.PAX_FORMAT) for info, _ in members)


def test_sizes_of_entries_without_a_body(tmp_path: Path) -> None:
    odd = raw(
        sized("usr/d", tarfile.DIRTYPE, mode=0o750),
        sized("usr/s", tarfile.SYMTYPE, linkname="lib"),
        sized("usr/h", tarfile.LNKTYPE, linkname="usr/lib/a"),
        sized("usr/p", tarfile.FIFOTYPE, mode=0o600),
    )
    ours, theirs = both(tmp_path, layer(*BASE), odd + bytes(1024))
    assert ours == theirs
    assert ours["/usr/d"][0] == 0o750
    assert ours["/usr/h"][-1] == "/usr/h"


def test_the_end_is_one_zero_block(tmp_path: Path) -> None:
    ours, theirs = both(tmp_path, layer(*BASE), raw(member("usr/p", tarfile.FIFOTYPE)) + bytes(512))
    assert ours == theirs
    assert "/usr/p" in ours


def test_times_before_1970(tmp_path: Path) -> None:
    old = [file("usr/a", mtime=-5), file("usr/b", mtime=-7.25), directory("usr/c", mtime=-9)]
    ours, theirs = both(tmp_path, layer(*BASE, *old))
    # What umoci extracts is read as whole seconds, cut off towards 1970.
    assert {path: value[3] for path, value in theirs.items()} == {
        path: value[3] + (path == "/usr/b") for path, value in ours.items()
    }
    assert ours["/usr/a"][3] == -5


def test_parents_that_are_symlinks(tmp_path: Path) -> None:
    above = [
        file("lib/new", b"n" * 70),
        directory("lib/d", 0o711),
        file("lib/d/x"),
        hardlink("usr/alias", "lib/a"),
        symlink("up", "../../.."),
        file("up/usr/inside", b"i"),
        symlink("opt", "/var/opt"),
        directory("var"),
        directory("var/opt"),
        file("opt/.wh.none"),
        file("opt/x"),
    ]
    ours, theirs = both(
        tmp_path, layer(*BASE, file("usr/lib/gone")), layer(*above, file("lib/.wh.gone"))
    )
    assert ours == theirs
    assert {"/usr/lib/new", "/usr/lib/d/x", "/usr/inside", "/var/opt/x"} < ours.keys()
    assert "/usr/lib/gone" not in ours
    assert ours["/lib"][4] == b"usr/lib"
    assert ours["/usr/alias"][-1] == ours["/usr/lib/a"][-1]
