"""The findings of a check of a repository, as values.

The kinds have composefs-rs's names (composefs, "fsck"). A report lists findings in the order
of their paths, whatever the order of the check. :mod:`bootc.cli.render.fsck` prints it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import StrEnum

from bootc.errors import one_line
from bootc.formats.digest import Digest
from bootc.printable import printable


class FsckKind(StrEnum):
    """What can be wrong with a repository."""

    OBJECT_INVALID_NAME = "object-invalid-name"
    OBJECT_OPEN_FAILED = "object-open-failed"
    OBJECT_DIGEST_MISMATCH = "object-digest-mismatch"
    OBJECT_VERITY_FAILED = "object-verity-failed"
    OBJECT_VERITY_MISSING = "object-verity-missing"
    ENTRY_NOT_SYMLINK = "entry-not-symlink"
    BROKEN_SYMLINK = "broken-symlink"
    STAT_FAILED = "stat-failed"
    UNEXPECTED_FILE_TYPE = "unexpected-file-type"
    STREAM_OPEN_FAILED = "stream-open-failed"
    MISSING_OBJECT_REF = "missing-object-ref"
    STREAM_READ_FAILED = "stream-read-failed"
    MISSING_NAMED_REF = "missing-named-ref"
    OBJECT_CHECK_FAILED = "object-check-failed"
    IMAGE_OPEN_FAILED = "image-open-failed"
    IMAGE_READ_FAILED = "image-read-failed"
    IMAGE_INVALID = "image-invalid"
    IMAGE_MISSING_OBJECT = "image-missing-object"
    METADATA_PARSE_FAILED = "metadata-parse-failed"
    METADATA_ALGORITHM_MISMATCH = "metadata-algorithm-mismatch"


#: A reference to an object that is not there, from a stream or an image.
MISSING = frozenset(
    {FsckKind.MISSING_OBJECT_REF, FsckKind.MISSING_NAMED_REF, FsckKind.IMAGE_MISSING_OBJECT}
)


@dataclass(frozen=True, slots=True)
class FsckFinding:
    """One thing that is wrong. ``str()`` is its line in a report."""

    kind: StrEnum
    #: Below the repository; for an image, its name.
    path: str
    detail: str = ""
    #: The object that is damaged, or missed.
    digest: Digest | None = None

    def __str__(self) -> str:
        text = f"fsck: {self.kind.value}: {self.path}"
        return printable(f"{text}: {self.detail}" if self.detail else text)


def why(exc: Exception, path: str) -> str:
    """Return the detail of a finding about a path: what failed, and with which other file.

    >>> why(OSError(13, "Permission denied", "/repo/streams/x"), "streams/x")
    'Permission denied'
    >>> why(OSError(13, "Permission denied", "/repo/objects/ab/cd"), "streams/x")
    '/repo/objects/ab/cd: Permission denied'
    """
    if not isinstance(exc, OSError) or exc.filename is None or not exc.strerror:
        return one_line(exc)
    # The notes of an error that names its file repeat the name.
    name = os.fsdecode(exc.filename)
    return exc.strerror if f"/{name}".endswith(f"/{path}") else f"{name}: {exc.strerror}"


@dataclass(frozen=True, slots=True)
class Count:
    """How many were looked at, and how many of them are damaged."""

    checked: int = 0
    corrupted: int = 0


@dataclass(frozen=True, slots=True)
class FsckReport:
    """The outcome of a check."""

    #: There is a ``meta.json``.
    has_metadata: bool
    objects: Count = Count()
    streams: Count = Count()
    images: Count = Count()
    findings: tuple[FsckFinding, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.findings

    @property
    def broken_links(self) -> int:
        """Links that lead to nothing."""
        return sum(finding.kind is FsckKind.BROKEN_SYMLINK for finding in self.findings)

    @property
    def missing_objects(self) -> int:
        """References to objects that are not there; two to one object are two."""
        return sum(finding.kind in MISSING for finding in self.findings)

    @property
    def metadata(self) -> str:
        """The state of ``meta.json``: ok, absent, or error."""
        wrong = (FsckKind.METADATA_PARSE_FAILED, FsckKind.METADATA_ALGORITHM_MISMATCH)
        if any(finding.kind in wrong for finding in self.findings):
            return "error"
        return "ok" if self.has_metadata else "absent"
