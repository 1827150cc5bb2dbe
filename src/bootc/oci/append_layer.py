"""The documents of an image that has one layer more than another image.

Everything else that the documents say is kept. The same input gives the same bytes. The new
manifest has the types of the OCI image specification, also if the image has Docker's.

Format: OCI image specification 1.1, "Image Manifest" and "Image Configuration".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bootc.formats import ocispec
from bootc.formats.digest import OciDigest
from bootc.formats.ocispec import Descriptor, ImageSpecError
from bootc.oci.source import Source

#: The type of a layer that is not compressed.
TAR_LAYER = "application/vnd.oci.image.layer.v1.tar"
_ZSTD, _GZIP = ("zstd", "gzip")
#: Annotations about the digests of the old image (composefs 0.9, "Sealing").
_ABOUT_DIGESTS = ("composefs.", "containers.composefs.")


@dataclass(frozen=True, slots=True)
class AppendedLayer:
    """The new layer.

    Attributes:
        descriptor: Its blob.
        diff_id: The digest of the uncompressed archive.
        created: The time for the history, in RFC 3339.
        created_by: The command, for the history.
    """

    descriptor: Descriptor
    diff_id: OciDigest
    created: str
    created_by: str


def config_with_layer(config_raw: bytes, layer: AppendedLayer) -> bytes:
    """Return the configuration of an image with a layer more.

    Args:
        config_raw: The configuration; :meth:`bootc.formats.ocispec.ImageConfig.parse` accepts it.
        layer: The layer.

    Raises:
        ImageSpecError: the history is not a list.
    """
    config: dict[str, Any] = json.loads(config_raw)
    config["rootfs"]["diff_ids"].append(str(layer.diff_id))
    history = config.get("history")
    if isinstance(history, list):
        history.append({"created": layer.created, "created_by": layer.created_by})
    elif history is not None:
        raise ImageSpecError("image configuration: history: not a list")
    return _json(config)


def manifest_with_layer(
    source: Source, annotations: Mapping[str, str], config: Descriptor, layer: AppendedLayer
) -> bytes:
    """Return the manifest of an image with a layer more.

    Args:
        source: The image without the layer.
        annotations: The annotations of its manifest.
        config: The new configuration.
        layer: The layer.
    """
    kept = {k: v for k, v in annotations.items() if not k.startswith(_ABOUT_DIGESTS)}
    manifest = {
        "schemaVersion": 2,
        "mediaType": ocispec.MANIFEST,
        "config": descriptor_json(config),
        "layers": [
            *(descriptor_json(one, media_type=_oci_type(one)) for one in source.layers),
            descriptor_json(layer.descriptor),
        ],
        **({"annotations": kept} if kept else {}),
    }
    return _json(manifest)


def descriptor_json(descriptor: Descriptor, *, media_type: str | None = None) -> dict[str, Any]:
    """Return a descriptor as JSON has it, perhaps with another media type."""
    value: dict[str, Any] = {
        "mediaType": media_type or descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size_bytes,
    }
    if descriptor.annotations:
        value["annotations"] = dict(descriptor.annotations)
    return value


def _oci_type(layer: Descriptor) -> str:
    """Return the type of a layer in the OCI image specification."""
    if not layer.media_type.startswith("application/vnd.docker."):
        return layer.media_type
    for compression in (_ZSTD, _GZIP):
        if layer.media_type.endswith(f".{compression}"):
            return f"{TAR_LAYER}+{compression}"
    return TAR_LAYER


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
