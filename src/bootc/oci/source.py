"""Where images come from.

Owns: the :class:`Source` protocol and the choice of its implementation:
:mod:`bootc.oci.layoutdir` reads ``oci:`` directories itself, everything else is
served by skopeo (:mod:`bootc.oci.skopeo`). Promises: whichever it is, manifest
and configuration have been checked against their digests when a source is open,
and layers are checked while they are read. Signatures are checked by skopeo
(:mod:`bootc.oci.sigpolicy` says when); where somebody asked for that and nobody
would do it, the image is refused.
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
from bootc.oci.sigpolicy import require_enforceable
from bootc.oci.skopeo import open_skopeo


class Source(Protocol):
    """One image, resolved to a manifest and ready to be read."""

    @property
    def imgref(self) -> ImageReference:
        """What was asked for."""

    @property
    def manifest_digest(self) -> OciDigest:
        """The identity of the image."""

    @property
    def manifest_raw(self) -> bytes:
        """The manifest, byte for byte."""

    @property
    def config_raw(self) -> bytes:
        """The configuration, byte for byte."""

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """The layers as this source serves them, lowest first.

        They are the manifest's, but local storage may hold them uncompressed.
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
        signature: Who has to vouch for it, if anybody.
        image_store: Another place where images of ``containers-storage`` are looked for: the
            root of such a storage, which may be read-only.

    Raises:
        PolicyNotEnforced: somebody has to, and nobody would check that.
        Error: there is no such image, it is damaged, for other machines only, or rejected.
    """
    require_enforceable(imgref, signature)
    if imgref.transport == "oci":
        opened: AbstractContextManager[Source] = open_layout(imgref, host_architecture())
    else:
        opened = open_skopeo(imgref, image_store=image_store, enforce_policy=signature is not None)
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
