"""Repositories with faults: how tests make them, and how they check."""

from __future__ import annotations

import errno
from pathlib import Path

from bootc.formats import splitstream
from bootc.formats.digest import Algorithm, Digest
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.splitstream import StreamWriter
from bootc.formats.tree import Directory, External, Leaf, Stat, Symlink
from bootc.formats.verity import verity_digest
from bootc.repository.fsck import check
from bootc.repository.fsck_report import FsckReport
from bootc.repository.repository import Repository
from support.verity import FakeVerity

DATA = b"data" * 5000


def verity_of(repository: Repository) -> FakeVerity:
    return FakeVerity() if repository.secure else FakeVerity(error=errno.EOPNOTSUPP)


def checked(repository: Repository, *, metadata_only: bool = False) -> FsckReport:
    repository.objects.flush()
    return check(repository, verity=verity_of(repository), workers=2, metadata_only=metadata_only)


def kinds(report: FsckReport) -> list[str]:
    return [finding.kind.value for finding in report.findings]


def path_of(repository: Repository, relpath: str | Digest) -> Path:
    if isinstance(relpath, Digest):
        relpath = f"objects/{relpath.object_path}"
    return Path(repository.dir.path, relpath)


def put(repository: Repository, data: bytes = DATA) -> Digest:
    digest = repository.objects.put(data)
    repository.objects.flush()
    return digest


def put_stream(
    repository: Repository, name: str, *objects: Digest, refs: dict[str, Digest] | None = None
) -> Digest:
    stream = StreamWriter(repository.algorithm, splitstream.OCI_LAYER)
    stream.inline(b"header")
    for digest in objects:
        stream.external(digest, 100)
    for ref, digest in (refs or {}).items():
        stream.refer(ref, digest)
    return repository.streams.write(name, stream.finish())


def image_bytes(*objects: Digest) -> bytes:
    entries: dict[bytes, Leaf | Directory] = {
        b"file%d" % number: Leaf(Stat(0o644), External(digest, 20000))
        for number, digest in enumerate(objects)
    }
    entries[b"link"] = Leaf(Stat(0o777), Symlink(b"target"))
    return mkfs_erofs(Directory(Stat(0o755), entries))


def flip(path: Path, offset: int = 7) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def absent(seed: bytes = b"absent") -> Digest:
    return verity_digest(seed, Algorithm.SHA512)


def full(repository: Repository) -> tuple[Digest, Digest, Digest]:
    """Fill a repository with an object, a layer, a manifest and an image."""
    digest = put(repository)
    layer = put_stream(repository, "oci-layer-sha256:1", digest)
    put_stream(repository, "oci-manifest-sha256:2", refs={"sha256:1": layer})
    repository.streams.set_ref("oci/tag", "oci-manifest-sha256:2")
    image = repository.images.add(image_bytes(digest))
    return digest, layer, image
