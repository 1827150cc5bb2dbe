"""Adopting a repository that another implementation made, if fs-verity is required.

fs-verity on ``meta.json`` means that every object of the repository has fs-verity
(composefs, "meta.json"). Upstream's installation leaves it off, although all objects have
fs-verity and the kernel command line requires it (bootc, "Known limitations and bugs").
:meth:`Repository.open` with ``adopt`` opens such a repository and requires fs-verity of each
object; this module then enables it on ``meta.json``, once. Promises:

- Nothing becomes weaker at any time. If an object of a sample has no fs-verity, nothing
  changes. :func:`bootc.repository.fsck.check` checks all objects.
- The only change is fs-verity on ``meta.json``, which the kernel enables wholly or not at
  all.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bootc.errors import doing, one_line
from bootc.events import Message, Sink, null_sink
from bootc.formats.digest import Algorithm, Digest
from bootc.fs.dir import Dir
from bootc.kernel import fsverity
from bootc.repository import layout
from bootc.repository import sealing as sealing
from bootc.repository.repository import Repository
from bootc.repository.sealing import Verity, VerityMissing

_log = logging.getLogger(__name__)

_BUCKET = re.compile(r"[0-9a-f]{2}\Z")
_REST = re.compile(r"[0-9a-f]+\Z")
_ALGORITHMS = {2 * algorithm.digest_size - 2: algorithm for algorithm in Algorithm}


@dataclass(frozen=True, slots=True)
class Sampled:
    """An object of a sample.

    Attributes:
        path: Below the repository.
        algorithm: What it is named by.
        has_verity: Whether it has fs-verity of that algorithm.
    """

    path: str
    algorithm: Algorithm
    has_verity: bool


def sample_objects(directory: Dir, verity: Verity) -> Iterator[Sampled]:
    """Yield one object of each of the 256 directories of a repository's objects."""
    try:
        store = directory.open_dir(layout.OBJECTS)
    except FileNotFoundError:
        return
    with store:
        for bucket in filter(_BUCKET.match, store.names()):
            try:
                below = store.open_dir(bucket)
            except OSError as exc:
                if exc.errno in (errno.ENOTDIR, errno.ELOOP):
                    continue
                raise
            with below:
                for name in filter(_REST.match, below.names()):
                    algorithm = _ALGORITHMS.get(len(name))
                    if algorithm and stat.S_ISREG(below.stat(name).st_mode):
                        path = f"{layout.OBJECTS}/{bucket}/{name}"
                        yield Sampled(path, algorithm, _has_verity(below, name, algorithm, verity))
                        break


def require_adoptable(repository: Repository, *, verity: Verity = fsverity) -> None:
    """Refuse a repository if an object of a sample has no fs-verity.

    Raises:
        VerityMissing: an object has no fs-verity.
        OSError: the repository cannot be read.
    """
    with doing(f"Checking that the objects of {repository.dir.path} have fs-verity"):
        for sampled in sample_objects(repository.dir, verity):
            if not sampled.has_verity:
                raise VerityMissing(
                    f"{repository.dir.path}/{sampled.path} has no fs-verity, "
                    "and the kernel command line demands it",
                    hint="bootc internals cfs --require-verity fsck --repair enables it where "
                    "the content is intact",
                )


def adopt(repository: Repository, sink: Sink = null_sink, *, verity: Verity = fsverity) -> None:
    """Enable fs-verity on a repository's ``meta.json``, and send a message.

    The caller has checked the objects with :func:`require_adoptable`. A failure only causes a
    warning: this handle requires fs-verity in any case, and the next command tries again.
    """
    where = f"{repository.dir.path}/{layout.META}"
    try:
        fd = repository.dir.open_regular(layout.META)
        with open(fd, "rb", buffering=0):
            sealing.enable_in_place(fd, repository.algorithm, verity)
            os.fsync(fd)
    except OSError as exc:
        _log.warning("fs-verity cannot be enabled on %s for now: %s", where, one_line(exc))
        return
    repository.sealed = True
    sink(Message(f"Adopted {repository.dir.path}: fs-verity is enabled on its {layout.META}, too."))


def find_without_verity(
    repository: Repository, digests: Iterable[Digest], *, verity: Verity = fsverity
) -> Digest | None:
    """Return the first of these objects without fs-verity, or None if all have it.

    Raises:
        Error, OSError: an object is missing or damaged.
    """
    for digest in digests:
        with open(repository.objects.open(digest), "rb", buffering=0) as file:
            if sealing.measure(file.fileno(), verity) is None:
                return digest
    return None


def _has_verity(below: Dir, name: str, algorithm: Algorithm, verity: Verity) -> bool:
    fd = below.open_file(name, os.O_RDONLY | os.O_NONBLOCK)
    with open(fd, "rb", buffering=0):
        measured = sealing.measure(fd, verity)
    return measured is not None and measured[0] == algorithm.value
