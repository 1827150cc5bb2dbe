"""Layers of a repository, read back: facts, entries, and the archive byte for byte.

Memory does not grow with the size of the files in a layer. :func:`layer_archive` compares the
archive with its ``diff_id`` when the last byte has come out: a caller that reads to the end has
the archive that the author of the image made.

Source: composefs, "Streams written for an OCI image" and "Dumpfile".
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass

from bootc.errors import Error, doing
from bootc.formats import splitstream
from bootc.formats.digest import Digest, OciDigest, check_digest
from bootc.formats.dumptext import columns_of, escape_optional, format_line
from bootc.formats.splitstream import MAX_STREAM_BYTES, StreamReader
from bootc.formats.tar import Entry, EntryKind
from bootc.formats.tree import External, Inline
from bootc.oci.blob import CHUNK_BYTES
from bootc.oci.flatten import content_of, stat_of
from bootc.oci.names import layer_id
from bootc.oci.unpack import entries
from bootc.repository.content import object_chunks
from bootc.repository.repository import Repository


class LayerNotStored(Error):
    """The repository has no such layer."""


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """Numbers and sizes of a layer."""

    diff_id: OciDigest
    #: The object that holds the stream.
    stream: Digest
    #: The size of the archive.
    size_bytes: int
    entries: int
    #: The number of objects that the stream refers to.
    objects: int
    #: The size of all files in objects; an object of two files counts twice.
    external_bytes: int


def layer_facts(repository: Repository, diff_id: OciDigest) -> LayerFacts:
    """Return the facts about a layer. The function does not read the content of files.

    Raises:
        LayerNotStored: the repository has no such layer.
        Error, OSError: the stream is damaged.
    """
    stream = _open(repository, diff_id)
    number = external_bytes = 0
    with doing(f"Reading layer {diff_id}"):
        for _, content in entries(stream, repository.algorithm):
            number += 1
            if isinstance(content, External):
                external_bytes += content.size_bytes
    return LayerFacts(
        diff_id,
        repository.streams.digest_of(layer_id(diff_id)),
        stream.size_bytes,
        number,
        len(stream.object_refs),
        external_bytes,
    )


def layer_size(repository: Repository, diff_id: OciDigest) -> int:
    """Return the size of a layer's archive. The function does not read the content of files.

    Raises:
        LayerNotStored: the repository has no such layer.
        Error, OSError: the stream is damaged.
    """
    return _open(repository, diff_id).size_bytes


def dump_layer(repository: Repository, diff_id: OciDigest) -> Iterator[bytes]:
    """Yield a line of a dumpfile for each entry, in the order of the archive.

    Paths and modes are those of the archive, as ``cfsctl`` prints them. The function does not
    normalise a path (``./``, ``a//b``) or a mode that does not fit the type of the file.

    Raises:
        LayerNotStored: the repository has no such layer.
        Error, OSError: the stream is damaged.
    """
    stream = _open(repository, diff_id)
    with doing(f"Reading layer {diff_id}"):
        for entry, content in entries(stream, repository.algorithm):
            yield _line(entry, content)


def layer_archive(
    repository: Repository, diff_id: OciDigest, stream: Digest | None = None
) -> Iterator[bytes]:
    """Yield the archive byte for byte, as it was pulled.

    Args:
        repository: The repository.
        diff_id: The layer.
        stream: The object that holds the stream; the target of the link if None.

    Raises:
        LayerNotStored: the repository has no such layer.
        DigestMismatch: at the end, if the bytes do not have the digest of the layer.
        Error, OSError: the stream or an object is damaged or missing.
    """
    objects = repository.objects
    found = diff_id.new()
    with doing(f"Reading layer {diff_id}"):
        if stream is None:
            reader = _open(repository, diff_id)
        else:
            reader = StreamReader(objects.read(stream, limit=MAX_STREAM_BYTES))
        reader.expect(splitstream.OCI_LAYER, repository.algorithm)
        for piece in reader.chunks(CHUNK_BYTES):
            parts = (piece,) if isinstance(piece, bytes) else object_chunks(objects, piece)
            for data in parts:
                found.update(data)
                yield data
    check_digest(f"stored layer {diff_id}", found.hexdigest(), diff_id)


def check_layer(repository: Repository, diff_id: OciDigest, stream: Digest | None = None) -> None:
    """Compare a layer with its digest.

    Raises:
        LayerNotStored, DigestMismatch, Error, OSError: as :func:`layer_archive`.
    """
    for _ in layer_archive(repository, diff_id, stream):
        pass


def _open(repository: Repository, diff_id: OciDigest) -> StreamReader:
    if not repository.streams.exists(layer_id(diff_id)):
        raise LayerNotStored(
            f"there is no layer {diff_id}",
            hint="rootfs.diff_ids of an image's configuration names its layers",
        )
    return StreamReader(repository.streams.read(layer_id(diff_id)))


def _line(entry: Entry, content: Inline | External) -> bytes:
    name = escape_optional(_absolute(entry.path))
    match entry.kind:
        case EntryKind.HARDLINK:
            target = escape_optional(_absolute(entry.link_target))
            return b"%s 0 @120000 - - - - 0.0 %s - -\n" % (name, target)
        case EntryKind.DIRECTORY:
            columns = 0, stat.S_IFDIR, 0, b"-", b"-", b"-"
        case _:
            columns = columns_of(content_of(entry, content))
    # The mode in the header can have other bits than permissions; cfsctl prints them too.
    file_type = columns[1] | entry.stored_mode & ~0o7777
    columns = (columns[0], file_type, *columns[2:])
    return format_line(name, 1, stat_of(entry), columns)


def _absolute(path: bytes) -> bytes:
    """Return a path of an archive in the spelling of composefs-rs; the root is empty."""
    return (b"/" + path.removeprefix(b"/")).rstrip(b"/")
