"""Image references: a transport and a name, the way skopeo writes them.

The form of the name depends on the transport:

======================  ==============================================================
``registry``            ``HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]``
``oci``                 ``PATH[:NAME]`` or ``PATH:@NUMBER``: the path ends at the first colon,
                        and a name may have slashes and colons, ``localhost:5000/os:v1``
``oci-archive``         the same
``docker-archive``      the same, of a file; a name without tag means ``latest``
``docker-daemon``       ``REPOSITORY:TAG`` or an image id
``containers-storage``  ``[[STORE]]REPOSITORY[:TAG][@DIGEST]`` or an image id; the brackets around
                        the store are part of it
``dir``                 ``PATH``, colons included
======================  ==============================================================

Promises: ``ImageReference.parse(str(reference))`` equals the reference. An unknown
transport is refused here and not in the middle of a pull. ``registry:`` and
``docker://`` are one transport, called ``registry`` in the host's status and written
``docker://``.

References stored by other tools may begin with a prefix about signatures, for example
``ostree-unverified-image:``. The parser drops it.

Source: containers-transports(5); containers/image, ``SplitPathAndImage``.

>>> ImageReference.parse("registry:quay.io/example/os:42")
ImageReference(transport='registry', name='quay.io/example/os:42')
>>> str(ImageReference.parse("ostree-unverified-image:docker://quay.io/example/os"))
'docker://quay.io/example/os'
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bootc.errors import Error
from bootc.formats.digest import OciDigest

TRANSPORTS = (
    "registry",
    "oci",
    "oci-archive",
    "docker-archive",
    "docker-daemon",
    "containers-storage",
    "dir",
)
_SIGNATURE_PREFIXES = ("ostree-unverified-image:", "ostree-image-signed:")
_UNVERIFIED_REGISTRY = "ostree-unverified-registry:"
_REMOTE_IMAGE = "ostree-remote-image:"
_REMOTE_REGISTRY = "ostree-remote-registry:"


#: What stands behind a path and names an image within.
_WITH_PATHS = ("oci", "oci-archive", "docker-archive")
_STORE = re.compile(r"\[[^]]*\]")
_IMAGE_ID = re.compile(r"(?:sha256:)?[0-9a-f]{64}\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")

#: Registries allow 255 characters to a name, file systems 4096 to a path.
_MAX_TEXT = 4096 + 128


class ImageReferenceError(Error):
    """A text is not a valid image reference."""


@dataclass(frozen=True, slots=True)
class ImageReference:
    """The place of an image. ``transport`` is one of :data:`TRANSPORTS`."""

    transport: str
    name: str

    @classmethod
    def parse(cls, text: str) -> ImageReference:
        """Parse ``TRANSPORT:NAME`` or ``docker://NAME``.

        Raises:
            ImageReferenceError: no transport, an unknown one, or no name.
        """
        if len(text) > _MAX_TEXT or not text.isprintable():
            # First of all, so that the errors and hints below can quote the text as it is.
            raise ImageReferenceError(f"bad image reference {text[:300]!r}")
        bare = _without_signature_prefix(text)
        transport, colon, name = bare.partition(":")
        if transport == "docker":
            if not name.startswith("//"):
                raise ImageReferenceError(
                    f"bad image reference {text!r}", hint=f"write docker://{name}"
                )
            transport, name = "registry", name.removeprefix("//")
        if not colon or transport not in TRANSPORTS:
            raise ImageReferenceError(
                f"image reference {text!r} names no transport",
                hint=f"write docker://{bare} for an image in a registry, "
                "oci:DIRECTORY for a layout directory",
            )
        return cls.of(transport, name)

    def with_tag(self, tag: str) -> ImageReference:
        """Return the image of another tag at the same place; a digest in the name is dropped.

        >>> str(ImageReference("registry", "localhost:5000/os:42").with_tag("43"))
        'docker://localhost:5000/os:43'

        >>> str(ImageReference("oci", "/srv/layout:localhost/os:42").with_tag("43"))
        'oci:/srv/layout:localhost/os:43'

        Raises:
            ImageReferenceError: it is not a valid tag, or images of this transport have no tags.
        """
        if not _TAG.match(tag):
            raise ImageReferenceError(f"bad tag {tag[:160]!r}")
        store = _STORE.match(self.name) if self.transport == "containers-storage" else None
        before = store[0] if store else ""
        name = self.name[len(before) :]
        if self.transport == "dir" or _IMAGE_ID.match(name):
            raise ImageReferenceError(
                f"the image {self} has no tag that could be another one",
                hint="name the other image as a whole: bootc switch IMAGE",
            )
        if self.transport in _WITH_PATHS:
            path, _, name = name.partition(":")
            before = f"{path}:"
            if "/" not in name and ":" not in name and self.transport != "docker-archive":
                # The whole name is one, as in a layout that holds versions of one image.
                name = ""
        stem = _untagged(name)
        return ImageReference.of(self.transport, f"{before}{stem}:{tag}" if stem else before + tag)

    def with_digest(self, digest: OciDigest) -> ImageReference:
        """Return the image of a registry that has a digest; tag and digest of the name are dropped.

        >>> digest = OciDigest.of(b"")
        >>> str(ImageReference("registry", "localhost:5000/os:42").with_digest(digest))[:35]
        'docker://localhost:5000/os@sha256:e'

        Raises:
            ImageReferenceError: the result is not a valid reference.
        """
        return ImageReference.of(self.transport, f"{_untagged(self.name)}@{digest}")

    @classmethod
    def of(cls, transport: str, name: str) -> ImageReference:
        """Return the reference with these parts, which options and status files have.

        Raises:
            ImageReferenceError: an unknown transport, or an impossible name.
        """
        if transport not in TRANSPORTS:
            raise ImageReferenceError(
                f"unknown transport {transport!r}", hint=f"one of {', '.join(TRANSPORTS)}"
            )
        if not name or not name.isprintable() or name != name.strip():
            raise ImageReferenceError(f"bad image name {name!r}")
        return cls(transport, name)

    def __str__(self) -> str:
        if self.transport == "registry":
            return f"docker://{self.name}"
        return f"{self.transport}:{self.name}"

    @property
    def layout(self) -> tuple[str, str | None]:
        """Split the name of an ``oci`` reference into directory and image name.

        As skopeo does, at the first colon; no directory is the current one.
        """
        directory, _, name = self.name.partition(":")
        return directory or ".", name or None


def _without_signature_prefix(text: str) -> str:
    for prefix in _SIGNATURE_PREFIXES:
        if text.startswith(prefix):
            return text.removeprefix(prefix)
    if text.startswith(_UNVERIFIED_REGISTRY):
        return f"docker://{text.removeprefix(_UNVERIFIED_REGISTRY)}"
    if text.startswith(_REMOTE_IMAGE):
        return text.removeprefix(_REMOTE_IMAGE).partition(":")[2]
    if text.startswith(_REMOTE_REGISTRY):
        return f"docker://{text.removeprefix(_REMOTE_REGISTRY).partition(':')[2]}"
    return text


def _untagged(name: str) -> str:
    name = name.partition("@")[0]
    stem, colon, last = name.rpartition(":")
    # The colon of a port is followed by a path.
    return stem if colon and "/" not in last else name
