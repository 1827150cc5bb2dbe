"""Sources of container images: the protocol :class:`Source`, and the choice of its implementation.

:mod:`bootc.oci.layoutdir` reads ``oci:`` directories. skopeo serves everything else
(:mod:`bootc.oci.skopeo`). In both cases the manifest and the configuration have been compared
with their digests when a source is open, and layers are compared while they are read.

skopeo checks signatures (:mod:`bootc.oci.sigpolicy` says when). If the caller demands a check and
no program would make it, :func:`open_source` refuses the image. The bytes that skopeo checked are
those that the source serves: a source is opened once, and its manifest names all the rest by
digest.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from bootc.formats.digest import OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.ocispec import (
    Descriptor,
    ImageConfig,
    ImageSpecError,
    Manifest,
    go_architecture,
)
from bootc.formats.origin import Signature
from bootc.oci.blob import Blob
from bootc.oci.layoutdir import open_layout
from bootc.oci.sigpolicy import enforced_policy, require_accepted
from bootc.oci.skopeo import open_skopeo


class Source(Protocol):
    """An image that is resolved to a manifest and can be read."""

    @property
    def imgref(self) -> ImageReference:
        """The image reference that was opened."""

    @property
    def manifest_digest(self) -> OciDigest:
        """The digest of the manifest, which identifies the image."""

    @property
    def manifest_raw(self) -> bytes:
        """The manifest, byte for byte."""

    @property
    def config_raw(self) -> bytes:
        """The configuration, byte for byte."""

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """The layers as this source serves them, lowest first.

        They are the layers of the manifest, but local storage may hold them uncompressed.
        """

    def blob(self, descriptor: Descriptor) -> AbstractContextManager[Blob]:
        """Open a layer; reading it to its end checks it (:class:`bootc.oci.blob.VerifiedBlob`)."""


def host_architecture() -> str:
    """Return this machine's architecture as images spell it."""
    return go_architecture(os.uname().machine)


@contextlib.contextmanager
def open_source(
    imgref: ImageReference, signature: Signature | None = None, *, image_store: str | None = None
) -> Iterator[Source]:
    """Open an image for this machine's architecture.

    Args:
        imgref: The image.
        signature: The signature that the image must have, or None.
        image_store: Search images of ``containers-storage`` in this storage too. The value is the
            root of a storage, which may be read-only.

    Raises:
        PolicyNotEnforced: a signature is demanded, and no program would check it.
        RejectedByPolicy: the signature policy rejects it.
        Error: the image does not exist, is damaged, is for another architecture, or is rejected.
    """
    policy = enforced_policy(imgref, signature)
    if imgref.transport == "oci":
        require_accepted(imgref)
        opened: AbstractContextManager[Source] = open_layout(imgref, host_architecture())
    else:
        opened = open_skopeo(imgref, image_store=image_store, policy=policy)
    with opened as source:
        yield source


def parse_documents(source: Source, architecture: str | None) -> tuple[Manifest, ImageConfig]:
    """Return the parsed manifest and configuration of an image that this machine can use.

    Args:
        source: The image.
        architecture: The expected architecture in the spelling of images; this machine's if None.

    Raises:
        WrongArchitecture: the image is for another architecture.
        ImageSpecError: a document is malformed, or they do not fit together.
    """
    manifest = Manifest.parse(source.manifest_raw)
    config = ImageConfig.parse(source.config_raw)
    config.check_platform(architecture or host_architecture())
    if len(config.diff_ids) != len(source.layers):
        raise ImageSpecError(
            f"image configuration: rootfs.diff_ids: {len(config.diff_ids)} entries "
            f"for {len(source.layers)} layers"
        )
    return manifest, config
