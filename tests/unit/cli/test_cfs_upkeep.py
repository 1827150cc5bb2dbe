"""``cfs init``, ``gc`` and ``fsck``: what they print, what they do, what they refuse."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
from pathlib import Path

import pytest

from bootc.cli.main import main
from bootc.formats.digest import Digest
from bootc.fs.dir import Dir
from bootc.kernel import fsverity
from bootc.repository.repository import Repository
from support.cfs import Cfs
from support.children import let_go_after, lock_held
from support.protection import IMMUTABLE, set_flags, unprotect
from support.stored import Store
from support.verity import FakeVerity

CREATED = """\
Initialized composefs repository at {}
  algorithm: fsverity-sha512-12
  verity:    not required (insecure)
"""
DATA = b"data" * 1000


@pytest.fixture
def cfs(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> Cfs:
    return Cfs(tmp_path / "repo", capsysbinary, monkeypatch)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeVerity:
    """A kernel that has fs-verity, wherever the tests run."""
    fake = FakeVerity()
    monkeypatch.setattr(fsverity, "enable", fake.enable)
    monkeypatch.setattr(fsverity, "measure", fake.measure)
    return fake


def without_verity(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeVerity(error=95)
    monkeypatch.setattr(fsverity, "enable", fake.enable)
    monkeypatch.setattr(fsverity, "measure", fake.measure)


def put(repo: Path, data: bytes = DATA) -> Digest:
    with (
        Dir.open(repo.parent) as parent,
        Repository.open(parent, name=repo.name, require_verity=False, writable=True) as repository,
    ):
        return repository.objects.put(data)


# -- init


def test_a_repository_is_made_with_its_parents(cfs: Cfs, tmp_path: Path) -> None:
    path = tmp_path / "new/er/repo"
    cfs.repo = path
    assert cfs("init", "--insecure") == CREATED.format(path)
    assert path.stat().st_mode & 0o777 == 0o700
    meta = json.loads((path / "meta.json").read_bytes())
    assert meta["algorithm"] == "fsverity-sha512-12"
    assert meta["erofs_formats"] == {"default": 1}
    assert cfs("init", "--insecure") == f"Repository already initialized at {path}\n"


def test_a_refused_init_leaves_no_directories(
    cfs: Cfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_verity(monkeypatch)
    cfs.repo = tmp_path / "new/er/repo"
    assert "fs-verity" in cfs.error("init")
    assert not (tmp_path / "new").exists()
    assert "fs-verity" in cfs.error("init", tmp_path / "other/repo")
    assert list(tmp_path.iterdir()) == []


def test_the_path_can_be_an_argument(
    cfs: Cfs,
    tmp_path: Path,
    capsysbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # It counts, whatever else is said, as with cfsctl.
    for group in ((), ("--user",), ("--system",)):
        path = tmp_path / f"x{len(group)}{group[:1]}"
        assert cfs("init", "--insecure", path, group=group) == CREATED.format(path)
        assert (path / "meta.json").exists()
    assert not cfs.repo.exists()
    monkeypatch.chdir(tmp_path)
    assert main(["internals", "cfs", "init", "--insecure", "a/b"]) == 0
    assert capsysbinary.readouterr().out.decode() == CREATED.format("a/b")
    assert (tmp_path / "a/b/meta.json").exists()


def test_another_hash_makes_no_other_repository(cfs: Cfs, caplog: pytest.LogCaptureFixture) -> None:
    # cfsctl init has no regard to it; a script gets the same repository here.
    assert cfs("init", "--insecure", group=("--hash", "sha256")) == CREATED.format(cfs.repo)
    meta = json.loads((cfs.repo / "meta.json").read_bytes())
    assert meta["algorithm"] == "fsverity-sha512-12"
    assert [record.getMessage() for record in caplog.records] == [
        "--hash has no effect on a new repository: give --algorithm fsverity-sha256-12 after init"
    ]
    # Of one that is there it says what it has to be.
    assert "fsverity-sha512-12" in cfs.error("init", "--insecure", group=("--hash", "sha256"))


def test_a_secure_repository(cfs: Cfs, kernel: FakeVerity) -> None:
    out = cfs("init", "--algorithm", "fsverity-sha256-12", "--erofs-version", "2")
    assert out == (
        f"Initialized composefs repository at {cfs.repo}\n"
        "  algorithm: fsverity-sha256-12\n"
        "  verity:    required\n"
    )
    meta = json.loads((cfs.repo / "meta.json").read_bytes())
    assert (meta["algorithm"], meta["erofs_formats"]) == ("fsverity-sha256-12", {"default": 2})
    # Neither the group's options nor the verb's are unsaid by the other's defaults.
    again = cfs("init", group=("--hash", "sha256", "--erofs-version", "2"))
    assert again == f"Repository already initialized at {cfs.repo}\n"


def test_no_verity_where_it_is_not_given_up(cfs: Cfs, monkeypatch: pytest.MonkeyPatch) -> None:
    without_verity(monkeypatch)
    assert "does not support fs-verity" in cfs.error("init")
    assert not (cfs.repo / "meta.json").exists()


def test_another_configuration_is_refused(cfs: Cfs) -> None:
    cfs("init", "--insecure")
    before = (cfs.repo / "meta.json").read_bytes()
    assert cfs.error("init", "--insecure", "--algorithm", "fsverity-sha256-12").endswith(
        "fsverity-sha512-12, EROFS format 1 and not fsverity-sha256-12, EROFS format 1"
    )
    assert "EROFS format 2" in cfs.error("init", "--insecure", "--erofs-version", "2")
    assert "without fs-verity" in cfs.error("init")
    assert (cfs.repo / "meta.json").read_bytes() == before


@pytest.mark.parametrize(
    ("group", "words", "said"),
    [
        ((), ("--algorithm", "md5"), "'md5' is neither sha256 nor sha512"),
        ((), ("--erofs-version", "3"), "'3' is neither 0, 1 nor 2"),
        ((), ("--ensure", "--reset-metadata"), "exclude each other"),
        (("--require-verity",), ("--insecure",), "exclude each other"),
        (("--hash", "sha256"), ("--algorithm", "fsverity-sha512-12"), "contradict each other"),
    ],
)
def test_wrong_usage(cfs: Cfs, group: tuple[str, ...], words: tuple[str, ...], said: str) -> None:
    assert said in cfs.error("init", *words, code=2, group=group)
    assert not cfs.repo.exists()


def test_ensure(cfs: Cfs, monkeypatch: pytest.MonkeyPatch) -> None:
    without_verity(monkeypatch)
    assert "does not support fs-verity" in cfs.error("init", "--ensure")
    assert cfs("init", "--ensure", "--insecure") == CREATED.format(cfs.repo)
    # What is there is taken as it is: another format, and no fs-verity.
    kept = f"Repository already initialized at {cfs.repo} (existing configuration preserved)\n"
    assert cfs("init", "--ensure", "--erofs-version", "2") == kept
    assert "was made without fs-verity" in cfs.error(
        "init", "--ensure", group=("--require-verity",)
    )
    assert "fsverity-sha512-12 and not fsverity-sha256-12" in cfs.error(
        "init", "--ensure", "--algorithm", "fsverity-sha256-12"
    )


def test_ensure_upgrades(cfs: Cfs) -> None:
    cfs("init", "--insecure", "--algorithm", "fsverity-sha256-12")
    put(cfs.repo)
    (cfs.repo / "meta.json").unlink()
    assert "has objects but no meta.json" in cfs.error("init", "--insecure")
    assert cfs("init", "--ensure") == f"Upgraded legacy repository at {cfs.repo}\n"
    assert json.loads((cfs.repo / "meta.json").read_bytes())["algorithm"] == "fsverity-sha256-12"


def test_reset_metadata_keeps_objects(cfs: Cfs) -> None:
    assert cfs("init", "--insecure", "--reset-metadata") == CREATED.format(cfs.repo)
    digest = put(cfs.repo)
    (cfs.repo / "streams").mkdir()
    (cfs.repo / "streams/x").symlink_to("../objects/none")
    out = cfs("init", "--insecure", "--reset-metadata", "--erofs-version", "2")
    assert out == CREATED.format(cfs.repo)
    assert not (cfs.repo / "streams").exists()
    assert cfs.path_of(digest).read_bytes() == DATA
    assert json.loads((cfs.repo / "meta.json").read_bytes())["erofs_formats"] == {"default": 2}
    assert "names objects by fsverity-sha512-12" in cfs.error(
        "init", "--insecure", "--reset-metadata", "--algorithm", "fsverity-sha256-12"
    )


def test_no_place_for_a_repository(cfs: Cfs, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cfs.repo = tmp_path / "file/below/repo"
    assert "Not a directory" in cfs.error("init", "--insecure")


# -- gc


@pytest.fixture
def filled(cfs: Cfs) -> Cfs:
    """A repository with a tagged image, one without a tag, and an object nobody needs."""
    cfs("init", "--insecure")
    store = Store()
    with (
        Dir.open(cfs.repo.parent) as parent,
        Repository.open(parent, name="repo", require_verity=False, writable=True) as repository,
    ):
        store.add(repository, {"kept": b"kept" * 100}, tag="kept")
        store.add(repository, {"lost": b"lost" * 100})
        repository.objects.put(DATA)
    return cfs


def test_gc(filled: Cfs) -> None:
    before = filled.objects()
    dry = filled("gc", "--dry-run").splitlines()
    assert filled.objects() == before
    wet = filled("gc").splitlines()
    # Links go with what they lead to: now nothing is dangling, which is what cfsctl counts.
    assert dry == ["Dry run (no files deleted):", wet[0]]
    after = filled.objects()
    gone = before.keys() - after.keys()
    # The loose object; layer, image, configuration, manifest and their three documents.
    assert len(gone) == 8
    assert wet[0].startswith("Objects: 8 removed (")
    assert wet[1:] == ["Pruned symlinks: 1 images, 3 streams"]
    assert filled("gc") == "Objects: 0 removed (0 bytes)\n"


def test_a_dry_run_counts_links_that_lead_to_nothing(filled: Cfs) -> None:
    images = filled.repo / "images"
    (images / ("0" * 128)).symlink_to(f"../objects/00/{'0' * 126}")
    (images / "refs").mkdir()
    (images / "refs" / "gone").symlink_to("../gone")
    streams = filled.repo / "streams"
    (streams / "x").symlink_to(f"../objects/00/{'0' * 62}")
    assert filled("gc", "-n").splitlines()[2:] == ["Pruned symlinks: 2 images, 1 streams"]


def test_gc_keeps_roots(filled: Cfs) -> None:
    streams = sorted(
        name for name in os.listdir(filled.repo / "streams") if name.startswith("oci-manifest-")
    )
    images = sorted(os.listdir(filled.repo / "images"))
    roots = [word for name in (*streams, *images) for word in ("-r", name)]
    assert filled("gc", *roots) == "Objects: 1 removed (4000 bytes)\n"
    assert filled.error("gc", "--root", "nothing").startswith(
        f"Collecting garbage in {filled.repo}: 'nothing' is needed and is no image or stream here"
    )


def test_gc_reports_what_is_not_ours(filled: Cfs, caplog: pytest.LogCaptureFixture) -> None:
    (filled.repo / "objects/readme").write_bytes(b"mine")
    with caplog.at_level(logging.WARNING):
        filled("gc")
    assert [r.getMessage() for r in caplog.records] == [
        f"{filled.repo}/objects/readme is no directory of objects: left alone"
    ]
    assert (filled.repo / "objects/readme").read_bytes() == b"mine"


@pytest.mark.root
def test_gc_fails_where_something_cannot_be_removed(filled: Cfs) -> None:
    filled("gc")
    with filled.repository() as repository:
        strays = [repository.objects.put(b"%d" % n * 100) for n in range(3)]
    paths = [filled.repo / "objects" / stray.object_path for stray in strays]
    set_flags(paths[1], IMMUTABLE)
    try:
        found, out, err = filled.raw("gc")
    finally:
        unprotect(filled.repo)
    assert (found, out) == (1, b"Objects: 2 removed (200 bytes)\n")
    assert err.splitlines()[-1] == (
        f"error: what nothing needs could not be removed: {paths[1]}: "
        "it is immutable or append-only (chattr -i -a lifts it)"
    )
    assert [path.exists() for path in paths] == [False, True, False]


def test_gc_points_to_fsck(filled: Cfs) -> None:
    manifest = next((filled.repo / "streams/refs/oci").iterdir()).resolve()
    manifest.unlink()
    manifest.write_bytes(b"SplitStream")
    said = filled.error("gc")
    assert "nothing was removed" in said
    command = f"bootc internals cfs --repo {filled.repo} fsck --repair"
    assert f"(hint: check and repair the repository first: {command})" in said


def test_gc_waits_or_does_not(filled: Cfs) -> None:
    with lock_held(filled.repo, fcntl.LOCK_SH) as other:
        assert f"is in use by process {other.pid} (" in filled.error("gc", group=("--no-wait",))
        assert filled("gc", "-n", group=("--no-wait",)).startswith("Dry run")
        let_go_after(1, other.let_go)
        code, out, err = filled.raw("gc")
    assert (code, out.decode().splitlines()[0][:18]) == (0, "Objects: 8 removed")
    # Scripts read standard output.
    (waits,) = (line for line in err.splitlines() if line.startswith("Waiting"))
    assert waits.startswith(f"Waiting for process {other.pid} (")
    assert waits.endswith(f"), which uses {filled.repo}")


def test_no_repository(cfs: Cfs) -> None:
    for verb in ("gc", "fsck"):
        said = cfs.error(verb)
        assert f"there is no repository {cfs.repo}" in said
        assert said.endswith(f"(hint: bootc internals cfs --repo {cfs.repo} init makes one)")


# -- fsck


def test_fsck(filled: Cfs) -> None:
    good = "meta.json: ok\nobjects: 15/15 ok\nstreams: 6/6 ok\nimages: 2/2 ok\nstatus: ok\n"
    assert filled("fsck") == good
    assert filled("fsck", "--metadata-only") == good.replace("15/15", "0/0")
    found = json.loads(filled("fsck", "--json"))
    assert found == {
        "ok": True,
        "has_metadata": True,
        "objects_checked": 15,
        "objects_corrupted": 0,
        "streams_checked": 6,
        "streams_corrupted": 0,
        "images_checked": 2,
        "images_corrupted": 0,
        "broken_links": 0,
        "missing_objects": 0,
        "errors": [],
    }
    assert json.loads(filled("fsck", "--json", "--repair")) == {**found, "repair": None}
    assert filled("fsck", "--repair") == good


def test_fsck_finds_and_repairs(filled: Cfs) -> None:
    with Dir.open(filled.repo.parent) as parent:
        digest = put(filled.repo)
        filled.damage(digest)
        found = filled("fsck", code=1)
        path = f"objects/{digest.object_path}"
        assert found.startswith("meta.json: ok\nobjects: 14/15 ok\nstreams: 6/6 ok\n")
        assert "status: 1 error(s)\n  - fsck: object-digest-mismatch: " + path in found
        assert filled("fsck", "--metadata-only").endswith("status: ok\n")
        told = json.loads(filled("fsck", "--json"))
        assert (told["ok"], told["objects_corrupted"], len(told["errors"])) == (False, 1, 1)
        # Nothing needs it, so nothing is left to do.
        repaired = filled("fsck", "--repair")
        assert repaired == found + f"quarantined: {digest}\n"
        assert parent.exists(f"repo/quarantine/{digest}")
        assert not parent.exists(f"repo/{path}")
        assert filled("fsck").endswith("status: ok\n")


def test_repair_as_json(filled: Cfs) -> None:
    digest = put(filled.repo)
    filled.damage(digest)
    told = json.loads(filled("fsck", "--json", "--repair"))
    assert told["ok"] is False
    assert told["repair"] == {
        "quarantined": [digest.hex],
        "resealed": [],
        "set_aside": [],
        "needed_by": {},
        "left": [],
    }


def test_repair_wants_to_be_alone(filled: Cfs) -> None:
    filled.damage(put(filled.repo))
    fd = os.open(filled.repo, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        code, _, err = filled.raw("fsck", "--repair", group=("--no-wait",))
    finally:
        os.close(fd)
    assert (code, "is open twice in this process" in err) == (1, True)


def test_the_way_out_without_verity_is_an_option_of_the_verb(
    cfs: Cfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fsverity, "enable", refuse)
    told = cfs.error("init")
    assert "does not support fs-verity" in told
    assert told.endswith("; or give --insecure)")
    assert "--insecure" not in cfs.error("init", group=("--require-verity",))
    assert "Initialized" in cfs("init", "--insecure")
