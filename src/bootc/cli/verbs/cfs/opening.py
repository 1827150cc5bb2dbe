"""The repository that ``cfs`` verbs work on, and how they open it.

This module gives the options of the group their meaning. Promises: no option makes a
repository less secure, and with ``--no-upgrade`` a repository without ``meta.json`` remains
unchanged.

Source: composefs, "cfsctl dispatch" and "Layout and locations".
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bootc.cli.options import Context
from bootc.errors import Error, UsageError, doing

if TYPE_CHECKING:
    from bootc.formats.digest import Algorithm
    from bootc.fs.dir import Dir
    from bootc.repository.metadata import Metadata
    from bootc.repository.repository import Repository

_SYSTEM = "/sysroot/composefs"
_USER = "~/.var/lib/composefs"
_GROUP = "bootc internals cfs "
#: Its options that choose a repository.
_CHOICES = ("--repo ", "--user ", "--system ")
_MAKE_ONE = f"{_GROUP}init makes one"


class WrongAlgorithm(Error):
    """The repository names its objects by another algorithm than ``--hash`` says."""


def parse_algorithm(text: str) -> Algorithm:
    """Parse the name of an algorithm: that of the hash, or the label in ``meta.json``."""
    from bootc.formats.digest import Algorithm

    for algorithm in Algorithm:
        if text in (algorithm.hash_name, algorithm.label):
            return algorithm
    raise argparse.ArgumentTypeError(f"{text!r:.80} is neither sha256 nor sha512")


def parse_erofs_version(text: str) -> int:
    """Parse the number of a version of the image format."""
    if text not in ("0", "1", "2"):
        raise argparse.ArgumentTypeError(f"{text!r:.80} is neither 0, 1 nor 2")
    return int(text)


def repository_path(args: argparse.Namespace) -> str:
    """Return the path of the repository, which need not exist, without symlinks.

    Raises:
        UsageError: the options name more than one repository.
    """
    if sum((args.repo is not None, args.user, args.system)) > 1:
        raise UsageError("--repo, --user and --system exclude each other")
    if args.repo is not None:
        path: str = args.repo
    elif args.user or (not args.system and os.geteuid() != 0):
        path = os.path.expanduser(_USER)
    else:
        path = _SYSTEM
    return os.path.realpath(path)


def parent_and_name(path: str) -> tuple[str, str]:
    """Split the path of a repository the way :meth:`Repository.open` wants it."""
    parent, name = os.path.split(path)
    return parent, name or "."


@contextlib.contextmanager
def hints_for(args: argparse.Namespace, path: str | None = None) -> Iterator[None]:
    """Let hints that name a command of the group name the repository that the user chose.

    Args:
        args: The command line.
        path: The repository, if it was not chosen by an option of the group.
    """
    from bootc.formats.shellquote import shell_quoted

    path = args.repo if path is None else path
    if path is not None:
        option = f"--repo {shell_quoted(path)} "
    else:
        option = "--user " if args.user else "--system " if args.system else ""
    try:
        yield
    except Error as exc:
        # A verb with two repositories leaves two blocks. The inner one has named its own.
        if exc.hint is not None and not any(_GROUP + choice in exc.hint for choice in _CHOICES):
            exc.hint = exc.hint.replace(_GROUP, _GROUP + option)
        raise


@contextlib.contextmanager
def opened(
    args: argparse.Namespace,
    context: Context,
    *,
    writable: bool,
    adopt: bool = False,
    hint: str = _MAKE_ONE,
) -> Iterator[Repository]:
    """Open the repository for the length of a block, as the options of the group say.

    An old repository has no ``meta.json``. A verb that writes adds one first. For a verb that
    reads, the objects tell the algorithm.

    Args:
        args: The command line.
        context: The context of the command.
        writable: Open the repository for writing.
        adopt: With ``--require-verity``, accept a ``meta.json`` without fs-verity, and require
            fs-verity of every object.
        hint: What to do if there is no repository.

    Raises:
        UsageError: the options contradict each other, or leave no repository.
        NotARepository: there is no repository, or an old one and ``--no-upgrade``.
        WrongAlgorithm: the algorithm is not the one of ``--hash``.
        LockedByOther: another process has an exclusive lock, and ``--no-wait`` was given.
        VerityMissing: the repository is not secure, and ``--require-verity`` was given.
        MetadataError, UnsupportedRepository: bootc cannot follow its ``meta.json``.
        OSError: for example EROFS or EACCES, if the verb has to write.
    """
    from bootc.fs.dir import Dir
    from bootc.repository.repository import NotARepository

    _check_options(args)
    path = repository_path(args)
    above, name = parent_and_name(path)
    with hints_for(args), contextlib.ExitStack() as stack:
        try:
            parent = stack.enter_context(Dir.open(above))
            repository = _open(parent, name, args, context, writable=writable, adopt=adopt)
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise NotARepository(f"there is no repository {path}", hint=hint) from exc
        except NotARepository as exc:
            raise NotARepository(exc.message, hint=exc.hint or hint) from exc
        stack.enter_context(repository)
        _check_algorithm(args, repository.algorithm, path)
        yield repository


def _open(
    parent: Dir,
    name: str,
    args: argparse.Namespace,
    context: Context,
    *,
    writable: bool,
    adopt: bool,
) -> Repository:
    from bootc.repository.legacy import infer, upgrade
    from bootc.repository.repository import Repository

    def as_its_objects_say(directory: Dir) -> tuple[Metadata, bool]:
        return infer(directory, args.hash, secure=args.require_verity)

    headless = _needs_upgrade(parent, name, args)
    if headless and writable:
        upgrade(parent, name=name, algorithm=args.hash, secure=args.require_verity)
    return Repository.open(
        parent,
        name=name,
        require_verity=args.require_verity,
        adopt=adopt,
        writable=writable,
        wait=not args.no_wait,
        sink=context.sink,
        infer=as_its_objects_say if headless and not writable else None,
    )


def _needs_upgrade(parent: Dir, name: str, args: argparse.Namespace) -> bool:
    from bootc.repository.legacy import needs_upgrade
    from bootc.repository.repository import NotARepository

    headless = needs_upgrade(parent, name)
    if headless and args.no_upgrade:
        path = f"{parent.path.rstrip('/')}/{name}"
        raise NotARepository(
            f"{path} is a repository of an older format, without meta.json",
            hint="leave out --no-upgrade: the command upgrades it",
        )
    return headless


def _check_options(args: argparse.Namespace) -> None:
    if args.no_repo:
        raise UsageError("this command needs a repository", hint="leave out --no-repo")
    if args.insecure and args.require_verity:
        raise UsageError("--insecure and --require-verity exclude each other")


def algorithm_without_repository(args: argparse.Namespace) -> Algorithm:
    """Return the digest algorithm for a verb that needs no repository.

    It is that of the repository if there is one, else that of ``--hash``, else SHA-512.

    Raises:
        UsageError: the options name more than one repository.
        WrongAlgorithm: the algorithm of the repository is not the one of ``--hash``.
        MetadataError, UnsupportedRepository: bootc cannot follow the ``meta.json``.
    """
    from bootc.formats.digest import Algorithm
    from bootc.fs.dir import Dir
    from bootc.repository import layout
    from bootc.repository.metadata import MAX_BYTES, Metadata

    asked: Algorithm = args.hash or Algorithm.SHA512
    path = repository_path(args)
    if args.no_repo:
        return asked
    with doing(f"Asking the repository {path} for its algorithm"):
        try:
            with Dir.open(path) as directory:
                data = directory.read_bytes(layout.META, MAX_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return asked
        found = Metadata.parse(data, f"{path}/{layout.META}").algorithm
    _check_algorithm(args, found, path)
    return found


def _check_algorithm(args: argparse.Namespace, found: Algorithm, path: str) -> None:
    if args.hash not in (None, found):
        raise WrongAlgorithm(
            f"{path} names objects by {found.label} and not {args.hash.label}",
            hint="leave out --hash, or name another repository",
        )
