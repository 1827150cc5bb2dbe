"""The images of deployments, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bootc.printable import ascii_escaped, printable

if TYPE_CHECKING:
    from bootc.deploy.images import HostImage

#: The type of an image, as upstream names it.
_HOST = "host"
_SHOWN_DIGITS = 12


def images_table(found: Sequence[HostImage]) -> str:
    """Return the lines of ``bootc image list``."""
    rows = [("REPOSITORY", "TYPE", "DEPLOYMENT", "")]
    for image in found:
        if image.image is not None:
            deployment = image.deployment.hex[:_SHOWN_DIGITS]
            rows.append((printable(str(image.image)), _HOST, deployment, ", ".join(image.roles)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def images_json(found: Sequence[HostImage]) -> str:
    """Return the JSON of ``bootc image list``: upstream's, and the deployment of each image."""
    values: list[dict[str, Any]] = [
        {
            "image_type": _HOST,
            "image": str(image.image),
            "deployment": image.deployment.hex,
            "roles": list(image.roles),
            "manifestDigest": None if image.manifest is None else str(image.manifest),
        }
        for image in found
        if image.image is not None
    ]
    return ascii_escaped(json.dumps(values, indent=2, ensure_ascii=False)) + "\n"
