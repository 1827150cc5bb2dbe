"""Images in an OCI layout directory (``oci:DIR``, ``oci:DIR:NAME`` or ``oci:DIR:@NUMBER``).

Every blob is compared with the size and the digest in the descriptor that led to it. Only
``index.json`` itself has no descriptor. A file that is not a regular file (a FIFO, a device) is
refused before it is opened.

Format: OCI image specification 1.1, "Image Layout".
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass

from bootc.errors import Error, doing
from bootc.formats import ocispec
from bootc.formats.digest import OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.ocispec import Descriptor, Index, Manifest, WrongArchitecture
from bootc.fs.dir import Dir, open_regular
from bootc.oci.blob import Blob, VerifiedBlob, read_whole
from bootc.printable import listed

_MARKER = "oci-layout"
_INDEX = "index.json"
_NUMBER = re.compile(r"@[0-9]{1,9}\Z")
_MAX_HINTS = 20
#: An index may hold indexes. No known tool nests them deeper.
_MAX_DEPTH = 4


class LayoutError(Error):
    """A directory is not an image layout, or does not hold the requested image."""


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
        LayoutError: the directory is not a layout, the tag does not exist, there are several images
            to choose from, or a blob is missing.
        WrongArchitecture: the layout holds the image for other architectures only.
        DigestMismatch: a document does not have its digest.
        ImageSpecError: a document is malformed.
    """
    path, name = imgref.layout
    with _open_directory(path, name) as directory:
        index = Index.parse(
            _read(directory, _INDEX, ocispec.MAX_MANIFEST_BYTES), f"{directory.path}/{_INDEX}"
        )
        named = _named(index, path, name)
        entry = _choose(directory, index, named, architecture, str(imgref))
        with _open_blob(directory, entry) as blob, doing(f"Reading the manifest of {imgref}"):
            manifest_raw = read_whole(blob, entry, ocispec.MAX_MANIFEST_BYTES)
        manifest = Manifest.parse(manifest_raw)
        with (
            _open_blob(directory, manifest.config) as blob,
            doing(f"Reading the configuration of {imgref}"),
        ):
            config_raw = read_whole(blob, manifest.config, ocispec.MAX_CONFIG_BYTES)
        yield LayoutSource(
            imgref, entry.digest, manifest_raw, config_raw, manifest.layers, directory
        )


@contextlib.contextmanager
def _open_directory(path: str, name: str | None) -> Iterator[Dir]:
    try:
        directory = Dir.open(path)
    except (FileNotFoundError, NotADirectoryError) as exc:
        hint = f"the path ends at the first colon; {name} would be the image" if name else None
        raise LayoutError(f"there is no directory {path}", hint=hint) from exc
    with directory:
        if not directory.exists(_MARKER) or not directory.exists(_INDEX):
            raise LayoutError(
                f"{path} is not an OCI layout directory",
                hint=f"it holds no {_MARKER} or no {_INDEX}",
            )
        yield directory


def _named(index: Index, path: str, name: str | None) -> Index:
    if name is None:
        return index
    if name.startswith("@"):
        number = int(name[1:]) if _NUMBER.match(name) else len(index.manifests)
        found = index.manifests[number : number + 1]
    else:
        found = tuple(m for m in index.manifests if m.annotations.get(ocispec.REF_NAME) == name)
    if not found:
        raise LayoutError(f"{path} holds no image tagged {name!r}", hint=_names_hint(index))
    return Index(found)


def _names_hint(index: Index) -> str:
    """Return a hint: the names of images, and the numbers of images without a usable name."""
    names: list[str] = []
    for number, entry in enumerate(index.manifests):
        name = entry.annotations.get(ocispec.REF_NAME, "")
        usable = name and name.isprintable() and name == name.strip() and name[0] != "@"
        names.append(name if usable else f"@{number}")
    named = sorted({name for name in names if name[0] != "@"})
    found = [*named, *(name for name in names if name[0] == "@")]
    if not found:
        return "it holds no images"
    return (
        f"its tags are {listed(found)}"
        if named
        else f"its images have no tags, but numbers: {listed(found)}"
    )


def _choose(directory: Dir, whole: Index, index: Index, architecture: str, what: str) -> Descriptor:
    """Return the only manifest for this machine, from a part of the whole index."""
    for _ in range(_MAX_DEPTH):
        # An image that is listed twice counts once.
        images = tuple({m.digest: m for m in index.for_platform(architecture)}.values())
        if not images and (found := index.architectures()):
            raise WrongArchitecture(
                f"the image {what} is for {listed(found)}, this machine is {architecture}"
            )
        if not images:
            raise LayoutError(f"{what} holds no image")
        if len(images) > 1:
            raise LayoutError(
                f"{what} holds {len(images)} images to choose from",
                hint=f"name one as oci:DIRECTORY:NAME; {_names_hint(whole)}",
            )
        (entry,) = images
        if entry.media_type in ocispec.MANIFEST_TYPES:
            return entry
        with _open_blob(directory, entry) as blob, doing(f"Reading the index of {what}"):
            index = Index.parse(read_whole(blob, entry, ocispec.MAX_MANIFEST_BYTES))
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
    # Build tools make layouts of symlinks into their caches. The digests protect the content, so
    # links may lead anywhere.
    try:
        return open_regular(relpath, dir_fd=directory.fileno())
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.EISDIR):
            raise
        raise LayoutError(f"{directory.path}/{relpath} is not a regular file") from exc
