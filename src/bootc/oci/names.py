"""What an image's parts are called in a repository.

Pure, and apart from pulling: those who only read images need nothing else of it.
Content ids are those of composefs, "Streams written for an OCI image".
"""

from __future__ import annotations

from bootc.formats.digest import OciDigest
from bootc.repository.refs import encode_tag


def layer_id(diff_id: OciDigest) -> str:
    """Return the content id of a layer's stream."""
    return f"oci-layer-{diff_id}"


def config_id(digest: OciDigest) -> str:
    """Return the content id of a configuration's stream."""
    return f"oci-config-{digest}"


def manifest_id(digest: OciDigest) -> str:
    """Return the content id of a manifest's stream."""
    return f"oci-manifest-{digest}"


def tag_of(manifest_digest: OciDigest) -> str:
    """Return the name, below ``streams/refs/``, of the tag that keeps an image."""
    return f"oci/{encode_tag(f'localhost/bootc-{manifest_digest}')}"
