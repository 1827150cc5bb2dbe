"""The ages of upstream's program, and how the disks that they leave differ.

Read off the specification: "Upstream 1.16.10 to 1.17.5" of the boot matrix, "On-disk layout"
and "Known limitations" of bootc, "meta.json" and "Differences from April 2026" of composefs.
:mod:`support.upstreamdisk` writes such disks, :mod:`support.upstream` goes on from them.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

#: ``meta.json`` before images had a choice of formats, and after.
_META: dict[str, object] = {
    "version": 1,
    "algorithm": "fsverity-sha512-12",
    "features": {"compatible": [], "read-only-compatible": [], "incompatible": []},
}
_V1_FEATURES = {"compatible": [], "read-only-compatible": ["v1_erofs"], "incompatible": []}


def _bytes(document: dict[str, object]) -> bytes:
    return json.dumps(document, indent=2).encode() + b"\n"


META_OLD = _bytes(_META)
META_V2 = _bytes(_META | {"erofs_formats": {"default": 2}})
META_V1 = _bytes(_META | {"features": _V1_FEATURES, "erofs_formats": {"default": 1}})
META_BOTH = _bytes(
    _META | {"features": _V1_FEATURES, "erofs_formats": {"default": 1, "extra": [2]}}
)


@dataclass(frozen=True, slots=True)
class Age:
    """One age of upstream's program, with the disk that its installation leaves.

    Attributes:
        name: The releases.
        meta: ``meta.json`` of the repository, None if there was no such file.
        installed_format: The EROFS format of the image that the installation makes.
        knows_digests: Entries say ``composefs.digest=v1-sha512-12:<id>`` of an image of format 1.
            Older programs know ``composefs=<id>`` only.
        prefixed: Names of kernels begin with ``bootc_composefs-``.
        names_manifest: The origin names the manifest. If not, the documents are in ``.imginfo``,
            and the origin of a unified kernel image has no digest of its kernel.
        mended: The program does not have the bugs that 1.17 mended: queued rollbacks,
            the ID in names after a rollback, stale staged entries of unified kernel images.
    """

    name: str
    meta: bytes | None
    installed_format: int
    knows_digests: bool = False
    prefixed: bool = True
    names_manifest: bool = True
    mended: bool = False

    @property
    def repository_format(self) -> int:
        """The EROFS format of images that are added to the repository."""
        return 2 if self.meta in (None, META_OLD, META_V2) else 1

    def argument(self, image_id: str, erofs_format: int, *, optional: bool) -> str:
        """Return the kernel argument that the program writes for an image."""
        weak = "?" if optional else ""
        if self.knows_digests and erofs_format == 1:
            return f"composefs.digest={weak}v1-sha512-12:{image_id}"
        return f"composefs={weak}{image_id}"


#: A disk of a version before 1.16, which every later version promises to take over.
OLDEST = Age("1.15", None, 2, prefixed=False, names_manifest=False)
#: The same after a later version was booted and wrote ``meta.json``: 1.16.0 does so truly, and
#: 1.16.9 promises format 1, although the image that is there has format 2.
KEPT = dataclasses.replace(OLDEST, name="1.16.0 after 1.15", meta=META_OLD)
RELABELLED = dataclasses.replace(OLDEST, name="1.16.9 after 1.15", meta=META_V1)
V1_16_0 = Age("1.16.0", META_OLD, 2)
V1_16_3 = Age("1.16.3", META_V2, 2)
V1_16_9 = Age("1.16.9", META_V1, 1)
V1_17 = Age("1.17.5", META_V1, 1, knows_digests=True, mended=True)
#: A repository whose ``meta.json`` somebody edited to have images of both formats.
BOTH = dataclasses.replace(V1_17, name="1.17.5 with both formats", meta=META_BOTH)

#: Every kind of disk, from the oldest to the newest.
AGES = (OLDEST, KEPT, V1_16_0, V1_16_3, RELABELLED, V1_16_9, BOTH, V1_17)
_PROGRAMS = (V1_16_0, V1_16_3, V1_16_9, V1_17)


def later(age: Age) -> tuple[Age, ...]:
    """Return the ages of the programs that go on from a disk of an age, the oldest first."""
    return tuple(a for a in _PROGRAMS if AGES.index(a) >= AGES.index(age))
