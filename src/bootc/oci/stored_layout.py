"""Writes an image of a repository into an OCI layout directory.

A repository keeps layers as archives and not as the blobs that were pulled. So the layers are
written uncompressed. The configuration keeps its bytes, and therefore names the same layers and
makes the same deployment. The manifest keeps its bytes if the layers of the image were not
compressed; otherwise it names other blobs, and the image has another digest.

Source: OCI image specification 1.1, "Image Manifest".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace

from bootc.errors import Error
from bootc.events import LAYER_TASK, Done, Progress, Sink, Start
from bootc.formats import ocispec
from bootc.formats.digest import OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.ocispec import Descriptor, Manifest
from bootc.oci.append_layer import TAR_LAYER, descriptor_json
from bootc.oci.layers import layer_archive, layer_size
from bootc.oci.layout_write import LayoutWriter, layout_written
from bootc.oci.stored import StoredImage
from bootc.repository.repository import Repository

#: Annotations that describe the compressed blob.
_OF_BLOBS = "io.github.containers.zstd-chunked."


class NotAnImage(Error):
    """The stored thing is an artifact, which has no layers to unpack."""


def uncompressed_bytes(repository: Repository, image: StoredImage) -> int:
    """Return how many bytes the layers of an image have when they are written.

    Raises:
        Error, OSError: a layer is missing or damaged.
    """
    return sum(layer_size(repository, diff_id) for diff_id in image.documents.diff_ids)


def write_to_layout(
    repository: Repository, image: StoredImage, target: ImageReference, sink: Sink
) -> OciDigest:
    """Write an image into a layout directory, and return the digest of its manifest there.

    Args:
        repository: The repository.
        image: The image.
        target: The layout directory and the name of the image; the transport is ``oci``.
        sink: Receives the progress of each layer.

    Raises:
        NotAnImage: it is an artifact.
        DigestMismatch: a stored layer does not have its digest.
        OutputExists: the layout has an image of this name.
        Error, OSError: the image cannot be read, or the layout cannot be written.
    """
    documents = image.documents
    if image.config is None:
        raise NotAnImage(f"{documents.manifest_digest} is an artifact and not a container image")
    manifest = Manifest.parse(documents.manifest_raw)
    with layout_written(target, sink) as writer:
        layers = [
            _write_layer(repository, writer, descriptor, diff_id, sink)
            for descriptor, diff_id in zip(manifest.layers, documents.diff_ids, strict=True)
        ]
        writer.put(documents.config_raw, ocispec.CONFIG)
        raw = documents.manifest_raw
        media_type = json.loads(raw).get("mediaType", ocispec.MANIFEST)
        if [layer.digest for layer in layers] != [old.digest for old in manifest.layers]:
            raw, media_type = _manifest_with(manifest, layers), ocispec.MANIFEST
        written = writer.put(raw, media_type)
        writer.commit(written)
    return written.digest


def _write_layer(
    repository: Repository,
    writer: LayoutWriter,
    descriptor: Descriptor,
    diff_id: OciDigest,
    sink: Sink,
) -> Descriptor:
    size_bytes = layer_size(repository, diff_id)
    task = f"{LAYER_TASK}{diff_id}"
    sink(Start(task, f"Layer {diff_id.hex[:12]}", size_bytes))
    if not writer.has(diff_id, size_bytes):
        writer.add(diff_id, _counted(layer_archive(repository, diff_id), task, sink))
    sink(Done(task))
    annotations = {
        name: value
        for name, value in descriptor.annotations.items()
        if not name.startswith(_OF_BLOBS)
    }
    return replace(
        descriptor,
        media_type=TAR_LAYER,
        digest=diff_id,
        size_bytes=size_bytes,
        annotations=annotations,
    )


def _counted(chunks: Iterable[bytes], task: str, sink: Sink) -> Iterator[bytes]:
    done = 0
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        sink(Progress(task, done))


def _manifest_with(manifest: Manifest, layers: list[Descriptor]) -> bytes:
    """Return an OCI manifest with other layers, whatever the media type of the old one is."""
    value = {
        "schemaVersion": 2,
        "mediaType": ocispec.MANIFEST,
        "config": descriptor_json(replace(manifest.config, media_type=ocispec.CONFIG)),
        "layers": [descriptor_json(layer) for layer in layers],
    }
    if manifest.annotations:
        value["annotations"] = dict(manifest.annotations)
    return json.dumps(value, separators=(",", ":")).encode()
