"""A sealed image that will be refused, recognised before the disk is touched.

What an image boots with is known for sure when it has been pulled, and then the disk has
been written to. A unified kernel image holds the id of the image, though, which is
computed of all that is not in ``/boot``: builders can only add it last. So the last layer
tells, and reading that one twice is cheaper than a disk wiped for nothing.

Promises: nothing is stored. Finding nothing means nothing.
"""

from __future__ import annotations

import io
import os

from bootc.boot.image_kernel import is_uki_path
from bootc.boot.uki import MAX_UKI_BYTES
from bootc.deploy.install.boot_choice import check_uki
from bootc.deploy.install.checks import Decisions
from bootc.errors import doing
from bootc.formats.cmdline import CmdlineError
from bootc.formats.digest import Algorithm, OciDigest
from bootc.formats.ocispec import Descriptor, ImageConfig
from bootc.formats.pe import PeError, Uki
from bootc.formats.splitstream import StreamReader
from bootc.formats.tar import Entry, Kind
from bootc.oci import unpack
from bootc.oci.source import Source
from bootc.repository.sink import DigestOnly

#: A kernel image with its initramfs has less; a layer with more holds a whole system.
_MAX_LAYER_BYTES = 256 << 20
#: Any will do: the layer is read for its names.
_ALGORITHM = Algorithm.SHA512


def check_last_layer(decisions: Decisions, source: Source) -> None:
    """Make sure that a unified kernel image in the last layer fits what was decided.

    The layer is only read when there is something that such an image could refuse.

    Raises:
        UkiRefused: it does not.
        Error, OSError: the layer cannot be read, or is not what the image says.
    """
    if not (decisions.kargs or decisions.allow_missing_verity):
        return
    diff_ids = ImageConfig.parse(source.config_raw).diff_ids
    if not source.layers or len(diff_ids) != len(source.layers):
        return
    if source.layers[-1].size_bytes > _MAX_LAYER_BYTES:
        return
    for optional in _ukis_in(source, source.layers[-1], diff_ids[-1]):
        check_uki(decisions, missing_verity_allowed=optional)


def _ukis_in(source: Source, descriptor: Descriptor, diff_id: OciDigest) -> list[bool]:
    """Return of every unified kernel image in a layer whether it tolerates missing fs-verity."""
    with doing(f"Reading layer {descriptor.digest}"):
        with source.blob(descriptor) as blob:
            stream = unpack.split_layer(blob, diff_id, DigestOnly(_ALGORITHM))
        entries = unpack.entries(StreamReader(stream), _ALGORITHM)
        found = [entry for entry, _ in entries if _is_uki(entry)]
        if not found:
            return []
        with source.blob(descriptor) as blob:
            answers = [_is_optional(body) for _, body in unpack.bodies_of(blob, found)]
    return [answer for answer in answers if answer is not None]


def _is_uki(entry: Entry) -> bool:
    path = os.path.normpath(entry.path.lstrip(b"/")).decode("utf-8", "surrogateescape")
    return entry.kind is Kind.FILE and entry.size_bytes <= MAX_UKI_BYTES and is_uki_path(path)


def _is_optional(data: bytes) -> bool | None:
    try:
        return Uki.read(io.BytesIO(data)).composefs_argument().optional
    except (PeError, CmdlineError):
        # The pull finds that too, and says more of it.
        return None
