"""Local changes of ``/etc`` looked at, decided about, and taken back, on real directories."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bootc.deploy.etc.apply import read_etc
from bootc.deploy.etc.decisions import MalformedDecisions, read_decisions
from bootc.deploy.etc.local import LocalEtc
from bootc.deploy.etc.merge import Choice, ConflictPolicy
from bootc.deploy.etc.review import (
    CannotReset,
    PathNotFound,
    ResetOutcome,
    StagedEtc,
    decide,
    forget,
    reset,
    review,
)
from bootc.deploy.host.statedir import StateDir
from bootc.errors import one_line
from bootc.formats.digest import Algorithm
from bootc.formats.tree import External
from bootc.formats.verity import verity_digest
from bootc.fs.dir import Dir
from bootc.fs.tree_read import read_tree
from bootc.fs.tree_write import ContentChanged
from bootc.kernel import files
from bootc.repository.sink import DigestOnly
from support.etctrees import directory, etc
from support.protection import IMMUTABLE, set_flags, unprotect
from support.sysroot import image_id

SHA512 = Algorithm.SHA512
LONG = b"x" * 5000
BOOTED = image_id("aa")
STAGED = image_id("bb")


class Machine:
    """The ``/etc`` of an image, and a state directory with what a machine made of it."""

    def __init__(self, path: Path) -> None:
        self.image = path / "image"
        self.state = path / "state"
        self.etc = self.state / "etc"
        self.image.mkdir()
        (self.image / "motd").write_text("hello")
        (self.image / "long").write_bytes(LONG)
        (self.image / "localtime").symlink_to("/usr/share/zoneinfo/UTC")
        (self.image / "ssh").mkdir(mode=0o711)
        (self.image / "ssh/config").write_text("Port 22")
        (self.image / "ssh/moduli").write_text("1 2 3")
        (self.image / "ssh/moduli").chmod(0o600)
        self.state.mkdir()
        shutil.copytree(self.image, self.etc, symlinks=True)

    @contextmanager
    def local(self) -> Iterator[tuple[StateDir, LocalEtc]]:
        with ExitStack() as stack:
            state = stack.enter_context(StateDir(Dir.open(self.state), BOOTED))
            current = stack.enter_context(read_etc(state.dir, SHA512))
            image = stack.enter_context(Dir.open(self.image))
            pristine = read_tree(image, DigestOnly(SHA512))
            yield state, LocalEtc(pristine, current, read_decisions(state), self._open)

    def _open(self, content: External) -> int:
        assert content.digest == verity_digest(LONG, SHA512)
        return os.open(self.image / "long", os.O_RDONLY)

    def reset(self, path: str) -> ResetOutcome:
        with self.local() as (state, local):
            return reset(state, local, path.encode())

    def contents(self) -> Mapping[str, str]:
        return {
            str(path.relative_to(self.etc)): os.readlink(path)
            if path.is_symlink()
            else path.read_text()
            for path in sorted(self.etc.rglob("*"))
            if path.is_symlink() or path.is_file()
        }

    def left_over(self) -> list[str]:
        return sorted(os.listdir(self.state))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def unread(path: Path) -> tuple[int, ...]:
    """Return what a change of a file changes; reading one changes its access time."""
    info = os.stat(path)
    return (info.st_ino, info.st_mode, info.st_nlink, info.st_size, info.st_ctime_ns)


@pytest.fixture
def pristine(machine: Machine) -> Mapping[str, str]:
    return machine.contents()


def test_a_file_is_as_in_the_image_again(machine: Machine, pristine) -> None:
    (machine.etc / "ssh/moduli").write_text("4 5 6")
    (machine.etc / "ssh/moduli").chmod(0o644)
    before = unread(machine.etc / "ssh/config")
    assert machine.reset("ssh/moduli") is ResetOutcome.RESTORED
    assert machine.contents() == pristine
    assert os.stat(machine.etc / "ssh/moduli").st_mode & 0o7777 == 0o600
    assert unread(machine.etc / "ssh/config") == before
    assert machine.left_over() == ["etc"]


def test_a_large_file_comes_from_the_repository(machine: Machine) -> None:
    (machine.etc / "long").write_bytes(b"short")
    assert machine.reset("long") is ResetOutcome.RESTORED
    assert (machine.etc / "long").read_bytes() == LONG


def test_what_was_removed_comes_back(machine: Machine, pristine) -> None:
    (machine.etc / "localtime").unlink()
    shutil.rmtree(machine.etc / "ssh")
    assert machine.reset("localtime") is ResetOutcome.RESTORED
    assert machine.reset("ssh") is ResetOutcome.RESTORED
    assert machine.contents() == pristine
    assert os.stat(machine.etc / "ssh").st_mode & 0o7777 == 0o711


def test_a_directory_loses_local_additions(machine: Machine, pristine) -> None:
    (machine.etc / "ssh/config").write_text("Port 2222")
    (machine.etc / "ssh/key").write_text("secret")
    (machine.etc / "ssh/moduli").unlink()
    (machine.etc / "mine").write_text("mine")
    assert machine.reset("ssh") is ResetOutcome.RESTORED
    assert machine.contents() == {**pristine, "mine": "mine"}


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_another_kind_is_exchanged(machine: Machine, pristine, kind: str) -> None:
    shutil.rmtree(machine.etc / "ssh")
    (machine.etc / "motd").unlink()
    match kind:
        case "file":
            (machine.etc / "ssh").write_text("")
        case "link":
            (machine.etc / "ssh").symlink_to("/usr/share")
    (machine.etc / "motd").mkdir()
    (machine.etc / "motd/below").write_text("x")
    assert machine.reset("ssh") is ResetOutcome.RESTORED
    assert machine.reset("motd") is ResetOutcome.RESTORED
    assert machine.contents() == pristine
    assert machine.left_over() == ["etc"]


def test_a_local_addition_is_removed(machine: Machine, pristine) -> None:
    (machine.etc / "mine").mkdir()
    (machine.etc / "mine/too").write_text("x")
    (machine.etc / "ssh/key").write_text("x")
    assert machine.reset("mine") is ResetOutcome.REMOVED
    assert machine.reset("ssh/key") is ResetOutcome.REMOVED
    assert machine.contents() == pristine
    assert machine.left_over() == ["etc"]


def test_what_is_so_already_is_left(machine: Machine) -> None:
    before = unread(machine.etc / "motd")
    assert machine.reset("motd") is ResetOutcome.UNCHANGED
    assert machine.reset("ssh") is ResetOutcome.UNCHANGED
    assert unread(machine.etc / "motd") == before


def test_other_names_of_a_hard_link_stay_local(machine: Machine) -> None:
    (machine.etc / "motd").write_text("local")
    os.link(machine.etc / "motd", machine.etc / "second")
    assert machine.reset("motd") is ResetOutcome.RESTORED
    assert (machine.etc / "motd").read_text() == "hello"
    assert (machine.etc / "second").read_text() == "local"


def test_a_path_that_is_nowhere(machine: Machine) -> None:
    with pytest.raises(PathNotFound, match=r'^"no/such" is neither in /etc nor in that of the'):
        machine.reset("no/such")


def test_a_path_behind_a_symlink_is_nowhere(machine: Machine) -> None:
    (machine.etc / "alias").symlink_to("ssh")
    with pytest.raises(PathNotFound):
        machine.reset("alias/config")
    assert (machine.etc / "ssh/config").read_text() == "Port 22"


def test_a_directory_that_is_none_here_is_reset_first(machine: Machine) -> None:
    shutil.rmtree(machine.etc / "ssh")
    (machine.etc / "ssh").symlink_to("/usr/share")
    with pytest.raises(CannotReset, match=r'^"ssh" is not a directory in /etc$') as caught:
        machine.reset("ssh/config")
    assert caught.value.hint == "reset that first"


def test_all_of_etc_is_refused(machine: Machine) -> None:
    with pytest.raises(CannotReset, match="would remove the identity"):
        machine.reset("")


@pytest.mark.root
@pytest.mark.parametrize(
    ("path", "protected", "named"),
    [("motd", "motd", "motd"), ("ssh", "ssh/config", "ssh/config"), ("ssh/new", "ssh", "ssh")],
)
def test_what_chattr_protects_is_not_reset(
    machine: Machine, path: str, protected: str, named: str
) -> None:
    (machine.etc / "motd").write_text("local")
    (machine.etc / "ssh/config").write_text("local")
    (machine.etc / "ssh/new").write_text("local")
    before = machine.contents()
    set_flags(machine.etc / protected, IMMUTABLE)
    try:
        with pytest.raises(CannotReset) as caught:
            machine.reset(path)
    finally:
        unprotect(machine.etc)
    assert one_line(caught.value) == (
        f'"{named}" is immutable or append-only (hint: first: chattr -i -a /etc/{named})'
    )
    assert (machine.contents(), machine.left_over()) == (before, ["etc"])


def test_damaged_content_changes_nothing(machine: Machine) -> None:
    (machine.etc / "long").write_text("local")
    with machine.local() as (state, local):
        (machine.image / "long").write_bytes(LONG[:-1] + b"y")
        with pytest.raises(ContentChanged):
            reset(state, local, b"long")
    assert (machine.etc / "long").read_text() == "local"


def test_an_interruption_is_survived(machine: Machine, monkeypatch, pristine) -> None:
    def fail(*args: object) -> None:
        raise OSError(5, "Input/output error")

    (machine.etc / "motd").write_text("local")
    with monkeypatch.context() as patched:
        patched.setattr(files, "renameat2", fail)
        with pytest.raises(OSError, match="Input/output error") as caught:
            machine.reset("motd")
    assert caught.value.__notes__ == ['Resetting "motd"']
    assert (machine.etc / "motd").read_text() == "local"
    assert machine.reset("motd") is ResetOutcome.RESTORED
    assert machine.contents() == pristine
    assert machine.left_over() == ["etc"]


def test_decisions_are_recorded_once_and_forgotten(machine: Machine) -> None:
    (machine.etc / "mine").write_text("x")
    new = etc(theirs="x")
    with machine.local() as (state, local):
        trees = [local.pristine, local.current.tree, new]
        for path in (b"motd", b"mine", b"theirs", b"ssh/config", b""):
            assert decide(state, trees, path, Choice.KEEP)
            assert not decide(state, trees, path, Choice.KEEP)
        assert decide(state, trees, b"mine", Choice.TAKE)
        assert read_decisions(state)[b"mine"] is Choice.TAKE
        assert forget(state, b"mine")
        assert not forget(state, b"mine")
        assert sorted(read_decisions(state)) == [b"", b"motd", b"ssh/config", b"theirs"]


def test_no_decision_about_what_is_nowhere(machine: Machine) -> None:
    with machine.local() as (state, local):
        with pytest.raises(PathNotFound, match=r'^"mtd" is neither in /etc nor in that'):
            decide(state, [local.pristine, local.current.tree], b"mtd", Choice.KEEP)
        assert read_decisions(state) == {}


def test_damaged_decisions_are_not_overwritten(machine: Machine) -> None:
    with machine.local() as (state, local):
        (machine.state / "etc-decisions.json").write_text("{")
        with pytest.raises(MalformedDecisions):
            decide(state, [local.pristine], b"motd", Choice.KEEP)
        with pytest.raises(MalformedDecisions):
            forget(state, b"motd")
    assert (machine.state / "etc-decisions.json").read_text() == "{"


def test_a_review_without_anything_staged(machine: Machine) -> None:
    (machine.etc / "motd").write_text("local")
    (machine.etc / "mine").write_text("x")
    (machine.etc / "long").unlink()
    with machine.local() as (_, local):
        found = review(local, None)
    assert [(change.path, change.kind.value) for change in found.changes] == [
        (b"mine", "Added"),
        (b"motd", "Modified"),
        (b"long", "Removed"),
    ]
    assert (dict(found.decisions), found.staged) == ({}, None)


@pytest.mark.parametrize(
    ("policy", "resolution"),
    [(ConflictPolicy.FAIL, None), (ConflictPolicy.KEEP_LOCAL, Choice.KEEP)],
)
def test_how_a_merge_would_end(machine: Machine, policy, resolution) -> None:
    (machine.etc / "motd").write_text("local")
    (machine.etc / "ssh/config").write_text("Port 2222")
    (machine.etc / "ssh/moduli").write_text("4 5 6")
    new = etc(motd="newer", ssh=directory(0o711, config=directory(x="y")), added="new")
    # Nobody changed this one in the image.
    with machine.local() as (_, local):
        new.entries[b"ssh"].entries[b"moduli"] = local.pristine.lookup(b"ssh/moduli")  # type: ignore[union-attr,assignment]
        found = review(local, StagedEtc(STAGED, new, policy)).staged
    assert found is not None
    assert (found.deployment, found.policy) == (STAGED, policy)
    assert [(c.path, c.resolution) for c in found.conflicts] == [(b"ssh/config", resolution)]
    assert found.shadowed == (b"motd",)


def test_decisions_settle_a_review(machine: Machine) -> None:
    (machine.etc / "motd").write_text("local")
    (machine.etc / "ssh/config").write_text("Port 2222")
    new = etc(motd="newer", ssh=directory(config=directory(x="y")))
    with machine.local() as (state, local):
        for path in (b"motd", b"ssh/config"):
            decide(state, [local.pristine], path, Choice.TAKE)
    with machine.local() as (_, local):
        found = review(local, StagedEtc(STAGED, new, ConflictPolicy.FAIL))
    assert found.staged is not None
    assert (found.staged.conflicts, found.staged.shadowed) == ((), ())
    assert set(found.decisions) == {b"motd", b"ssh/config"}


def test_both_sides_made_the_same_change(machine: Machine) -> None:
    (machine.etc / "motd").write_text("newer")
    with machine.local() as (_, local):
        same = local.current.tree.lookup("motd")
        assert same is not None
        new = etc(motd=same)
        found = review(local, StagedEtc(STAGED, new, ConflictPolicy.FAIL)).staged
    assert found is not None
    assert found.shadowed == ()
