"""The C tools on a repository of ours: its objects are what their images ask for, and theirs ours.

They know SHA-256 only, and of a repository only ``objects/``: a directory that ``basedir`` and
``--digest-store`` name.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.formats.digest import Algorithm, Digest
from bootc.formats.dumpfile import parse_dumpfile
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.libcomposefs.tree import Omissions, as_scanned
from bootc.formats.tree import Directory
from bootc.fs.dir import Dir
from bootc.fs.tree_read import read_tree
from bootc.repository.content import objects_of
from bootc.repository.fsck import check
from bootc.repository.gc import collect
from bootc.repository.repository import Repository
from bootc.repository.sink import DigestOnly
from support import require
from support.ctools import c_tool
from support.stored import object_names
from support.trees import text_of
from support.verity import FakeVerity

pytestmark = pytest.mark.interop

#: Contents that are objects.
CONTENTS = {"usr/one": b"1" * 65, "usr/large": bytes(range(256)) * 2000, "usr/twice": b"1" * 65}


def run(tool: str, *arguments: str | Path) -> str:
    argv = [*c_tool(tool), *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory of everything a user may make."""
    source = tmp_path / "source"
    (source / "usr/empty").mkdir(parents=True)
    for name, content in CONTENTS.items():
        (source / name).write_bytes(content)
    (source / "usr/small").write_bytes(b"small")
    (source / "usr/nothing").touch()
    (source / "usr/one").chmod(0o4711)
    (source / "usr/link").symlink_to("small")
    os.link(source / "usr/large", source / "hardlink")
    os.mkfifo(source / "fifo")
    os.setxattr(source / "usr/large", "user.note", b"kept")
    for path in (*source.rglob("*"), source):
        os.utime(path, ns=(1, 1_700_000_000_123_456_789), follow_symlinks=False)
    return source


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with (
        Dir.open(tmp_path) as parent,
        Repository.create(
            parent, algorithm=Algorithm.SHA256, secure=False, verity=FakeVerity(error=95)
        ) as repository,
    ):
        yield repository


@pytest.fixture
def tree(repository: Repository, source: Path) -> Directory:
    with Dir.open(source) as top:
        return read_tree(top, repository.objects)


@pytest.fixture
def image(repository: Repository, tree: Directory) -> Digest:
    return repository.images.add(mkfs_erofs(tree))


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    return tmp_path / "composefs/objects"


@pytest.fixture
def image_path(tmp_path: Path, image: Digest) -> Path:
    return tmp_path / "composefs/images" / image.hex


def missing(objects: Path, image: Path) -> list[str]:
    return run("composefs-info", f"--basedir={objects}", "missing-objects", image).split()


def test_no_object_is_missing(
    repository: Repository, image: Digest, objects: Path, image_path: Path
) -> None:
    assert missing(objects, image_path) == []
    needed = sorted(digest.object_path for digest in objects_of(repository.objects, image))
    assert run("composefs-info", "objects", image_path).split() == needed
    assert len(needed) == 2
    (objects / needed[0]).unlink()
    assert missing(objects, image_path) == [needed[0]]


def test_objects_are_named_as_c_measures_them(image: Digest, objects: Path) -> None:
    paths = sorted(path for path in objects.rglob("*") if path.is_file())
    names = ["".join(path.relative_to(objects).parts) for path in paths]
    assert image.hex in names
    assert run("composefs-info", "measure-file", *paths).split() == names


def test_c_makes_the_same_image_and_the_same_objects(
    repository: Repository, source: Path, tree: Directory, tmp_path: Path
) -> None:
    theirs, store = tmp_path / "theirs", tmp_path / "store"
    run("mkcomposefs", "--min-version=1", f"--digest-store={store}", source, theirs)
    # C sees no hard links in a directory.
    as_scanned(tree, Omissions())
    image = repository.images.add(mkfs_erofs(tree))
    assert theirs.read_bytes() == repository.objects.read(image)
    stored = {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file()
    }
    ours = objects_of(repository.objects, image)
    assert stored == {digest.object_path: repository.objects.read(digest) for digest in ours}


def test_c_reads_the_tree_from_our_image(tree: Directory, image_path: Path) -> None:
    dump = run("composefs-info", "dump", image_path).encode()
    assert text_of(parse_dumpfile(dump.splitlines(keepends=True))) == text_of(tree)


def test_what_c_stores_is_ours(
    repository: Repository, source: Path, objects: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    run("mkcomposefs", f"--digest-store={objects}", source, theirs)
    found = object_names(repository)
    assert len(found) == 2
    image = repository.images.add(theirs.read_bytes())
    assert {digest.hex for digest in objects_of(repository.objects, image)} == found
    assert check(repository).findings == ()
    # Storing the same again finds it there.
    before = {path: path.stat().st_ino for path in objects.rglob("*")}
    with Dir.open(source) as top:
        read_tree(top, repository.objects)
    repository.objects.flush()
    assert {path: path.stat().st_ino for path in objects.rglob("*")} == before
    # And nobody having a reference to it, it goes.
    assert collect(repository).objects_removed == 3
    assert object_names(repository) == set()


@pytest.fixture
def mounted(image_path: Path, objects: Path, tmp_path: Path) -> Iterator[Path]:
    require.root()
    point = tmp_path / "mounted"
    point.mkdir()
    # Where the chroot has it: beside bin.
    run("../sbin/mount.composefs", "-o", f"ro,basedir={objects}", image_path, point)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)


def test_c_mounts_our_repository(mounted: Path, tree: Directory) -> None:
    with Dir.open(mounted) as top:
        assert text_of(read_tree(top, DigestOnly(Algorithm.SHA256))) == text_of(tree)
    for name, content in CONTENTS.items():
        assert (mounted / name).read_bytes() == content
