"""Images in an OCI layout directory (``oci:DIR`` or ``oci:DIR:TAG``).

Owns: finding the image in ``index.json``, and reading its blobs. Promises: every
blob read is checked for size and digest against the descriptor that led to it;
only ``index.json`` itself has nothing to be checked against. What is no regular file
(a FIFO, a device) is refused before it is opened.

Format: OCI image specification 1.1, "Image Layout".
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass

from bootc.errors import Error, doing
from bootc.formats import ocispec
from bootc.formats.digest import OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.ocispec import Descriptor, Index, Manifest, WrongArchitecture
from bootc.fs.dir import Dir, open_regular
from bootc.oci.blob import Blob, VerifiedBlob, read_document

_MARKER = "oci-layout"
_INDEX = "index.json"
#: Indexes may hold indexes; nobody nests them deeper.
_MAX_DEPTH = 4


class LayoutError(Error):
    """A directory is no image layout, or does not hold the image asked for."""


@dataclass(frozen=True, slots=True)
class LayoutSource:
    """An image in a layout directory (a :class:`bootc.oci.source.Source`)."""

    imgref: ImageReference
    manifest_digest: OciDigest
    manifest_raw: bytes
    config_raw: bytes
    layers: tuple[Descriptor, ...]
    directory: Dir

    @contextlib.contextmanager
    def blob(self, descriptor: Descriptor) -> Iterator[Blob]:
        """Open a blob; reading it to its end checks it."""
        with _open_blob(self.directory, descriptor) as blob:
            yield blob


@contextlib.contextmanager
def open_layout(imgref: ImageReference, architecture: str) -> Iterator[LayoutSource]:
    """Open an image of a layout directory.

    Raises:
        LayoutError: no layout, no such tag, several images to choose from, a missing blob.
        WrongArchitecture: the layout holds the image for other machines only.
        DigestMismatch: manifest or configuration are not what their digests say.
        ImageSpecError: a document is malformed.
    """
    path, tag = imgref.layout
    with _open_directory(path) as directory:
        index = Index.parse(_read(directory, _INDEX, ocispec.MAX_MANIFEST_BYTES), _INDEX)
        entry = _choose(directory, _tagged(index, path, tag), architecture, str(imgref))
        with _open_blob(directory, entry) as blob, doing(f"Reading the manifest of {imgref}"):
            manifest_raw = read_document(blob, entry, ocispec.MAX_MANIFEST_BYTES)
        manifest = Manifest.parse(manifest_raw)
        with (
            _open_blob(directory, manifest.config) as blob,
            doing(f"Reading the configuration of {imgref}"),
        ):
            config_raw = read_document(blob, manifest.config, ocispec.MAX_CONFIG_BYTES)
        yield LayoutSource(
            imgref, entry.digest, manifest_raw, config_raw, manifest.layers, directory
        )


@contextlib.contextmanager
def _open_directory(path: str) -> Iterator[Dir]:
    try:
        directory = Dir.open(path)
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise LayoutError(f"there is no directory {path}") from exc
    with directory:
        if not directory.exists(_MARKER) or not directory.exists(_INDEX):
            raise LayoutError(
                f"{path} is no OCI layout directory",
                hint=f"it holds no {_MARKER} or no {_INDEX}",
            )
        yield directory


def _tagged(index: Index, path: str, tag: str | None) -> Index:
    if tag is None:
        return index
    found = Index(tuple(m for m in index.manifests if m.annotations.get(ocispec.REF_NAME) == tag))
    if not found.manifests:
        raise LayoutError(f"{path} holds no image tagged {tag!r}", hint=_tags_hint(index))
    return found


def _tags_hint(index: Index) -> str:
    tags = sorted({m.annotations.get(ocispec.REF_NAME, "") for m in index.manifests} - {""})
    return f"its tags are {', '.join(tags)}" if tags else "its images have no tags"


def _choose(directory: Dir, index: Index, architecture: str, what: str) -> Descriptor:
    """Descend from an index to the one manifest for this machine."""
    for _ in range(_MAX_DEPTH):
        images = index.for_platform(architecture)
        if not images and (found := index.architectures()):
            raise WrongArchitecture(
                f"the image {what} is for {', '.join(found)}, this machine is {architecture}"
            )
        if not images:
            raise LayoutError(f"{what} holds no image")
        if len(images) > 1:
            raise LayoutError(
                f"{what} holds {len(images)} images to choose from",
                hint=f"name one as oci:DIRECTORY:TAG; {_tags_hint(index)}",
            )
        (entry,) = images
        if entry.media_type in ocispec.MANIFEST_TYPES:
            return entry
        with _open_blob(directory, entry) as blob, doing(f"Reading the index of {what}"):
            index = Index.parse(read_document(blob, entry, ocispec.MAX_MANIFEST_BYTES))
    raise LayoutError(f"{what}: indexes nested more than {_MAX_DEPTH} deep")


@contextlib.contextmanager
def _open_blob(directory: Dir, descriptor: Descriptor) -> Iterator[VerifiedBlob]:
    relpath = f"blobs/{descriptor.digest.algorithm}/{descriptor.digest.hex}"
    try:
        fd = _open(directory, relpath)
    except FileNotFoundError as exc:
        raise LayoutError(
            f"{directory.path} is incomplete: blob {descriptor.digest} is missing"
        ) from exc
    with open(fd, "rb", buffering=0) as file:
        yield VerifiedBlob(lambda size: file.read(size) or b"", descriptor)


def _read(directory: Dir, relpath: str, limit: int) -> bytes:
    with (
        doing(f"Reading {directory.path}/{relpath}"),
        open(_open(directory, relpath), "rb", buffering=0) as file,
    ):
        data = b""
        while part := file.read(limit + 1 - len(data)):
            data += part
        if len(data) > limit:
            raise LayoutError(f"{directory.path}/{relpath} has more than {limit} bytes")
        return data


def _open(directory: Dir, relpath: str) -> int:
    # Build tools make layouts of symlinks into their caches; digests are what is trusted here,
    # not places, so links are followed wherever they lead.
    try:
        return open_regular(relpath, dir_fd=directory.fileno())
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.EISDIR):
            raise
        raise LayoutError(f"{directory.path}/{relpath} is not a regular file") from exc
