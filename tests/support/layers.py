"""An image of three layers, and what tests of stored images do to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bootc.formats.digest import Digest
from bootc.formats.splitstream import StreamReader, StreamWriter
from bootc.oci.fsck import OciFsckReport, check_images
from bootc.repository.fsck import check
from bootc.repository.repository import Repository
from support import images
from support.images import file, layer

LAYERS = (
    images.bootable(kernel=b"kernel" * 1000),
    layer(file("usr/one", b"one" * 1000), file("usr/shared", b"shared" * 100)),
    layer(file("usr/two", b"two" * 1000)),
)
DIFF_IDS = tuple(map(images.sha256, LAYERS))
#: The second layer with another byte in a file, as after an error of a disk or of a proxy.
FLIPPED = LAYERS[1].replace(b"oneone", b"oneowe", 1)


def path_of(repository: Repository, digest: Digest) -> Path:
    """Return the file of an object."""
    return Path(repository.dir.path, "objects", digest.object_path)


def objects_in_layer(repository: Repository, number: int) -> tuple[Digest, ...]:
    """Return the objects that the stream of a layer refers to."""
    stream = repository.streams.read(f"oci-layer-{DIFF_IDS[number]}")
    return StreamReader(stream).object_refs


def damage(path: Path) -> None:
    """Flip a bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def put_document(
    repository: Repository,
    name: str,
    kind: bytes,
    raw: bytes,
    refs: Mapping[str, Digest] | None = None,
) -> Digest:
    """Store any document under a content id, and return its stream."""
    stream = StreamWriter(repository.algorithm, kind)
    for reference, digest in (refs or {}).items():
        stream.refer(reference, digest)
    stream.external(repository.objects.put(raw), len(raw))
    return repository.streams.write(name, stream.finish())


def checked(repository: Repository) -> OciFsckReport:
    """Check a repository and its images."""
    repository.objects.flush()
    return check_images(repository, check(repository))


def sound(repository: Repository) -> bool:
    """Tell whether a check finds nothing."""
    return checked(repository).ok
