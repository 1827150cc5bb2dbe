"""Repositories without ``meta.json``, and giving a repository a new one.

Before 2026 a repository consisted of its ``objects/``, and no file described them
(composefs, "init, ensure, upgrade, reset"). Owns: inferring the description from the objects
themselves. Promises:

- The result never weakens the caller's demand: with ``secure``, objects without fs-verity
  make no repository.
- Objects are neither changed nor deleted.

An upgraded repository keeps the EROFS format of its images. Images of another format would
get other digests than the existing deployments. Repositories from before 2026 have format 2;
a newer repository may have lost its ``meta.json``. (The reference implementation records 1.)
A command that writes to a repository calls :func:`upgrade` before it opens the repository. A
command that only reads passes :func:`infer` to :meth:`Repository.open`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import os
from collections.abc import Iterator
from typing import TypedDict

from bootc.errors import doing
from bootc.events import Sink, null_sink
from bootc.formats.digest import Algorithm
from bootc.fs.dir import Dir
from bootc.fs.lock import lock_exclusive
from bootc.kernel import fsverity
from bootc.repository import layout
from bootc.repository.adoption import sample_objects
from bootc.repository.links import MAX_ENTRIES, BrokenReference, parse_object_link
from bootc.repository.metadata import (
    DEFAULT_EROFS_FORMAT,
    EROFS_FORMATS,
    ErofsFormats,
    Metadata,
)
from bootc.repository.refs import read_link
from bootc.repository.repository import (
    NotARepository,
    Repository,
    RepositoryExists,
    write_metadata,
)
from bootc.repository.sealing import Verity, VerityMissing

#: The format of repositories that are older than the choice.
_OLD_FORMAT = 2
#: How many images are read for their format.
_SAMPLE = 1000


class InitOutcome(enum.Enum):
    """What :func:`ensure` had to do."""

    OPENED = "opened"
    CREATED = "created"
    UPGRADED = "upgraded"


class _Settings(TypedDict):
    """Arguments that are passed on unchanged to :meth:`Repository.open`."""

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
) -> tuple[Repository, InitOutcome]:
    """Open the repository of a physical root for writing; create or upgrade it if needed.

    Unlike :meth:`Repository.create`, this accepts a repository whose images have another format.

    Args:
        parent: The directory that holds, or shall hold, the repository.
        name: The repository's name in it.
        algorithm: The algorithm that must name the objects. None accepts any, and a new
            repository gets SHA-512.
        erofs_format: The default format version of images, if the repository is new.
        secure: Demand fs-verity of everything.
        wait: As for :meth:`Repository.open`.
        sink: As for :meth:`Repository.open`.
        verity: The kernel's ioctls.

    Raises:
        VerityMissing: the file system has no fs-verity, or the existing objects have none.
        RepositoryExists: objects are named by another algorithm.
        NotARepository: there is an ``objects/``, but no object in it tells the algorithm.
        MetadataError, UnsupportedRepository: ``meta.json`` cannot be honoured.
    """
    settings = _Settings(name=name, wait=wait, sink=sink, verity=verity)
    outcome = InitOutcome.OPENED
    if needs_upgrade(parent, name):
        upgrade(parent, name=name, algorithm=algorithm, secure=secure, verity=verity)
        outcome = InitOutcome.UPGRADED
    elif not parent.exists(f"{name}/{layout.META}"):
        return Repository.create(
            parent,
            algorithm=algorithm or Algorithm.SHA512,
            erofs_format=erofs_format,
            secure=secure,
            **settings,
        ), InitOutcome.CREATED
    repository = Repository.open(parent, require_verity=secure, writable=True, **settings)
    if algorithm not in (None, repository.algorithm):
        repository.close()
        raise _named_otherwise(repository.dir.path, repository.algorithm, algorithm)
    return repository, outcome


def needs_upgrade(parent: Dir, name: str = layout.REPOSITORY) -> bool:
    """Tell whether there is a repository with objects and without ``meta.json``."""
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
    """Write the ``meta.json`` that describes the objects of a repository.

    Args:
        parent: The directory that holds the repository.
        name: The repository's name in it.
        algorithm: The algorithm that must name the objects; None accepts any.
        secure: Demand that they have fs-verity.
        verity: The kernel's ioctls.

    Raises:
        VerityMissing: the objects were made without fs-verity.
        RepositoryExists: objects are named by another algorithm.
        NotARepository: no object tells the algorithm.
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
    """Remove all streams, images and ``meta.json``, keep the objects, and write ``meta.json``.

    At no moment can the repository be opened while it refers to nothing, so no garbage
    collection can remove the objects meanwhile. An interrupted reset can be repeated.

    Raises:
        NotARepository: the repository does not exist.
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
            directory.remove_tree(layout.VERIFIED)
            metadata = Metadata.new(algorithm, erofs_format)
            write_metadata(directory, metadata, secure=secure, verity=verity)
    return Repository.open(parent, name=name, require_verity=secure, writable=True, verity=verity)


def _upgrade(directory: Dir, algorithm: Algorithm | None, *, secure: bool, verity: Verity) -> None:
    with doing(f"Upgrading the repository {directory.path}"):
        metadata, sealed = infer(directory, algorithm, secure=secure, verity=verity)
        write_metadata(directory, metadata, secure=sealed, verity=verity)


def infer(
    directory: Dir,
    algorithm: Algorithm | None = None,
    *,
    secure: bool = False,
    verity: Verity = fsverity,
) -> tuple[Metadata, bool]:
    """Infer the description of a repository without ``meta.json``, and whether it is secure.

    Args:
        directory: The repository.
        algorithm: The algorithm that must name the objects; None accepts any.
        secure: Demand that they have fs-verity.
        verity: The kernel's ioctls.

    Raises:
        VerityMissing: the objects were made without fs-verity.
        RepositoryExists: objects are named by another algorithm.
        NotARepository: no object tells the algorithm.
    """
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
    formats = _formats(directory)
    metadata = Metadata.new(found, formats.default)
    # Some objects have fs-verity and some do not. Only a caller who demands fs-verity gets a
    # secure repository: it refuses the objects without, one by one.
    return (
        dataclasses.replace(metadata, erofs_formats=formats),
        secure or sealed == {True},
    )


def _formats(directory: Dir) -> ErofsFormats:
    """Return the formats of the images that are there.

    If there are images of both formats, current tools made the newer ones, with format 1 as
    their default; pulls continue to make both. No pull makes format 0.
    """
    found = set(_versions(directory))
    for default in (1, 2, 0):
        if default in found:
            extra = (2,) if default == 1 and 2 in found else ()
            return ErofsFormats(default, extra)
    return ErofsFormats(_OLD_FORMAT)


def _versions(directory: Dir) -> Iterator[int]:
    """Yield the format versions of registered images, as far as they can be read."""
    try:
        with directory.open_dir(layout.IMAGES) as images:
            names = images.names(MAX_ENTRIES)[:_SAMPLE]
    except (FileNotFoundError, NotADirectoryError):
        return
    # Every command of a host imports this module, and only old repositories come here.
    from bootc.formats.erofs.structs import COMPOSEFS_HEADER, COMPOSEFS_MAGIC

    for name in names:
        try:
            image = parse_object_link(read_link(directory, layout.image_path(name)), name)
            fd = directory.open_regular(layout.object_path(image.hex))
        except (BrokenReference, OSError):
            continue  # damaged, or no image: the other images tell as much
        with open(fd, "rb", buffering=0) as file, contextlib.suppress(OSError):
            head = os.pread(file.fileno(), COMPOSEFS_HEADER.size, 0)
            if len(head) == COMPOSEFS_HEADER.size:
                magic, _, _, version = COMPOSEFS_HEADER.unpack(head)
                if magic == COMPOSEFS_MAGIC and version in EROFS_FORMATS:
                    yield version


def _named_otherwise(path: str, found: Algorithm, wanted: Algorithm) -> RepositoryExists:
    return RepositoryExists(f"{path} names objects by {found.label} and not {wanted.label}")
