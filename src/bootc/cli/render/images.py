"""Images of a repository in lists, in JSON and by name, as ``cfsctl`` prints them.

Source: composefs, "Commands" and "Images and stream references".
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from bootc.cli.render.structured import name_value
from bootc.cli.render.table import render_table

if TYPE_CHECKING:
    from bootc.formats.digest import Digest, OciDigest
    from bootc.oci.layers import LayerFacts
    from bootc.oci.stored import StoredImage

#: A row of the list of container images: tag, image, number of its referrers.
Tagged = tuple[str, "StoredImage", int]

#: How much of a digest a table shows.
_SHORT = 12


def object_line(digest: Digest) -> str:
    """Return the line that names an object."""
    return f"{digest.algorithm.hash_name}:{digest}\n"


def named_images_json(named: Iterable[tuple[str, Digest]]) -> dict[str, object]:
    """Return the JSON of ``cfsctl images --json``."""
    return {
        "images": [
            {**name_value("name", os.fsencode(name)), "digest": digest.hex}
            for name, digest in named
        ]
    }


def named_images_table(named: Iterable[tuple[str, Digest]], *, full: bool) -> str:
    """Return the table of ``cfsctl images``; ``full`` digests are those of ``--no-trunc``."""
    length = None if full else _SHORT
    return render_table(("NAME", "DIGEST"), [(name, digest.hex[:length]) for name, digest in named])


def container_images_json(found: Iterable[Tagged]) -> dict[str, object]:
    """Return the JSON of ``cfsctl oci images --json``."""
    return {"images": [_described(*row) for row in found]}


def _described(tag: str, image: StoredImage, referrer_count: int) -> dict[str, object]:
    config = image.config
    return {
        **name_value("name", os.fsencode(tag)),
        "manifest_digest": str(image.documents.manifest_digest),
        "is_container": config is not None,
        "architecture": config.architecture if config else "",
        "os": config.os if config else "",
        "created": config.created if config else None,
        "layer_count": len(image.documents.diff_ids),
        "referrer_count": referrer_count,
    }


def container_images_table(found: Iterable[Tagged]) -> str:
    """Return the table of ``cfsctl oci images``."""
    header = ("NAME", "DIGEST", "ARCH", "LAYERS", "REFS")
    return render_table(header, [_row(*row) for row in found])


def _row(tag: str, image: StoredImage, referrer_count: int) -> tuple[str, ...]:
    return (
        tag,
        image.documents.manifest_digest.hex[:_SHORT],
        (image.config.architecture if image.config else "") or "artifact",
        str(len(image.documents.diff_ids)),
        str(referrer_count),
    )


def container_image_json(
    image: StoredImage, referrers: Iterable[OciDigest], version: int
) -> dict[str, object]:
    """Return the JSON of ``cfsctl oci inspect``.

    Args:
        image: The image.
        referrers: The manifests that refer to it.
        version: The version of the image format whose EROFS images are named.
    """
    documents = image.documents
    plain = image.made(version, bootable=False)
    booted = image.made(version, bootable=True)
    return {
        "manifest": documents.manifest_raw.decode("utf-8", "replace"),
        "config": documents.config_raw.decode("utf-8", "replace"),
        "referrers": [str(digest) for digest in referrers],
        "composefs_erofs": plain and plain.hex,
        "composefs_boot_erofs": booted and booted.hex,
    }


def layer_json(facts: LayerFacts) -> dict[str, object]:
    """Return the JSON of ``cfsctl oci layer --json``."""
    return {
        "diffId": str(facts.diff_id),
        "verity": facts.stream.hex,
        "size": facts.size_bytes,
        "entryCount": facts.entries,
        "splitstream": {
            "externalObjects": facts.objects,
            "externalSize": facts.external_bytes,
            "inlineSize": facts.size_bytes - facts.external_bytes,
        },
    }
