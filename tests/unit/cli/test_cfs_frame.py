"""Which repository ``cfs`` works on, and when it refuses to."""

from __future__ import annotations

import argparse
import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bootc.cli.main import main
from bootc.cli.options import Command, Context, Option, build_parser
from bootc.cli.verbs.cfs import opening
from bootc.cli.verbs.cfs.command import COMMANDS
from bootc.errors import UsageError
from bootc.formats.digest import Algorithm
from bootc.fs.dir import Dir
from bootc.fs.lock import lock_exclusive
from bootc.kernel import fsverity
from bootc.repository.metadata import MetadataError
from bootc.repository.repository import Repository
from support.cfs import Cfs
from support.children import lock_held
from support.verity import FakeVerity

NONE_FOUND = "No images found\n"


@pytest.fixture
def cfs_at(
    capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], Cfs]:
    return lambda path: Cfs(path, capsysbinary, monkeypatch)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Dir.open(tmp_path) as parent:
        Repository.create(parent, name="store", secure=False).close()
    return tmp_path / "store"


@pytest.fixture
def cfs(path: Path, cfs_at: Callable[[Path], Cfs]) -> Cfs:
    return cfs_at(path)


def arguments(*words: str) -> argparse.Namespace:
    args = build_parser("p", COMMANDS, "1").parse_args(["cfs", *words, "images"])
    assert isinstance(args, argparse.Namespace)
    return args


def make_legacy(cfs: Cfs) -> None:
    """Make the repository one from before there was a ``meta.json``."""
    with cfs.repository() as repository:
        repository.objects.put(b"x" * 100)
    (cfs.repo / "meta.json").unlink()


@pytest.mark.parametrize(
    ("words", "uid", "expected"),
    [
        ((), 0, "/sysroot/composefs"),
        ((), 1000, "/home/u/.var/lib/composefs"),
        (("--user",), 0, "/home/u/.var/lib/composefs"),
        (("--system",), 1000, "/sysroot/composefs"),
        (("--repo", "/a/../b"), 0, "/b"),
        (("--repo", "/"), 0, "/"),
    ],
)
def test_where_the_repository_is(
    words: tuple[str, ...], uid: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setenv("HOME", "/home/u")
    assert opening.repository_path(arguments(*words)) == os.path.realpath(expected)


def test_only_one_repository_can_be_named(cfs: Cfs) -> None:
    assert cfs.error("--user", "images", code=2) == "--repo, --user and --system exclude each other"


def test_a_symlink_to_a_repository(path: Path, cfs_at: Callable[[Path], Cfs]) -> None:
    path.with_name("link").symlink_to("store")
    assert cfs_at(path.with_name("link"))("images") == NONE_FOUND


@pytest.mark.parametrize("name", ["nothing", "not/even/this", "file", "file/below", "empty"])
def test_no_repository(tmp_path: Path, name: str, cfs_at: Callable[[Path], Cfs]) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    told = cfs_at(tmp_path / name).error("images")
    assert str(tmp_path / name) in told
    hint = f"bootc internals cfs --repo {tmp_path / name} init makes one"
    assert told.endswith(f" (hint: {hint})")


def test_the_root_directory_is_no_repository(cfs_at: Callable[[Path], Cfs]) -> None:
    assert cfs_at(Path("/")).error("images") == (
        "/ is no repository: it has no meta.json "
        "(hint: bootc internals cfs --repo / init makes one)"
    )


@pytest.mark.parametrize("name", ["sha512", "fsverity-sha512-12"])
def test_the_hash_it_has(cfs: Cfs, name: str) -> None:
    assert cfs("--hash", name, "images") == NONE_FOUND


def test_another_hash(cfs: Cfs) -> None:
    assert cfs.error("--hash", "sha256", "images") == (
        f"{cfs.repo} names objects by fsverity-sha512-12 and not fsverity-sha256-12 "
        "(hint: leave out --hash, or name another repository)"
    )


def test_an_unknown_hash_or_version(cfs: Cfs) -> None:
    see = "(hint: see bootc internals cfs --help)"
    assert cfs.error("--hash", "md5", "images", code=2) == (
        f"argument --hash: 'md5' is neither sha256 nor sha512 {see}"
    )
    assert cfs.error("--erofs-version", "3", "images", code=2) == (
        f"argument --erofs-version: '3' is neither 0, 1 nor 2 {see}"
    )


def test_verity_that_is_required(cfs: Cfs) -> None:
    assert cfs.error("--require-verity", "images") == (
        f"Opening the repository {cfs.repo}: the repository {cfs.repo} was made without "
        f"fs-verity, and fs-verity is required (hint: bootc internals cfs --repo {cfs.repo} "
        "--require-verity fsck "
        "tells which objects lack it)"
    )


def test_fsck_demands_the_verity_that_is_required_of_every_object(cfs: Cfs) -> None:
    with cfs.repository() as repository:
        path = repository.objects.put(b"x" * 100).object_path
    assert "status: ok" in cfs("fsck")
    found = cfs("fsck", group=("--require-verity",), code=1)
    assert f"object-verity-missing: objects/{path}" in found


def test_what_is_secure_stays_so(
    path: Path, cfs_at: Callable[[Path], Cfs], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = FakeVerity()
    monkeypatch.setattr(fsverity, "enable", kernel.enable)
    monkeypatch.setattr(fsverity, "measure", kernel.measure)
    with Dir.open(path.parent) as parent:
        Repository.create(parent, name="secure", secure=True, verity=kernel).close()
    cfs = cfs_at(path.with_name("secure"))
    assert cfs("--require-verity", "images") == NONE_FOUND
    args = arguments("--repo", str(cfs.repo), "--insecure")
    context = Context(print, print, lambda event: None, False)
    with opening.opened(args, context, writable=True) as repository:
        assert repository.secure
        assert repository.objects.secure


def test_insecure_and_secure_at_once(cfs: Cfs) -> None:
    told = cfs.error("--insecure", "--require-verity", "images", code=2)
    assert told == "--insecure and --require-verity exclude each other"


def test_no_repository_where_one_is_needed(cfs: Cfs) -> None:
    told = cfs.error("--no-repo", "images", code=2)
    assert told == "this command needs a repository (hint: leave out --no-repo)"


@pytest.mark.parametrize("words", [(), ("--hash", "sha512")])
def test_an_old_repository_is_upgraded(cfs: Cfs, words: tuple[str, ...]) -> None:
    make_legacy(cfs)
    # Not by those who only read.
    for verb in (("images",), ("gc", "-n"), ("fsck",), ("oci", "images"), ("oci", "fsck")):
        cfs(*verb, group=words)
        assert not (cfs.repo / "meta.json").exists()
    cfs("gc", group=words)
    with cfs.repository() as repository:
        assert repository.metadata.effective_erofs_formats().default == 2


def test_an_old_repository_says_its_algorithm(
    tmp_path: Path, cfs_at: Callable[[Path], Cfs]
) -> None:
    with Dir.open(tmp_path) as parent:
        Repository.create(parent, name="old", algorithm=Algorithm.SHA256, secure=False).close()
    cfs = cfs_at(tmp_path / "old")
    make_legacy(cfs)
    for verb, doing in (("images", "Opening"), ("gc", "Upgrading")):
        assert cfs.error("--hash", "sha512", verb) == (
            f"{doing} the repository {cfs.repo}: {cfs.repo} names objects by "
            "fsverity-sha256-12 and not fsverity-sha512-12"
        )
        assert not (cfs.repo / "meta.json").exists()
    assert cfs("images") == NONE_FOUND
    cfs("gc")
    with cfs.repository() as repository:
        assert repository.algorithm is Algorithm.SHA256


def test_an_old_repository_that_shall_stay_one(cfs: Cfs) -> None:
    make_legacy(cfs)
    assert cfs.error("--no-upgrade", "images") == (
        f"{cfs.repo} is a repository of an older format, without meta.json "
        "(hint: leave out --no-upgrade: the command upgrades it)"
    )
    assert not (cfs.repo / "meta.json").exists()


def test_an_old_repository_without_verity_is_not_called_secure(cfs: Cfs) -> None:
    make_legacy(cfs)
    assert "have no fs-verity, and fs-verity is required" in cfs.error("--require-verity", "images")
    assert not (cfs.repo / "meta.json").exists()


def test_remains_that_say_nothing(cfs: Cfs) -> None:
    (cfs.repo / "meta.json").unlink()
    assert cfs.error("images") == (
        f"{cfs.repo} has no meta.json, and its objects do not tell what it is "
        "(hint: remove the directory if nothing needs it)"
    )


def test_another_process_that_does_not_wait(cfs: Cfs) -> None:
    with lock_held(cfs.repo, fcntl.LOCK_EX) as other:
        told = cfs.error("--no-wait", "images")
        assert told.startswith(
            f"Opening the repository {cfs.repo}: Locking {cfs.repo}: {cfs.repo} is in "
            f"use by process {other.pid} ("
        )
        assert told.endswith(") (hint: wait until it has finished, then try again)")
    assert cfs("--no-wait", "images") == NONE_FOUND


def test_this_process_waits_for_nobody_else(cfs: Cfs) -> None:
    with Dir.open(cfs.repo) as directory:
        lock_exclusive(directory)
        assert "is open twice in this process" in cfs.error("images")


def test_a_block_that_fails_leaves_nothing_open(path: Path) -> None:
    context = Context(print, print, lambda event: None, False)
    with (
        pytest.raises(UsageError),
        opening.opened(arguments("--repo", str(path)), context, writable=True) as repository,
    ):
        raise UsageError("no")
    with pytest.raises(ValueError, match="closed"):
        repository.dir.fileno()


def test_the_algorithm_for_what_needs_no_repository(path: Path, tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    asked = opening.algorithm_without_repository
    assert asked(arguments("--repo", absent)) is Algorithm.SHA512
    assert asked(arguments("--repo", absent, "--hash", "sha256")) is Algorithm.SHA256
    assert asked(arguments("--repo", str(path))) is Algorithm.SHA512
    with pytest.raises(opening.WrongAlgorithm):
        asked(arguments("--repo", str(path), "--hash", "sha256"))
    ignoring = arguments("--repo", str(path), "--no-repo", "--hash", "sha256")
    assert asked(ignoring) is Algorithm.SHA256


def test_a_meta_json_that_makes_no_sense_is_not_skipped(path: Path) -> None:
    (path / "meta.json").write_text("{")
    with pytest.raises(MetadataError):
        opening.algorithm_without_repository(arguments("--repo", str(path)))


def test_a_meta_json_nobody_may_read_is_not_skipped(path: Path) -> None:
    (path / "meta.json").unlink()
    (path / "meta.json").symlink_to("meta.json")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        opening.algorithm_without_repository(arguments("--repo", str(path)))


def test_called_as_cfsctl(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *a: None)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/cfsctl", "--repo", str(path), "list-images"])
    assert main() == 0
    assert capsys.readouterr().out == NONE_FOUND


def test_the_command_lines_of_all_verbs_load_no_library() -> None:
    loaded = "[m for m in sys.modules if m.startswith(('bootc.formats', 'bootc.repository'))]"
    script = f"import sys; from bootc.cli.table import *; commands_for(); print({loaded})"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_a_verb_is_needed(cfs: Cfs) -> None:
    assert cfs.error(code=2) == ("a command is missing (hint: see bootc internals cfs --help)")


def test_an_option_of_a_group_and_of_its_verb() -> None:
    option = Option(("--level", "-l"), "How much.", default="0")
    switch = Option(("--all",), "All.", default=False)
    verb = Command("verb", "Do.", options=(option, switch))
    table = (Command("group", "Group.", options=(option, switch), commands=(verb,)),)

    def parsed(*words: str) -> tuple[str, bool]:
        args = build_parser("p", table, "1").parse_args(["group", *words])
        return args.level, args.all

    assert parsed("verb") == ("0", False)
    assert parsed("--level", "1", "--all", "verb") == ("1", True)
    assert parsed("verb", "-l", "2", "--all") == ("2", True)
    assert parsed("-l", "1", "verb", "-l", "2") == ("2", False)
