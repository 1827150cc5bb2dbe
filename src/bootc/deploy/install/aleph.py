"""``.bootc-aleph.json``: what was installed first, and by which kernel.

The file is in the physical root. Nothing reads it but people who look for the origin of a
machine, years and many updates later.

Format: upstream's, canonical JSON.
"""

from __future__ import annotations

import json
import os
from typing import Any

from bootc.errors import doing
from bootc.formats.digest import OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.ocispec import ImageConfig
from bootc.fs import atomic
from bootc.fs.dir import Dir

NAME = ".bootc-aleph.json"
_VERSION = "org.opencontainers.image.version"
_CREATED = "org.opencontainers.image.created"
#: Where builders of disk images put a copy of the image. The path says nothing.
_TEMPORARY = "/tmp/"


def aleph(
    source_name: str | None,
    target: ImageReference,
    manifest_digest: OciDigest,
    config: ImageConfig,
    *,
    selinux: str,
) -> dict[str, Any]:
    """Return the content.

    Args:
        source_name: The name of the image that was installed, if it has one.
        target: The image for updates.
        manifest_digest: The digest of the manifest.
        config: The configuration of the image.
        selinux: Upstream's word for the state of SELinux: ``enabled``, ``disabled``, ….
    """
    labels = dict(config.labels)
    value = {
        "digest": str(manifest_digest),
        "kernel": os.uname().release,
        "selinux": selinux,
        "target-image": target.name,
        "timestamp": labels.get(_CREATED) or config.created,
        "version": labels.get(_VERSION),
    }
    if source_name is not None and not source_name.startswith(_TEMPORARY):
        value["image"] = source_name
    return value | ({"labels": labels} if labels else {})


def write_aleph(root: Dir, value: dict[str, Any]) -> None:
    """Write the file to a physical root."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    with doing(f"Writing {NAME}"):
        atomic.write_file(root, NAME, text.encode(), durable=True)
