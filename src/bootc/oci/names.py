"""What an image's parts are called in a repository.

Pure, and apart from pulling: those who only read images need nothing else of it.
Content ids are those of composefs, "Streams written for an OCI image".
"""

from __future__ import annotations

import enum

from bootc.formats.digest import DigestError, OciDigest
from bootc.repository.links import encode_tag

#: How the names of bootc's own tags begin, below ``streams/refs/``; other tags are others'.
TAGS = f"oci/{encode_tag('localhost/bootc-')}"


class Kind(enum.Enum):
    """What a stream is. ``value`` is how its content id begins; the digest follows."""

    MANIFEST = "oci-manifest-"
    CONFIG = "oci-config-"
    LAYER = "oci-layer-"


def layer_id(diff_id: OciDigest) -> str:
    """Return the content id of a layer's stream."""
    return f"{Kind.LAYER.value}{diff_id}"


def config_id(digest: OciDigest) -> str:
    """Return the content id of a configuration's stream."""
    return f"{Kind.CONFIG.value}{digest}"


def manifest_id(digest: OciDigest) -> str:
    """Return the content id of a manifest's stream."""
    return f"{Kind.MANIFEST.value}{digest}"


def parse_content_id(content_id: str) -> tuple[Kind, OciDigest] | None:
    """Return what a stream is by its content id, or None if that is nothing of an image."""
    for kind in Kind:
        if content_id.startswith(kind.value):
            try:
                return kind, OciDigest.parse(content_id.removeprefix(kind.value))
            except DigestError:
                return None
    return None


def tag_ref(tag: str) -> str:
    """Return the name of a tag below ``streams/refs/``."""
    return f"oci/{encode_tag(tag)}"


def tag_of(manifest_digest: OciDigest) -> str:
    """Return the name, below ``streams/refs/``, of the tag that keeps an image."""
    return TAGS + encode_tag(str(manifest_digest))


def manifest_of(content_id: str) -> OciDigest | None:
    """Return the image whose manifest's stream has this content id, if it is one's."""
    match parse_content_id(content_id):
        case Kind.MANIFEST, digest:
            return digest
        case _:
            return None
