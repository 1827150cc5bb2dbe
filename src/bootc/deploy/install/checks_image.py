"""An early check of sealed images, before the installation touches the disk.

Only a pulled image shows for certain what it boots with, and a pull writes to the disk. A
unified kernel image holds the id of the image, which is computed from all files outside
``/boot``, so builders can only add it in the last layer. Reading that layer twice is cheaper
than wiping a disk in vain.

Promises: the check stores nothing. If it finds no unified kernel image, nothing follows.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Collection
from contextlib import closing

from bootc.boot.image_kernel import is_uki_path
from bootc.boot.uki import MAX_UKI_BYTES, is_sealed
from bootc.boot.uki_parts import check_seal
from bootc.boot.unpacked_kernel import has_uki
from bootc.deploy.install.boot_choice import check_request, takes_apart
from bootc.deploy.install.checks import Decisions
from bootc.deploy.install.loader_choice import starts
from bootc.deploy.install.request import ANY_UKI, InstallRequest
from bootc.errors import doing
from bootc.formats.cmdline import CmdlineError
from bootc.formats.digest import Algorithm, OciDigest
from bootc.formats.ocispec import Descriptor, ImageConfig
from bootc.formats.origin import BootType
from bootc.formats.pe import PeError, Uki
from bootc.formats.splitstream import StreamReader
from bootc.formats.tar import Entry, EntryKind
from bootc.fs.imageroot import ImageRoot
from bootc.oci import unpack
from bootc.oci.source import Source
from bootc.repository.sink import DigestOnly

#: A kernel with its initramfs is smaller; a larger layer holds a whole system.
_MAX_LAYER_BYTES = 256 << 20
#: Names by which a layer removes what lower layers have: a file, or the content of a directory.
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
#: Any algorithm will do: only the names in the layer are used.
_ALGORITHM = Algorithm.SHA512


def check_last_layer(request: InstallRequest, decisions: Decisions, source: Source) -> None:
    """Check that a unified kernel image in the last layer fits request and decisions.

    The layer is only read if a unified kernel image could contradict them.

    Raises:
        UkiRefused: it contradicts a decision.
        CannotTakeApart: it is sealed, and shall boot in parts.
        InstallRefused: the boot loader cannot start it.
        Error, OSError: the layer cannot be read, or has another digest than the image says.
    """
    in_parts = request.boot_type is BootType.BLS
    changed = decisions.kargs or decisions.karg_deletes or decisions.allow_missing_verity
    if not (in_parts or changed or not starts(decisions.loader, BootType.UKI)):
        return
    diff_ids = ImageConfig.parse(source.config_raw).diff_ids
    if not source.layers or len(diff_ids) != len(source.layers):
        return
    if source.layers[-1].size_bytes > _MAX_LAYER_BYTES:
        return
    for sealed in _ukis_in(source, source.layers[-1], diff_ids[-1]):
        if in_parts:
            check_seal(takes_apart(request), sealed=sealed)
        else:
            decisions.loader.check_boot_type(BootType.UKI)
            check_request(decisions, sealed=sealed)


def find_in_image(
    source: Source,
    paths: Collection[str],
    *,
    until: Callable[[Collection[str]], bool] | None = None,
) -> Collection[str]:
    """Return those of several paths that an image has.

    The layers are read from the topmost down, until each path is found or known to be removed.

    Args:
        source: The image.
        paths: The paths. :data:`ANY_UKI` stands for any unified kernel image.
        until: Says, by the paths that were found, whether the others do not matter.

    Raises:
        Error, OSError: a layer cannot be read.
    """
    found: set[str] = set()
    unknown = set(paths)
    gone: set[str] = set()
    for descriptor in reversed(source.layers):
        if not unknown:
            break
        removed: set[str] = set()
        with (
            doing(f"Reading layer {descriptor.digest}"),
            source.blob(descriptor) as blob,
            closing(unpack.paths_of(blob)) as names,
        ):
            for name in names:
                parent, _, base = name.rpartition("/")
                if base == _OPAQUE:
                    removed.add(parent)
                elif base.startswith(_WHITEOUT):
                    removed.add(f"{parent}/{base.removeprefix(_WHITEOUT)}".lstrip("/"))
                path = ANY_UKI if _is_uki_there(name, gone) else name
                if path in unknown:
                    found.add(path)
                    unknown.discard(path)
                    if not unknown or (until is not None and until(found)):
                        return found
        # A layer removes only what lower layers have.
        unknown = {path for path in unknown if path == ANY_UKI or not _is_below(path, removed)}
        gone |= removed
    return found


def find_in_tree(root: ImageRoot, paths: Collection[str]) -> Collection[str]:
    """Return those of several paths that the root of an image has.

    Args:
        root: The root.
        paths: The paths. :data:`ANY_UKI` stands for any unified kernel image.

    Raises:
        OSError: a directory cannot be read.
    """
    found = {path for path in paths if path != ANY_UKI and root.stat(path) is not None}
    return found | ({ANY_UKI} if ANY_UKI in paths and has_uki(root) else set())


def _is_uki_there(path: str, gone: Collection[str]) -> bool:
    if not is_uki_path(path) or path.rpartition("/")[2].startswith(_WHITEOUT):
        return False
    return not _is_below(path, gone)


def _is_below(path: str, removed: Collection[str]) -> bool:
    return any(not name or path == name or path.startswith(f"{name}/") for name in removed)


def _ukis_in(source: Source, descriptor: Descriptor, diff_id: OciDigest) -> list[bool]:
    """Return for each unified kernel image in a layer whether it is sealed."""
    with doing(f"Reading layer {descriptor.digest}"):
        with source.blob(descriptor) as blob:
            stream = unpack.split_layer(blob, diff_id, DigestOnly(_ALGORITHM))
        entries = unpack.entries(StreamReader(stream), _ALGORITHM)
        found = [entry for entry, _ in entries if _is_uki(entry)]
        if not found:
            return []
        with source.blob(descriptor) as blob:
            answers = [_is_sealed(body) for _, body in unpack.bodies_of(blob, found)]
    return [answer for answer in answers if answer is not None]


def _is_uki(entry: Entry) -> bool:
    path = os.path.normpath(entry.path.lstrip(b"/")).decode("utf-8", "surrogateescape")
    return entry.kind is EntryKind.FILE and entry.size_bytes <= MAX_UKI_BYTES and is_uki_path(path)


def _is_sealed(data: bytes) -> bool | None:
    try:
        return is_sealed(Uki.read(io.BytesIO(data)).composefs_images())
    except (PeError, CmdlineError):
        # The pull fails for the same reason, with a better message.
        return None
