"""Why the digest of a UKI is not that of its container: the builder's tree is found again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bootc.formats.digest import Algorithm, Digest
from bootc.formats.dumpfile import write_dumpfile
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.imgref import ImageReference
from bootc.formats.tree import Directory
from bootc.formats.verity import verity_digest
from bootc.fs.dir import Dir
from bootc.oci.mismatch import Mismatch, explain_mismatch
from bootc.oci.pull import Pulled, pull
from bootc.oci.source import open_source
from bootc.oci.trees import boot_tree
from bootc.repository.repository import Repository
from support import images

UKI = "boot/EFI/Linux/os.efi"


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    (tmp_path / "sysroot").mkdir()
    with (
        Dir.open(tmp_path / "sysroot") as root,
        Repository.create(root, secure=False) as opened,
    ):
        yield opened


def pulled(repository: Repository, path: Path, *layers: bytes) -> Pulled:
    layout = images.single(path / "image", *layers)
    with open_source(ImageReference.parse(layout.reference())) as source:
        return pull(repository, source)


SYSTEM = images.bootable(
    images.file("usr/program", b"a program of the image " * 20, mtime=1700000000),
    images.file("usr/other", b"a program of the image " * 20, mtime=1700000001),
)
#: What a careless build does after it has measured the tree.
LATER = images.layer(images.file("usr/late", b"too late"), images.file("usr/program", b"changed"))


def digest_of(tree: Directory, version: int = 1) -> Digest:
    return verity_digest(mkfs_erofs(tree, version=version), Algorithm.SHA512)


def explain(repository: Repository, image: Pulled, expected: Digest) -> Mismatch:
    return explain_mismatch(
        repository, image.root, expected, uki_path=UKI, diff_ids=image.config.diff_ids
    )


@pytest.mark.parametrize("later", [1, 3])
def test_layers_that_came_after_the_measurement(
    repository: Repository, tmp_path: Path, later: int
) -> None:
    empty = images.layer(images.file("boot/note", b"nothing that is measured"))
    measured = pulled(repository, tmp_path / "a", SYSTEM).image_id
    more = (LATER, *(empty for _ in range(later - 1)))
    found = explain(repository, pulled(repository, tmp_path / "b", SYSTEM, *more), measured)
    words = "its last layer" if later == 1 else "its last 3 layers"
    assert found.text.startswith(f"the digest is that of the image without {words}; ")
    assert "entry missing: /usr/late" in found.text
    assert "content: /usr/program" in found.text or "where content is kept" in found.text
    assert found.text.endswith("build the UKI last, when nothing changes the files any more")


def zeroed(tree: Directory) -> None:
    for _, node in tree.walk():
        node.stat.mtime_s = node.stat.mtime_ns = 0


def zeroed_directories(tree: Directory) -> None:
    for _, node in tree.walk():
        if isinstance(node, Directory):
            node.stat.mtime_s = node.stat.mtime_ns = 0


@pytest.mark.parametrize(
    ("change", "name"), [(zeroed, "mtimes"), (zeroed_directories, "directory-mtimes")]
)
def test_a_known_change_of_the_tree(
    repository: Repository,
    tmp_path: Path,
    change: Callable[[Directory], None],
    name: str,
) -> None:
    image = pulled(repository, tmp_path, SYSTEM)
    measured = boot_tree(repository, image.root).copy()
    change(measured)
    for version in (1, 2):
        found = explain(repository, image, digest_of(measured, version))
        assert [made.name for made in found.changes] == [name]
        assert found.text.startswith("the digest is that of its tree after a known change; equal")


def dump(tree: Directory) -> bytes:
    return b"".join(write_dumpfile(tree))


def test_the_dumpfile_of_the_build(repository: Repository, tmp_path: Path) -> None:
    image = pulled(repository, tmp_path / "a", SYSTEM)
    measured = boot_tree(repository, image.root).copy()
    for path, node in measured.walk():
        # No constant: a change that nobody knows without the dumpfile.
        if isinstance(node, Directory):
            node.stat.mtime_s = 1600000000 + len(path)
    expected = digest_of(measured)
    assert explain(repository, image, expected) == Mismatch()
    kept = images.layer(images.file("boot/os.dump", dump(measured)))
    found = explain(repository, pulled(repository, tmp_path / "b", SYSTEM, kept), expected)
    assert found.text.startswith("the digest is that of the tree in boot/os.dump; mtime: /")
    assert [made.name for made in found.changes] == ["directory-mtimes"]
    assert [group.title for group in found.differences] == ["mtime"]


@pytest.mark.parametrize("data", [b"", b"/ 1", b"\xff" * 100, os.urandom(999)])
def test_a_dumpfile_of_something_else_counts_nothing(
    repository: Repository, tmp_path: Path, data: bytes
) -> None:
    other = images.layer(images.file("boot/os.dump", data))
    image = pulled(repository, tmp_path, SYSTEM, other)
    found = explain(repository, image, Digest.from_hex("ab" * 64))
    assert found == Mismatch()
    assert found.text.startswith("no known change of the tree explains the digest: ")


def test_a_tree_that_cannot_boot_is_no_second_error(repository: Repository, tmp_path: Path) -> None:
    image = pulled(repository, tmp_path, SYSTEM)
    del image.root.entries[b"usr"]
    assert explain(repository, image, Digest.from_hex("ab" * 64)) == Mismatch()
