"""Repositories that have no ``meta.json``, or shall get another.

Before 2026 a repository was its ``objects/`` and nothing said what they were
(composefs, "init, ensure, upgrade, reset"). Owns: guessing that, from the objects
themselves, once. Promises:

- What is found never weakens what the caller demands: with ``secure``, objects without
  fs-verity make no repository.
- Objects are neither changed nor deleted.

A repository upgraded here keeps the EROFS format its images have, which is 2. The
reference implementation means to, and records 1; its images then get other digests than
the deployments that are there already.
"""

from __future__ import annotations

import contextlib
import enum
from typing import TypedDict

from bootc.errors import doing
from bootc.events import Sink, null_sink
from bootc.formats.digest import Algorithm
from bootc.fs.dir import Dir
from bootc.fs.lock import lock_exclusive
from bootc.kernel import fsverity
from bootc.repository import layout
from bootc.repository.adoption import sample_objects
from bootc.repository.metadata import DEFAULT_EROFS_FORMAT, Metadata
from bootc.repository.repository import (
    NotARepository,
    Repository,
    RepositoryExists,
    write_metadata,
)
from bootc.repository.verity import Verity, VerityMissing


class Outcome(enum.Enum):
    """What :func:`ensure` had to do."""

    OPENED = "opened"
    CREATED = "created"
    UPGRADED = "upgraded"


class _Settings(TypedDict):
    """What goes on unchanged to whoever opens the repository."""

    name: str
    wait: bool
    sink: Sink
    verity: Verity


def ensure(
    parent: Dir,
    *,
    name: str = layout.REPOSITORY,
    algorithm: Algorithm | None = Algorithm.SHA512,
    erofs_format: int = DEFAULT_EROFS_FORMAT,
    secure: bool,
    wait: bool = True,
    sink: Sink = null_sink,
    verity: Verity = fsverity,
) -> tuple[Repository, Outcome]:
    """Open the repository of a physical root for writing, whatever has to be done for it.

    Unlike :meth:`Repository.create` this takes a repository whose images have another format.

    Args:
        parent: The directory that holds, or shall hold, the repository.
        name: The repository's name in it.
        algorithm: What objects have to be named by; if None, what they are named by, and
            SHA-512 in a new repository.
        erofs_format: The format version images have by default, when it is made now.
        secure: Demand fs-verity of everything.
        wait: As for :meth:`Repository.open`.
        sink: As for :meth:`Repository.open`.
        verity: The kernel's ioctls.

    Raises:
        VerityMissing: the file system has no fs-verity, or what is there was made without.
        RepositoryExists: objects are named by another algorithm.
        NotARepository: there is an ``objects/``, but nothing in it tells what it is.
        MetadataError, UnsupportedRepository: ``meta.json`` cannot be honoured.
    """
    settings = _Settings(name=name, wait=wait, sink=sink, verity=verity)
    outcome = Outcome.OPENED
    if needs_upgrade(parent, name):
        upgrade(parent, name=name, algorithm=algorithm, secure=secure, verity=verity)
        outcome = Outcome.UPGRADED
    elif not parent.exists(f"{name}/{layout.META}"):
        return Repository.create(
            parent,
            algorithm=algorithm or Algorithm.SHA512,
            erofs_format=erofs_format,
            secure=secure,
            **settings,
        ), Outcome.CREATED
    repository = Repository.open(parent, require_verity=secure, writable=True, **settings)
    if algorithm not in (None, repository.algorithm):
        repository.close()
        raise _named_otherwise(repository.dir.path, repository.algorithm, algorithm)
    return repository, outcome


def needs_upgrade(parent: Dir, name: str = layout.REPOSITORY) -> bool:
    """Tell whether there is a repository that nothing speaks for: objects, and no ``meta.json``."""
    try:
        with parent.open_dir(name) as directory:
            return directory.exists(layout.OBJECTS) and not directory.exists(layout.META)
    except FileNotFoundError:
        return False


def upgrade(
    parent: Dir,
    *,
    name: str = layout.REPOSITORY,
    algorithm: Algorithm | None = None,
    secure: bool,
    verity: Verity = fsverity,
) -> None:
    """Give a repository of objects the ``meta.json`` that says what they are.

    Args:
        parent: The directory that holds the repository.
        name: The repository's name in it.
        algorithm: What objects have to be named by; whatever they are named by if left out.
        secure: Demand that they have fs-verity.
        verity: The kernel's ioctls.

    Raises:
        VerityMissing: the objects were made without fs-verity.
        RepositoryExists: objects are named by another algorithm.
        NotARepository: nothing tells what it is.
        OSError: EROFS among others.
    """
    with parent.open_dir(name) as directory:
        _upgrade(directory, algorithm, secure=secure, verity=verity)


def reset_metadata(
    parent: Dir,
    *,
    name: str = layout.REPOSITORY,
    algorithm: Algorithm = Algorithm.SHA512,
    erofs_format: int = DEFAULT_EROFS_FORMAT,
    secure: bool,
    verity: Verity = fsverity,
) -> Repository:
    """Forget all streams, images and the configuration, keep the objects, and begin anew.

    There is no moment at which the repository can be opened and refers to nothing, so that no
    garbage collection takes the objects meanwhile. Interrupted, it can be done again.

    Raises:
        NotARepository: there is none.
        RepositoryExists: the objects are named by another algorithm.
        VerityMissing: the file system has no fs-verity.
        LockedByOther: another process uses the repository.
    """
    path = f"{parent.path.rstrip('/')}/{name}"
    with doing(f"Resetting the repository {path}"):
        try:
            directory = parent.open_dir(name)
        except FileNotFoundError as exc:
            raise NotARepository(f"there is no repository {path}") from exc
        with directory:
            lock_exclusive(directory)
            found = {sampled.algorithm for sampled in sample_objects(directory, verity)}
            if found - {algorithm}:
                raise _named_otherwise(path, found.pop(), algorithm)
            with contextlib.suppress(FileNotFoundError):
                directory.unlink(layout.META)
            directory.remove_tree(layout.STREAMS)
            directory.remove_tree(layout.IMAGES)
            metadata = Metadata.new(algorithm, erofs_format)
            write_metadata(directory, metadata, secure=secure, verity=verity)
    return Repository.open(parent, name=name, require_verity=secure, writable=True, verity=verity)


def _upgrade(directory: Dir, algorithm: Algorithm | None, *, secure: bool, verity: Verity) -> None:
    with doing(f"Upgrading the repository {directory.path}"):
        sample = list(sample_objects(directory, verity))
        kinds = {sampled.algorithm for sampled in sample}
        if len(kinds) != 1:
            raise NotARepository(
                f"{directory.path} has no meta.json, and its objects do not tell what it is",
                hint="remove the directory if nothing needs it",
            )
        found = kinds.pop()
        if algorithm not in (None, found):
            raise _named_otherwise(directory.path, found, algorithm)
        sealed = {sampled.has_verity for sampled in sample}
        if secure and True not in sealed:
            raise VerityMissing(
                f"the objects of {directory.path} have no fs-verity, and fs-verity is required",
                hint="fs-verity cannot be added later; install again or allow it to be missing",
            )
        # Some with, some without: that is a secure one to those who demand it, since objects
        # without are refused one by one, and to nobody else.
        write_metadata(
            directory,
            Metadata.new(found, erofs_format=2),
            secure=secure or sealed == {True},
            verity=verity,
        )


def _named_otherwise(path: str, found: Algorithm, wanted: Algorithm) -> RepositoryExists:
    return RepositoryExists(f"{path} names objects by {found.label} and not {wanted.label}")
