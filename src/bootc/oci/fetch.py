"""One layer of an image, fetched from its source and split into a stream and objects."""

from __future__ import annotations

from bootc.errors import doing
from bootc.events import LAYER_TASK, Done, Progress, Sink, Start
from bootc.formats.digest import OciDigest
from bootc.formats.ocispec import Descriptor
from bootc.oci import unpack
from bootc.oci.blob import Blob
from bootc.oci.source import Source
from bootc.repository.sink import ObjectSink


def fetch_layer(
    source: Source, descriptor: Descriptor, diff_id: OciDigest, objects: ObjectSink, sink: Sink
) -> bytes:
    """Fetch a layer, put its large files into objects, and return its stream.

    Args:
        source: The image.
        descriptor: The layer as the source serves it.
        diff_id: The digest of the uncompressed layer.
        objects: Receives the contents of large files.
        sink: Receives the progress.

    Raises:
        DigestMismatch: the layer does not have its digest, compressed or uncompressed.
        LayerError, TarError: the layer is malformed.
        Error, OSError: the layer cannot be read or stored.
    """
    task = _announce(sink, descriptor, diff_id)
    with doing(f"Unpacking {layer_name(descriptor, diff_id)}"), source.blob(descriptor) as blob:
        stream = unpack.split_layer(_Counted(blob, task, sink), diff_id, objects)
    sink(Done(task))
    return stream


def skip_layer(sink: Sink, descriptor: Descriptor, diff_id: OciDigest) -> None:
    """Tell a sink that a layer need not be fetched, because the repository has it."""
    sink(Done(_announce(sink, descriptor, diff_id), cached=True))


def layer_name(descriptor: Descriptor, diff_id: OciDigest) -> str:
    """Name a layer as progress does, and by its blob, which is what a registry knows."""
    return f"layer {diff_id.hex[:12]} (blob {descriptor.digest})"


def _announce(sink: Sink, descriptor: Descriptor, diff_id: OciDigest) -> str:
    """Start the task of a layer and return its name."""
    task = f"{LAYER_TASK}{diff_id}"
    sink(Start(task, f"Layer {diff_id.hex[:12]}", descriptor.size_bytes))
    return task


class _Counted:
    """A blob that reports how many of its bytes were read."""

    def __init__(self, blob: Blob, task: str, sink: Sink) -> None:
        self._blob = blob
        self._task = task
        self._sink = sink
        self._done = 0

    def read(self, size: int, /) -> bytes:
        data = self._blob.read(size)
        if data:
            self._done += len(data)
            self._sink(Progress(self._task, self._done))
        return data
