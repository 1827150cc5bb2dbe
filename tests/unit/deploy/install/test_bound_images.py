from __future__ import annotations

from pathlib import Path

import pytest

from bootc.deploy.install.bound_images import check, names_in_root, names_in_tree
from bootc.deploy.install.request import BoundImages, InstallRefused
from bootc.formats.tree import Directory, Leaf, Stat, Symlink
from bootc.fs.imageroot import ImageRoot

BELOW = ("usr", "lib", "bootc", "bound-images.d")
NAMES = ["app.container", "db.image"]


def tree(*names: str) -> Directory:
    node = Directory(Stat(), {n.encode(): Leaf(Stat(), Symlink(b"x")) for n in names})
    for name in reversed(BELOW):
        node = Directory(Stat(), {name.encode(): node})
    return node


def test_the_names(tmp_path: Path) -> None:
    assert names_in_tree(tree(*NAMES)) == NAMES
    assert names_in_tree(tree()) == names_in_tree(Directory(Stat(), {})) == []
    directory = tmp_path.joinpath(*BELOW)
    with ImageRoot.open(str(tmp_path)) as root:
        assert names_in_root(root) == []
        directory.mkdir(parents=True)
        for name in NAMES:
            (directory / name).symlink_to("/etc/x")
        assert names_in_root(root) == NAMES


def test_nobody_is_refused_without_bound_images() -> None:
    for asked in (None, *BoundImages):
        assert check(asked, []) is None


def test_what_happens_is_told_or_refused() -> None:
    assert check(BoundImages.SKIP, NAMES) is None
    notice = check(None, NAMES)
    assert notice is not None
    assert "not installed: app.container, db.image" in notice
    for asked in (BoundImages.STORED, BoundImages.PULL):
        with pytest.raises(InstallRefused, match=f"--bound-images {asked} .*app.container"):
            check(asked, NAMES)
