"""Creating and opening: what the disk says never weakens what the caller demands."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from bootc.errors import one_line
from bootc.formats.digest import Algorithm
from bootc.fs.dir import Dir
from bootc.fs.lock import LockedByOther, LockedHere, lock_exclusive
from bootc.kernel import fsverity
from bootc.repository import sealing
from bootc.repository.metadata import Metadata, MetadataError, UnsupportedRepository
from bootc.repository.repository import NotARepository, Repository, RepositoryExists
from bootc.repository.sealing import VerityMissing
from support.children import lock_held
from support.rights import bound_by_mode
from support.verity import FakeVerity


def write_meta(parent: Dir, content: bytes) -> None:
    Path(parent.path, "composefs").mkdir(exist_ok=True)
    Path(parent.path, "composefs/meta.json").write_bytes(content)


def test_a_new_repository(parent: Dir) -> None:
    with Repository.create(parent, secure=True, verity=FakeVerity()) as repository:
        assert repository.algorithm is Algorithm.SHA512
        assert repository.secure
        assert repository.dir.path == f"{parent.path}/composefs"
        assert repository.dir.names() == ["meta.json", "objects"]
        assert stat.S_IMODE(os.fstat(repository.dir.fileno()).st_mode) == 0o700
        assert stat.S_IMODE(repository.dir.stat("meta.json").st_mode) == 0o644
        assert repository.dir.read_bytes("meta.json") == Metadata().to_bytes()
        repository.sync()


def test_creating_again_opens(parent: Dir) -> None:
    kernel = FakeVerity()
    for _ in range(2):
        with Repository.create(parent, secure=True, verity=kernel) as repository:
            assert repository.objects.put(b"x" * 100) is not None
    assert len(kernel.enabled) == 2


def test_creating_again_asserts_the_mode(insecure: Repository, parent: Dir) -> None:
    os.fchmod(insecure.dir.fileno(), 0o755)
    Repository.create(parent, secure=False).close()
    assert stat.S_IMODE(os.fstat(insecure.dir.fileno()).st_mode) == 0o700


@pytest.mark.parametrize("secure", [False, True])
def test_a_directory_of_others_is_left_as_it_is(parent: Dir, secure: bool) -> None:
    """As when somebody gives ``--repo /etc``."""
    place = Path(parent.path, "composefs")
    place.mkdir()
    (place / "passwd").touch()
    place.chmod(0o755)
    for verity in (FakeVerity(), FakeVerity(error=errno.EOPNOTSUPP)):
        with pytest.raises(NotARepository, match="is no repository and is not empty"):
            Repository.create(parent, secure=secure, verity=verity)
    assert stat.S_IMODE(place.stat().st_mode) == 0o755
    assert os.listdir(place) == ["passwd"]


def test_a_refused_creation_changes_no_mode(parent: Dir) -> None:
    place = Path(parent.path, "composefs")
    place.mkdir()
    place.chmod(0o755)
    with pytest.raises(VerityMissing):
        Repository.create(parent, secure=True, verity=FakeVerity(error=errno.EOPNOTSUPP))
    assert stat.S_IMODE(place.stat().st_mode) == 0o755


def test_another_configuration_is_refused(insecure: Repository, parent: Dir) -> None:
    with pytest.raises(RepositoryExists, match=r"fsverity-sha512-12, .*not fsverity-sha256-12"):
        Repository.create(parent, algorithm=Algorithm.SHA256, secure=False)


@pytest.mark.parametrize(
    ("filesystem", "in_kernel", "message", "hint"),
    [
        (
            "tmpfs",
            True,
            r"\(tmpfs\) that does not",
            "use ext4 (mkfs.ext4 -O verity)",
        ),
        ("xfs", False, r"\(xfs\) that does not", "use ext4 (mkfs.ext4 -O verity)"),
        ("ext4", True, r"\(ext4\) that does not", "tune2fs -O verity DEVICE"),
        ("ext4", None, r"\(ext4\) that does not", "tune2fs -O verity DEVICE"),
        ("ext4", False, "the running kernel does not", "boot a kernel with CONFIG_FS_VERITY"),
        ("btrfs", False, "the running kernel does not", "boot a kernel with CONFIG_FS_VERITY"),
    ],
)
def test_the_one_cause_of_missing_verity(
    parent: Dir,
    monkeypatch: pytest.MonkeyPatch,
    filesystem: str,
    in_kernel: bool | None,
    message: str,
    hint: str,
) -> None:
    monkeypatch.setattr(sealing, "filesystem_of", lambda directory: filesystem)
    monkeypatch.setattr(fsverity, "is_in_kernel", lambda: in_kernel)
    error = sealing.without_verity(parent)
    assert re.search(message, error.message)
    assert hint in (error.hint or "")
    causes = [w for w in ("CONFIG_FS_VERITY", "tune2fs", "btrfs") if w in (error.hint or "")]
    assert len(causes) == 1


def test_a_file_system_without_verity_cannot_be_secure(parent: Dir) -> None:
    with pytest.raises(VerityMissing, match="does not support fs-verity"):
        Repository.create(parent, secure=True, verity=FakeVerity(error=errno.EOPNOTSUPP))
    # Nothing that looks like a repository is left, so that a second attempt is a first one.
    assert os.listdir(Path(parent.path, "composefs")) == []
    Repository.create(parent, secure=False, verity=FakeVerity(error=errno.EOPNOTSUPP)).close()


def test_an_insecure_repository_never_becomes_secure(parent: Dir) -> None:
    kernel = FakeVerity()
    Repository.create(parent, secure=False, verity=kernel).close()
    assert kernel.enabled == []
    for attempt in (
        lambda: Repository.create(parent, secure=True, verity=kernel),
        lambda: Repository.open(parent, require_verity=True, verity=kernel),
    ):
        with pytest.raises(VerityMissing, match=f"{parent.path}/composefs was made without"):
            attempt()


def test_a_secure_repository_stays_secure_for_those_who_demand_nothing(parent: Dir) -> None:
    kernel = FakeVerity()
    Repository.create(parent, secure=True, verity=kernel).close()
    with Repository.open(parent, require_verity=False, verity=kernel) as repository:
        assert repository.secure
        assert repository.objects.secure


def test_replacing_meta_json_does_not_help_an_attacker(parent: Dir) -> None:
    kernel = FakeVerity()
    Repository.create(parent, secure=True, verity=kernel).close()
    meta = Path(parent.path, "composefs/meta.json")
    content = meta.read_bytes()
    meta.unlink()
    meta.write_bytes(content)
    with pytest.raises(VerityMissing):
        Repository.open(parent, require_verity=True, verity=kernel)


def test_verity_of_another_algorithm_is_none(parent: Dir) -> None:
    kernel = FakeVerity()
    write_meta(parent, Metadata().to_bytes())
    Path(parent.path, "composefs/objects").mkdir()
    with open(Path(parent.path, "composefs/meta.json"), "rb") as file:
        kernel.enable(file.fileno(), Algorithm.SHA256.value)
    with pytest.raises(VerityMissing):
        Repository.open(parent, require_verity=True, verity=kernel)


def test_no_repository(parent: Dir) -> None:
    with pytest.raises(NotARepository) as caught:
        Repository.open(parent, require_verity=False)
    assert caught.value.message == f"there is no repository {parent.path}/composefs"
    Path(parent.path, "composefs").write_bytes(b"")
    with pytest.raises(NotARepository):
        Repository.open(parent, require_verity=False)


def test_an_empty_directory_is_none_but_can_become_one(parent: Dir) -> None:
    Path(parent.path, "composefs").mkdir()
    with pytest.raises(NotARepository, match=r"has no meta\.json"):
        Repository.open(parent, require_verity=False)
    Repository.create(parent, secure=False).close()


def test_objects_without_meta_json_are_not_adopted(parent: Dir) -> None:
    Path(parent.path, "composefs/objects").mkdir(parents=True)
    for attempt in (
        lambda: Repository.open(parent, require_verity=False),
        lambda: Repository.create(parent, secure=False),
    ):
        with pytest.raises(NotARepository, match=r"has objects but no meta\.json") as caught:
            attempt()
        assert caught.value.hint is not None


def test_meta_json_without_objects_is_an_unfinished_creation(parent: Dir) -> None:
    write_meta(parent, Metadata().to_bytes())
    with pytest.raises(NotARepository, match="no objects/"):
        Repository.open(parent, require_verity=False)
    with Repository.open(parent, require_verity=False, writable=True) as repository:
        repository.objects.put(b"x")


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", MetadataError),
        (b'{"version": 7}', UnsupportedRepository),
        (Metadata(incompatible=("x",)).to_bytes(), UnsupportedRepository),
    ],
)
def test_a_bad_meta_json_is_refused_by_name(
    parent: Dir, content: bytes, error: type[Exception]
) -> None:
    write_meta(parent, content)
    with pytest.raises(error, match=f"{parent.path}/composefs"):
        Repository.open(parent, require_verity=False)


def test_a_huge_meta_json_is_refused(parent: Dir) -> None:
    write_meta(parent, b" " * 100_000)
    with pytest.raises(OSError, match="larger than 65536 bytes"):
        Repository.open(parent, require_verity=False)


def test_a_bad_meta_json_has_a_way_out(insecure: Repository, parent: Dir) -> None:
    insecure.close()
    write_meta(parent, b"")
    with pytest.raises(MetadataError) as caught:
        Repository.open(parent, require_verity=False)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("remove it, and bootc internals cfs init --ensure")


def test_a_meta_json_that_is_no_file_is_named(insecure: Repository, parent: Dir) -> None:
    insecure.close()
    place = Path(parent.path, "composefs/meta.json")
    place.unlink()
    for make in (place.mkdir, lambda: os.mkfifo(place)):
        make()
        with pytest.raises(OSError) as caught:  # noqa: PT011  (a directory, or something else)
            Repository.open(parent, require_verity=False)
        assert caught.value.filename == str(place)
        if place.is_dir():
            place.rmdir()


@pytest.mark.parametrize("writable", [False, True])
@pytest.mark.parametrize("make", [os.mkfifo, Path.touch, lambda place: place.symlink_to(".")])
def test_objects_that_are_no_directory(
    insecure: Repository, parent: Dir, make: Callable[[Path], None], writable: bool
) -> None:
    insecure.close()
    place = Path(parent.path, "composefs/objects")
    place.rename(place.with_name("away"))
    make(place)
    with pytest.raises(NotARepository) as caught:
        Repository.open(parent, require_verity=False, writable=writable)
    assert caught.value.message == f"{place} is not a directory"
    assert caught.value.hint is not None


def test_objects_that_are_gone(insecure: Repository, parent: Dir) -> None:
    insecure.close()
    place = Path(parent.path, "composefs/objects")
    place.rmdir()
    (place.parent / "streams").mkdir()
    with pytest.raises(NotARepository, match=f"^{place} is gone"):
        Repository.open(parent, require_verity=False)


def test_unknown_read_only_features_allow_reading(parent: Dir) -> None:
    write_meta(parent, Metadata(read_only_compatible=("v1_erofs", "new")).to_bytes())
    Path(parent.path, "composefs/objects").mkdir()
    Repository.open(parent, require_verity=False).close()
    with pytest.raises(UnsupportedRepository, match="can only be read"):
        Repository.open(parent, require_verity=False, writable=True)


@pytest.mark.parametrize(
    ("mode", "writable", "message"),
    [
        (0o000, False, "Opening the repository {path}: {path}: Permission denied"),
        (0o555, True, "Opening the repository {path}: {path}: Permission denied"),
    ],
)
def test_missing_rights_are_said_plainly(
    parent: Dir, insecure: Repository, mode: int, writable: bool, message: str
) -> None:
    with (
        bound_by_mode(insecure.dir.fileno(), mode),
        pytest.raises(PermissionError) as caught,
    ):
        Repository.open(parent, require_verity=False, writable=writable)
    assert one_line(caught.value) == message.format(path=insecure.dir.path)


def test_an_open_repository_is_locked_shared(insecure: Repository, parent: Dir) -> None:
    with parent.open_dir("composefs") as other, pytest.raises(LockedHere):
        lock_exclusive(other)
    insecure.close()
    with parent.open_dir("composefs") as other:
        lock_exclusive(other)


def test_a_secure_repository_refuses_plain_objects_to_those_who_demand_nothing(
    parent: Dir,
) -> None:
    # What "composefs=?<digest>" on the command line comes down to.
    kernel = FakeVerity()
    with Repository.create(parent, secure=True, verity=kernel) as repository:
        digest = repository.objects.put(b"x")
    path = Path(parent.path, "composefs/objects", digest.object_path)
    path.unlink()
    path.write_bytes(b"x")
    with (
        Repository.open(parent, require_verity=False, verity=kernel) as repository,
        pytest.raises(VerityMissing, match="has no fs-verity"),
    ):
        repository.objects.read(digest)


def test_a_directory_that_may_not_be_written_to_is_named(insecure: Repository) -> None:
    objects = Path(insecure.dir.path, "objects")
    with bound_by_mode(objects, 0o555), pytest.raises(PermissionError) as caught:
        insecure.objects.put(b"x")
    assert one_line(caught.value) == (
        f"Storing an object in {insecure.dir.path}/objects: {insecure.dir.path}/objects: "
        "Permission denied"
    )


def test_a_repository_may_have_any_name_and_an_erofs_format_of_choice(parent: Dir) -> None:
    for erofs_format, features in ((0, ()), (1, ("v1_erofs",)), (2, ())):
        name = f"store{erofs_format}"
        Repository.create(parent, name=name, erofs_format=erofs_format, secure=False).close()
        with Repository.open(parent, name=name, require_verity=False) as repository:
            assert repository.dir.path.endswith(name)
            assert repository.metadata.effective_erofs_formats().default == erofs_format
            assert repository.metadata.read_only_compatible == features


def test_who_will_not_wait_is_told_of_the_lock(parent: Dir) -> None:
    Repository.create(parent, secure=False).close()
    with (
        lock_held(f"{parent.path}/composefs", fcntl.LOCK_EX),
        pytest.raises(LockedByOther, match=r"in use by process \d+"),
    ):
        Repository.open(parent, require_verity=False, wait=False)
    Repository.open(parent, require_verity=False, wait=False).close()
