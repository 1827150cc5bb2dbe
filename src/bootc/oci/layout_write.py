"""Writes an image into an OCI layout directory, new or existing.

The commit point is the replacement of ``index.json``. All blobs are on the disk before. If the
block of :func:`layout_written` fails, or ends without a commit, the blobs that it added are
removed, and also a directory that it made. After a power cut, blobs that nothing refers to may be
left; the same command completes them. A lock lets one process at a time write to a directory.
Otherwise one could use a blob that another removes.

Format: OCI image specification 1.1, "Image Layout".
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

from bootc.errors import Error, doing
from bootc.events import Sink, null_sink
from bootc.formats import ocispec
from bootc.formats.digest import OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.ocispec import Descriptor, Index
from bootc.fs import atomic
from bootc.fs.dir import Dir
from bootc.fs.lock import lock_exclusive
from bootc.fs.parents import directories_made
from bootc.oci.append_layer import descriptor_json

_MARKER, _INDEX, _BLOBS = "oci-layout", "index.json", "blobs"
_MARKER_JSON = b'{"imageLayoutVersion":"1.0.0"}'


class OutputExists(Error):
    """The layout directory has an image of this name already."""


class LayoutWriter:
    """An image that is being written.

    Attributes:
        directory: The layout directory.
    """

    def __init__(self, imgref: ImageReference, directory: Dir) -> None:
        self.directory = directory
        self._imgref = imgref
        self._added: list[str] = []
        self._made_marker = False
        #: The manifest that the index names, or may name.
        self._manifest: Descriptor | None = None

    def has(self, digest: OciDigest, size_bytes: int) -> bool:
        """Tell whether the directory has a blob of this size. Nothing compares its content."""
        path = _path(digest)
        return self.directory.exists(path) and self.directory.stat(path).st_size == size_bytes

    def add(self, digest: OciDigest, chunks: Iterable[bytes]) -> None:
        """Write a blob. It is on the disk afterwards. The caller compares the digest."""
        path = _path(digest)
        with self.directory.ensure_dir(f"{_BLOBS}/{digest.algorithm}") as home:
            if not self.directory.exists(path):
                self._added.append(path)
            atomic.write_stream(home, digest.hex, chunks)

    def put(self, data: bytes, media_type: str) -> Descriptor:
        """Write a document, and return its descriptor."""
        digest = OciDigest.of(data)
        if not self.has(digest, len(data)):
            self.add(digest, (data,))
        return Descriptor(media_type, digest, len(data), {})

    def commit(self, manifest: Descriptor) -> None:
        """Make the image visible: the commit point."""
        if not self.directory.exists(_MARKER):
            self._made_marker = True
            atomic.write_file(self.directory, _MARKER, _MARKER_JSON, durable=True)
        raw, index = _read_index(self.directory)
        _require_free(self._imgref, index)
        value: dict[str, Any] = (
            json.loads(raw)
            if raw
            else {"schemaVersion": 2, "mediaType": ocispec.INDEX, "manifests": []}
        )
        entry = descriptor_json(manifest)
        _, name = self._imgref.layout
        if name is not None:
            entry["annotations"] = {ocispec.REF_NAME: name}
        value["manifests"].append(entry)
        data = json.dumps(value, separators=(",", ":")).encode()
        self._manifest = manifest
        with doing(f"Writing {self.directory.path}/{_INDEX}"):
            atomic.write_file(self.directory, _INDEX, data, durable=True)

    def clean_up(self) -> None:
        """Remove everything that was added, unless the index names the image."""
        if self._is_committed():
            return
        for path in self._added:
            with contextlib.suppress(OSError):
                self.directory.unlink(path)
        if self._made_marker:
            with contextlib.suppress(OSError):
                self.directory.unlink(_MARKER)
        _remove_empty_directories(self.directory)

    def _is_committed(self) -> bool:
        if self._manifest is None:
            return False
        # Writing the index may have failed after the index had got its name.
        try:
            _, index = _read_index(self.directory)
        except (Error, OSError):
            return True
        return any(entry.digest == self._manifest.digest for entry in index.manifests)


@contextlib.contextmanager
def layout_written(imgref: ImageReference, sink: Sink = null_sink) -> Iterator[LayoutWriter]:
    """Open a layout directory for an image; make the directory if it does not exist.

    Args:
        imgref: The directory and the name of the image. The transport is ``oci``.
        sink: Receives a message if another process writes to the directory.

    Raises:
        OutputExists: the layout has an image of this name, or has images and no name is given.
        Error: the transport is another one, or the directory is no layout.
        OSError: the directory cannot be written.
    """
    check_output(imgref)
    path, _ = imgref.layout
    with directories_made(path), Dir.open(path) as directory:
        lock_exclusive(directory, wait=True, sink=sink)
        writer = LayoutWriter(imgref, directory)
        try:
            yield writer
        finally:
            writer.clean_up()


def check_output(imgref: ImageReference) -> None:
    """Ensure that an image can be written there. :func:`layout_written` checks it as well.

    Raises:
        OutputExists, Error: as :func:`layout_written`.
        Error: nothing can be written into the directory.
    """
    if imgref.transport != "oci":
        raise Error(
            f"cannot write the image {imgref}: only oci:DIRECTORY can be written",
            hint="write oci:DIRECTORY:TAG, and copy it with skopeo copy",
        )
    path, name = imgref.layout
    if name is not None and name.startswith("@"):
        raise Error(f"cannot write the image {imgref}: {name} is a number, not a name")
    try:
        directory = Dir.open(path)
    except FileNotFoundError:
        return
    with directory:
        if not os.access(".", os.W_OK, dir_fd=directory.fileno(), effective_ids=True):
            raise Error(f"{path} cannot be written", hint="name a directory that you may write to")
        other = {name for name in directory.names() if not name.startswith(atomic.FILE_PREFIX)}
        if not directory.exists(_INDEX) and other - {_MARKER, _BLOBS}:
            raise Error(
                f"{path} is not an OCI layout directory", hint="name a new or an empty directory"
            )
        _require_free(imgref, _read_index(directory)[1])


def _require_free(imgref: ImageReference, index: Index) -> None:
    path, name = imgref.layout
    if name is None and index.manifests:
        raise OutputExists(
            f"{path} has images already", hint=f"give the new image a name: oci:{path}:NAME"
        )
    if any(entry.annotations.get(ocispec.REF_NAME) == name for entry in index.manifests):
        raise OutputExists(f"{path} has an image {name} already", hint="choose another name")


def _read_index(directory: Dir) -> tuple[bytes, Index]:
    if not directory.exists(_INDEX):
        return b"", Index(())
    raw = directory.read_bytes(_INDEX, ocispec.MAX_MANIFEST_BYTES)
    return raw, Index.parse(raw, f"{directory.path}/{_INDEX}")


def _remove_empty_directories(directory: Dir) -> None:
    """Remove the directories for blobs, if nothing is in them."""
    with contextlib.suppress(OSError), directory.open_dir(_BLOBS) as blobs:
        for algorithm in blobs.names():
            with contextlib.suppress(OSError):
                os.rmdir(algorithm, dir_fd=blobs.fileno())
    with contextlib.suppress(OSError):
        os.rmdir(_BLOBS, dir_fd=directory.fileno())


def _path(digest: OciDigest) -> str:
    return f"{_BLOBS}/{digest.algorithm}/{digest.hex}"
