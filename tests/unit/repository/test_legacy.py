"""Repositories without meta.json: their objects tell what they are, callers what they must be."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from bootc.formats.digest import Algorithm
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.tree import Directory, Inline, Leaf, Stat
from bootc.fs.dir import Dir
from bootc.fs.lock import LockedByOther, LockedHere
from bootc.repository.legacy import (
    InitOutcome,
    ensure,
    infer,
    needs_upgrade,
    reset_metadata,
    upgrade,
)
from bootc.repository.metadata import ErofsFormats, Metadata
from bootc.repository.repository import (
    NotARepository,
    Repository,
    RepositoryExists,
    write_metadata,
)
from bootc.repository.sealing import VerityMissing
from support.verity import FakeVerity

SHA512, SHA256 = Algorithm.SHA512, Algorithm.SHA256
CONTENTS = [b"%d" % number for number in range(20)]


def old_repository(parent: Dir, *, sealed: bool, algorithm: Algorithm = SHA512) -> FakeVerity:
    """Make a repository as it was before meta.json; return a kernel that has fs-verity."""
    kernel = FakeVerity()
    tool = kernel if sealed else FakeVerity(error=errno.EOPNOTSUPP)
    with Repository.create(parent, algorithm=algorithm, secure=False, verity=tool) as repository:
        for data in CONTENTS:
            repository.objects.put(data)
        repository.streams.write("x", b"stream")
    os.unlink(f"{parent.path}/composefs/meta.json")
    return kernel


@pytest.mark.parametrize("secure", [True, False])
def test_nothing_is_created(parent: Dir, secure: bool) -> None:
    repository, outcome = ensure(parent, secure=secure, verity=FakeVerity())
    with repository:
        assert outcome is InitOutcome.CREATED
        assert repository.secure is secure
        assert repository.metadata == Metadata()
    Path(parent.path, "composefs/meta.json").unlink()
    Path(parent.path, "composefs/objects").rmdir()
    repository, outcome = ensure(parent, secure=secure, verity=FakeVerity())
    repository.close()
    assert outcome is InitOutcome.CREATED


def test_what_is_there_is_opened_whatever_format_it_has(parent: Dir) -> None:
    metadata = Metadata(erofs_formats=ErofsFormats(0))
    Path(parent.path, "composefs").mkdir()
    Path(parent.path, "composefs/meta.json").write_bytes(metadata.to_bytes())
    repository, outcome = ensure(parent, secure=False)
    with repository:
        assert outcome is InitOutcome.OPENED
        assert repository.metadata == metadata


@pytest.mark.parametrize("algorithm", [SHA512, SHA256])
@pytest.mark.parametrize("sealed", [True, False])
def test_an_old_repository_is_what_its_objects_are(
    parent: Dir, sealed: bool, algorithm: Algorithm
) -> None:
    kernel = old_repository(parent, sealed=sealed, algorithm=algorithm)
    repository, outcome = ensure(parent, algorithm=algorithm, secure=False, verity=kernel)
    with repository:
        assert outcome is InitOutcome.UPGRADED
        assert repository.secure is sealed
        assert repository.algorithm is algorithm
        assert repository.streams.read("x") == b"stream"
        assert repository.metadata.effective_erofs_formats() == ErofsFormats(2)
        written = json.loads(repository.dir.read_bytes("meta.json"))
    assert written["features"]["read-only-compatible"] == []
    assert written["erofs_formats"] == {"default": 2}
    repository, outcome = ensure(parent, algorithm=algorithm, secure=False, verity=kernel)
    repository.close()
    assert outcome is InitOutcome.OPENED


def test_objects_without_verity_are_no_secure_repository(parent: Dir) -> None:
    kernel = old_repository(parent, sealed=False)
    with pytest.raises(VerityMissing, match=r"the objects of .* have no fs-verity"):
        ensure(parent, secure=True, verity=kernel)
    assert not Path(parent.path, "composefs/meta.json").exists()


@pytest.mark.parametrize("secure", [True, False])
def test_some_objects_with_verity_are_enough_only_for_those_who_demand_it(
    parent: Dir, secure: bool
) -> None:
    kernel = old_repository(parent, sealed=True)
    objects = Path(parent.path, "composefs/objects")
    some = min(path for path in objects.rglob("*") if path.is_file())
    content = some.read_bytes()
    some.unlink()
    some.write_bytes(content)
    repository, _ = ensure(parent, secure=secure, verity=kernel)
    with repository:
        assert repository.secure is secure


def test_another_algorithm_than_the_callers_is_refused(parent: Dir) -> None:
    kernel = old_repository(parent, sealed=True, algorithm=SHA256)
    message = "names objects by fsverity-sha256-12 and not fsverity-sha512-12"
    with pytest.raises(RepositoryExists, match=message):
        ensure(parent, secure=True, verity=kernel)
    ensure(parent, algorithm=SHA256, secure=True, verity=kernel)[0].close()
    with pytest.raises(RepositoryExists, match=message):
        ensure(parent, secure=True, verity=kernel)


@pytest.mark.parametrize("mixed", [True, False])
def test_objects_that_tell_nothing_are_left_alone(parent: Dir, mixed: bool) -> None:
    objects = Path(parent.path, "composefs/objects")
    (objects / "00").mkdir(parents=True)
    (objects / "00/short").write_bytes(b"")
    (objects / "00" / ("0" * 62)).mkdir()
    (objects / "01").write_bytes(b"")
    (objects / "README").write_bytes(b"")
    (objects / "02").symlink_to("/usr")
    if mixed:
        for bucket, length in (("03", 62), ("04", 126)):
            (objects / bucket).mkdir()
            (objects / bucket / ("0" * length)).write_bytes(b"")
    with pytest.raises(NotARepository, match="its objects do not tell what it is"):
        ensure(parent, secure=False)
    assert not (objects.parent / "meta.json").exists()


def test_a_new_beginning_keeps_the_objects(parent: Dir) -> None:
    kernel = FakeVerity()
    with Repository.create(parent, secure=True, verity=kernel) as repository:
        digests = [repository.objects.put(data) for data in CONTENTS]
        repository.streams.write("x", b"stream")
        repository.streams.set_ref("r", "x")
        repository.images.add(b"image")
    with reset_metadata(parent, secure=True, verity=kernel) as repository:
        assert repository.dir.names() == ["meta.json", "objects"]
        assert [repository.objects.read(digest) for digest in digests] == CONTENTS


def test_a_new_beginning_makes_an_old_repository_one_of_today(parent: Dir) -> None:
    kernel = old_repository(parent, sealed=True)
    with reset_metadata(parent, secure=True, verity=kernel) as repository:
        assert repository.metadata == Metadata()
        assert repository.secure


def test_a_new_beginning_is_refused(parent: Dir) -> None:
    with pytest.raises(NotARepository):
        reset_metadata(parent, secure=False)
    kernel = old_repository(parent, sealed=True)
    with pytest.raises(RepositoryExists):
        reset_metadata(parent, algorithm=SHA256, secure=False, verity=kernel)
    repository, _ = ensure(parent, secure=True, verity=kernel)
    with repository:
        before = repository.dir.names()
        with pytest.raises((LockedByOther, LockedHere)):
            reset_metadata(parent, secure=True, verity=kernel)
        assert repository.dir.names() == before


@pytest.mark.parametrize("algorithm", Algorithm)
def test_the_algorithm_is_what_objects_are_named_by(parent: Dir, algorithm: Algorithm) -> None:
    assert not needs_upgrade(parent)
    kernel = old_repository(parent, sealed=False, algorithm=algorithm)
    assert needs_upgrade(parent)
    repository, outcome = ensure(parent, algorithm=None, secure=False, verity=kernel)
    with repository:
        assert (outcome, repository.algorithm) == (InitOutcome.UPGRADED, algorithm)
    assert not needs_upgrade(parent)
    repository, outcome = ensure(parent, algorithm=None, secure=False, verity=kernel)
    with repository:
        assert (outcome, repository.algorithm) == (InitOutcome.OPENED, algorithm)


def test_a_new_repository_of_no_algorithm(parent: Dir) -> None:
    repository, outcome = ensure(parent, algorithm=None, secure=False)
    with repository:
        assert (outcome, repository.algorithm) == (InitOutcome.CREATED, SHA512)


def test_an_upgrade_alone(parent: Dir) -> None:
    kernel = old_repository(parent, sealed=True)
    with pytest.raises(RepositoryExists, match="fsverity-sha512-12 and not fsverity-sha256-12"):
        upgrade(parent, algorithm=SHA256, secure=True, verity=kernel)
    assert needs_upgrade(parent)
    upgrade(parent, secure=False, verity=kernel)
    with Repository.open(parent, require_verity=True, verity=kernel) as repository:
        assert repository.algorithm is SHA512


@pytest.mark.parametrize(
    ("versions", "formats"),
    [
        ((), ErofsFormats(2)),
        ((1,), ErofsFormats(1)),
        ((2,), ErofsFormats(2)),
        ((0,), ErofsFormats(0)),
        ((0, 1), ErofsFormats(1)),
        ((0, 2), ErofsFormats(2)),
        ((2, 1), ErofsFormats(1, (2,))),
    ],
)
def test_the_format_is_that_of_the_images_that_are_there(
    parent: Dir, versions: tuple[int, ...], formats: ErofsFormats
) -> None:
    kernel = old_repository(parent, sealed=True)
    with parent.open_dir("composefs") as directory:
        write_metadata(directory, Metadata(), secure=True, verity=kernel)
    with Repository.open(parent, require_verity=True, writable=True, verity=kernel) as repository:
        for version in versions:
            tree = Directory(Stat(0o755), {b"f": Leaf(Stat(0o644), Inline(b"x"))})
            repository.images.add(mkfs_erofs(tree, version=version))
        # What is damaged tells nothing.
        repository.images.add(b"no image")
    images = Path(parent.path, "composefs/images")
    (images / "outside").symlink_to("/etc/passwd")
    (images / "missing").symlink_to(f"../objects/ab/{'0' * 126}")
    (images / "file").write_bytes(b"")
    Path(parent.path, "composefs/meta.json").unlink()
    with parent.open_dir("composefs") as directory:
        metadata, secure = infer(directory, verity=kernel)
    assert metadata.effective_erofs_formats() == formats
    assert secure
    repository, outcome = ensure(parent, secure=True, verity=kernel)
    with repository:
        assert (outcome, repository.metadata) == (InitOutcome.UPGRADED, metadata)
    if formats == ErofsFormats(1):
        assert metadata == Metadata()


def test_who_reads_takes_it_for_what_its_objects_say(parent: Dir) -> None:
    kernel = old_repository(parent, sealed=True)
    before = sorted(Path(parent.path).rglob("*"))
    with pytest.raises(NotARepository, match=r"but no meta\.json"):
        Repository.open(parent, require_verity=False, verity=kernel)
    for require_verity in (False, True):
        with Repository.open(
            parent,
            require_verity=require_verity,
            verity=kernel,
            infer=lambda directory: infer(directory, verity=kernel),
        ) as repository:
            assert repository.secure
            assert repository.streams.read("x") == b"stream"
    unsealed = FakeVerity(error=errno.EOPNOTSUPP)
    with pytest.raises(VerityMissing):
        Repository.open(
            parent,
            require_verity=True,
            verity=unsealed,
            infer=lambda directory: infer(directory, verity=unsealed),
        )
    assert sorted(Path(parent.path).rglob("*")) == before
