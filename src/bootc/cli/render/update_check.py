"""The output of ``bootc upgrade --check``, in upstream's words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from bootc.deploy.check import Unchanged, Update, no_changes, shown_name
from bootc.deploy.protection import notice
from bootc.printable import printable
from bootc.sizes import glib_size

if TYPE_CHECKING:
    from bootc.formats.ocispec import Descriptor

PERHAPS_WEAKER = (
    "notice: what runs boots a unified kernel image; whether the new image brings one, and demands "
    "fs-verity as much, is known once it is pulled (bootc upgrade --dry-run says it)"
)


def lines(found: Update | Unchanged) -> Iterator[str]:
    """Yield the result of a check for people. Nothing in a line is a control character."""
    yield from map(printable, _unchanged(found) if isinstance(found, Unchanged) else _update(found))


def _unchanged(found: Unchanged) -> Iterator[str]:
    yield no_changes(found.reference, staged=found.staged)
    yield from map(notice, found.losses)


def _update(found: Update) -> Iterator[str]:
    yield f"Update available for: {shown_name(found.image.image.reference)}"
    yield f"  Digest: {found.image.digest}"
    if found.image.version is not None:
        yield f"  Version: {found.image.version}"
    yield from _difference(found.old_layers, found.new_layers)
    if found.may_protect_less:
        yield PERHAPS_WEAKER


def _difference(old: Sequence[Descriptor], new: Sequence[Descriptor]) -> Iterator[str]:
    """Yield the numbers and sizes of layers that a new manifest adds and removes."""
    before = {layer.digest for layer in old}
    after = {layer.digest for layer in new}
    rows = (
        ("Total new layers:", list(new)),
        ("Removed layers:", [layer for layer in old if layer.digest not in after]),
        ("Added layers:", [layer for layer in new if layer.digest not in before]),
    )
    for label, layers in rows:
        size = glib_size(sum(layer.size_bytes for layer in layers))
        yield f"{label:<17} {len(layers):<4}  Size: {size}"
