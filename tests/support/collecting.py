"""Repositories to collect garbage in."""

from __future__ import annotations

import os

from bootc.formats.digest import Digest
from bootc.repository.gc import GcReport
from bootc.repository.repository import Repository

NOTHING = GcReport(0, 0, 0, 0, 0, ())
ONE = {"a": b"a" * 100, "b": b"b" * 5000}
TWO = {"b": b"b" * 5000, "c": b"c" * 100}


def listing(repository: Repository) -> list[str]:
    return sorted(
        os.path.relpath(os.path.join(where, name), repository.dir.path)
        for where, below, names in os.walk(repository.dir.path)
        for name in [*below, *names]
    )


def hexes(digests: frozenset[Digest]) -> set[str]:
    return {digest.hex for digest in digests}


def damage(repository: Repository, digest: Digest) -> None:
    path = f"{repository.dir.path}/objects/{digest.object_path}"
    os.truncate(path, os.stat(path).st_size - 1)
    os.setxattr(path, "user.test.verity", b"\2" + bytes(64))
