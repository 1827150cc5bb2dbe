"""Names of the parts of an image in a repository.

The functions are pure. The names are those of composefs, "Streams written for an OCI image".
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from bootc.formats.digest import Digest, DigestError, OciDigest
from bootc.repository.links import encode_tag

#: Prefix of the tags that bootc sets itself, below ``streams/refs/``. Other tags are not ours.
TAGS = f"oci/{encode_tag('localhost/bootc-')}"
#: Prefix of the names that the stream of a configuration gives EROFS images made of the image.
IMAGE_PREFIX = "composefs.image"
#: Format versions that these EROFS images can have. There is no name for version 0.
FORMAT_VERSIONS = (1, 2)

_CAPABILITY = b"security.capability"
_USER = b"user."


class StreamKind(enum.Enum):
    """The kind of a stream. ``value`` is the prefix of its content id; the digest follows."""

    MANIFEST = "oci-manifest-"
    CONFIG = "oci-config-"
    LAYER = "oci-layer-"


class XattrMode(enum.Enum):
    """Which extended attributes an EROFS image keeps; the others depend on the build machine.

    ``value`` is the name on command lines and in the names of EROFS images. Images made in
    different modes have different digests.
    """

    ALLOWLIST_ONLY = "allowlist-only"
    KEEP_USER_XATTRS = "keep-user-xattrs"

    def keeps(self, name: bytes) -> bool:
        """Tell whether the image keeps an attribute."""
        if name == _CAPABILITY:
            return True
        return self is XattrMode.KEEP_USER_XATTRS and name.startswith(_USER)


def layer_id(diff_id: OciDigest) -> str:
    """Return the content id of the stream of a layer."""
    return f"{StreamKind.LAYER.value}{diff_id}"


def config_id(digest: OciDigest) -> str:
    """Return the content id of the stream of a configuration."""
    return f"{StreamKind.CONFIG.value}{digest}"


def manifest_id(digest: OciDigest) -> str:
    """Return the content id of the stream of a manifest."""
    return f"{StreamKind.MANIFEST.value}{digest}"


def parse_content_id(content_id: str) -> tuple[StreamKind, OciDigest] | None:
    """Return the kind and the digest in a content id, or None if it names no part of an image."""
    for kind in StreamKind:
        if content_id.startswith(kind.value):
            try:
                return kind, OciDigest.parse(content_id.removeprefix(kind.value))
            except DigestError:
                return None
    return None


def manifest_of(content_id: str) -> OciDigest | None:
    """Return the digest of a manifest by its content id, or None if it names no manifest."""
    match parse_content_id(content_id):
        case StreamKind.MANIFEST, digest:
            return digest
        case _:
            return None


def tag_ref(tag: str) -> str:
    """Return the name of a tag below ``streams/refs/``."""
    return f"oci/{encode_tag(tag)}"


def tag_of(manifest_digest: OciDigest) -> str:
    """Return the name, below ``streams/refs/``, of the tag that bootc gives an image."""
    return TAGS + encode_tag(str(manifest_digest))


def image_name(
    version: int, *, bootable: bool, xattrs: XattrMode = XattrMode.ALLOWLIST_ONLY
) -> str:
    """Return the name of an EROFS image in the stream of the configuration.

    Args:
        version: One of :data:`FORMAT_VERSIONS`.
        bootable: The boot image, not the plain image.
        xattrs: The mode of the boot image; plain images always have the default mode.
    """
    kind = ".boot" if bootable else ""
    suffix = ".v1" if version == 1 else ""
    mode = "" if xattrs is XattrMode.ALLOWLIST_ONLY else f".xattrs={xattrs.value}"
    return f"{IMAGE_PREFIX}{kind}{suffix}{mode}"


def images_in(references: Mapping[str, Digest]) -> dict[str, Digest]:
    """Return the EROFS images among the references of the stream of a configuration."""
    return {name: ref for name, ref in references.items() if name.startswith(IMAGE_PREFIX)}
