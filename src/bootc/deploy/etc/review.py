"""Looking at the local changes of ``/etc``, deciding about them, and taking them back.

Owns: ``etc.reset`` in the state directory of the booted deployment, in which :func:`reset`
makes the image's version of a path before it exchanges the two. Promises: at every moment the
path has the local version or the image's, also if it is a directory. The image's version is on
the disk when :func:`reset` returns. An interrupted reset can be repeated. Mount points and
files that chattr(1) protects are not reset, because somebody wants to keep them. A decision is
about a path that exists on at least one side.
"""

from __future__ import annotations

import enum
import errno
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bootc.deploy.etc.apply import image_etc
from bootc.deploy.etc.decisions import read_decisions, write_decisions
from bootc.deploy.etc.diff import Change, local_changes, same, same_tree
from bootc.deploy.etc.local import LocalEtc, policy_of
from bootc.deploy.etc.merge import Choice, Conflict, ConflictPolicy
from bootc.deploy.host.facts import Facts
from bootc.deploy.host.session import HostAccess
from bootc.deploy.host.statedir import StateDir
from bootc.errors import Error, doing, one_line
from bootc.formats.digest import Digest
from bootc.formats.tree import Directory, Node, Stat
from bootc.fs.dir import Dir
from bootc.fs.mounts import mount_points_below
from bootc.fs.tree_write import write_tree
from bootc.kernel import files
from bootc.printable import printable

_log = logging.getLogger(__name__)

_ETC = "etc"
_RESET = "etc.reset"
_NAME = "made"


class PathNotFound(Error):
    """A path is in none of the trees in question."""


class CannotReset(Error):
    """The image's version of a path cannot be put in its place."""


@dataclass(frozen=True, slots=True)
class StagedEtc:
    """The ``/etc`` of a staged deployment's image, and the policy for conflicts with it."""

    deployment: Digest
    etc: Directory
    policy: ConflictPolicy


@dataclass(frozen=True, slots=True)
class MergeReview:
    """The result that the merge with a staged deployment would have now.

    Attributes:
        deployment: The staged deployment.
        policy: The policy for conflicts, which the user gave when it was staged.
        conflicts: The conflicts.
        shadowed: Other paths that both sides changed, and whose local version wins.
    """

    deployment: Digest
    policy: ConflictPolicy
    conflicts: tuple[Conflict, ...]
    shadowed: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Review:
    """The local changes, the decisions about them, and the merge with a staged deployment."""

    changes: tuple[Change, ...]
    decisions: Mapping[bytes, Choice]
    staged: MergeReview | None


class ResetOutcome(enum.Enum):
    """The result of resetting a path."""

    #: The path is as the image has it.
    RESTORED = "restored"
    #: The image does not have the path; it was a local addition, which is gone.
    REMOVED = "removed"
    #: The path was already as the image has it.
    UNCHANGED = "unchanged"


def read_staged_etc(system: HostAccess, facts: Facts) -> StagedEtc | None:
    """Return the ``/etc`` of the staged deployment's image, or None if nothing is staged.

    Raises:
        Error, OSError: its image cannot be read.
    """
    staged = facts.staged_id()
    if staged is None:
        return None
    image = system.repository.images.first_present(facts.images_of(staged))
    etc = image_etc(system.repository.objects, image)
    return StagedEtc(staged, etc, policy_of(facts, staged))


def review(local: LocalEtc, staged: StagedEtc | None) -> Review:
    """Compare the local ``/etc`` with the booted image's, and merge it on trial."""
    changes = local_changes(local.pristine, local.current.tree)
    merge = None if staged is None else _review_merge(local, staged)
    return Review(changes, local.decisions, merge)


def decide(state: StateDir, trees: Iterable[Directory], path: bytes, choice: Choice) -> bool:
    """Record which side wins for a path in every merge from now on.

    Args:
        state: The state directory whose ``/etc`` it is about.
        trees: All versions of ``/etc`` there are; one of them must have the path.
        path: Relative to ``/etc``.
        choice: The side.

    Returns:
        False if that was recorded already.

    Raises:
        PathNotFound: no tree has the path.
        MalformedDecisions, OSError: as reading and writing decisions raise.
    """
    if all(tree.lookup(path) is None for tree in trees):
        raise PathNotFound(
            f'"{printable(path)}" is neither in /etc nor in that of an image',
            hint="bootc etc diff lists what was changed",
        )
    decisions = read_decisions(state)
    if decisions.get(path) is choice:
        return False
    write_decisions(state, {**decisions, path: choice})
    return True


def forget(state: StateDir, path: bytes) -> bool:
    """Remove the decision about a path; return whether there was one.

    Raises:
        MalformedDecisions, OSError: as reading and writing decisions raise.
    """
    decisions = read_decisions(state)
    if decisions.pop(path, None) is None:
        return False
    write_decisions(state, decisions)
    return True


def reset(state: StateDir, local: LocalEtc, path: bytes) -> ResetOutcome:
    """Put the booted image's version of a path into the running ``/etc``.

    Args:
        state: The state directory of the booted deployment.
        local: Its ``/etc``.
        path: Relative to ``/etc``: a file, a symlink, or a directory with all that is in it.

    Raises:
        PathNotFound: neither the image nor ``/etc`` has the path.
        CannotReset: it is all of ``/etc``, not in a directory, mounted, or protected by
            chattr(1).
        Error, OSError: reading the image or writing failed.
    """
    if not path:
        raise CannotReset(
            "resetting all of /etc would remove the identity and the accounts of this machine",
            hint="name a path in it",
        )
    wanted, found = local.pristine.lookup(path), local.current.tree.lookup(path)
    if wanted is None and found is None:
        raise PathNotFound(
            f'"{printable(path)}" is neither in /etc nor in that of the booted image'
        )
    if same_tree(wanted, found):
        return ResetOutcome.UNCHANGED
    above, _, name = path.rpartition(b"/")
    parent_node = local.current.tree.lookup(above)
    if not isinstance(parent_node, Directory):
        raise CannotReset(
            f'"{printable(above)}" is not a directory in /etc', hint="reset that first"
        )
    _require_unprotected(path, found, above, parent_node)
    directory = state.dir
    with (
        doing(f'Resetting "{printable(path)}"'),
        directory.open_dir(_below_etc(above)) as parent,
    ):
        _require_unmounted(parent, os.fsdecode(name))
        directory.remove_tree(_RESET)
        directory.mkdir(_RESET, 0o700)
        with directory.open_dir(_RESET) as aside:
            if wanted is not None:
                # The temporary directory belongs to this process's user, and is removed later.
                top = Directory(Stat(0o700, os.geteuid(), os.getegid()), {_NAME.encode(): wanted})
                write_tree(top, aside, local.open_content)
                directory.sync()
            _trade(aside, parent, os.fsdecode(name), made=wanted is not None)
            os.fsync(parent.fileno())
    try:
        directory.remove_tree(_RESET)
    except OSError as exc:
        # The next reset tries again.
        _log.warning("the local version stays in %s: %s", state.path, one_line(exc))
    return ResetOutcome.REMOVED if wanted is None else ResetOutcome.RESTORED


def _require_unprotected(path: bytes, found: Node | None, above: bytes, parent: Directory) -> None:
    nodes: list[tuple[bytes, Node]] = [(above, parent)]
    if isinstance(found, Directory):
        nodes += [(path + below, node) for below, node in found.walk()]
    elif found is not None:
        nodes.append((path, found))
    for protected, node in nodes:
        if node.stat.protection:
            name = printable(protected.rstrip(b"/"))
            raise CannotReset(
                f'"{name}" is immutable or append-only', hint=f"first: chattr -i -a /etc/{name}"
            )


def _require_unmounted(parent: Dir, name: str) -> None:
    mounted = mount_points_below(parent, name)
    if mounted:
        raise CannotReset(
            f"something is mounted on {mounted[0]}", hint=f"first: umount {mounted[0]}"
        )


def _review_merge(local: LocalEtc, staged: StagedEtc) -> MergeReview:
    merge = local.merge(staged.etc, staged.policy)
    shadowed = []
    conflicting = {conflict.path for conflict in merge.conflicts}
    for change in merge.changes:
        before, now, new, merged = (
            tree.lookup(change.path)
            for tree in (local.pristine, local.current.tree, staged.etc, merge.tree)
        )
        stays = same(merged, now) if now is not None else merged is None
        differs = new is not None and not same(before, new) and not same(now, new)
        if stays and differs and change.path not in conflicting:
            shadowed.append(change.path)
    return MergeReview(staged.deployment, staged.policy, merge.conflicts, tuple(shadowed))


def _trade(aside: Dir, parent: Dir, name: str, *, made: bool) -> None:
    """Move what was made to its place and what is there aside, in one step."""
    there, here = (aside.fileno(), _NAME), (parent.fileno(), name)
    if not made:
        files.renameat2(*here, *there, files.RENAME_NOREPLACE)
        return
    try:
        files.renameat2(*there, *here, files.RENAME_EXCHANGE)
    except OSError as exc:
        if exc.errno != errno.ENOENT:
            raise
        files.renameat2(*there, *here, files.RENAME_NOREPLACE)


def _below_etc(path: bytes) -> str:
    return f"{_ETC}/{os.fsdecode(path)}" if path else _ETC
