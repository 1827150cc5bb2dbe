"""The image that tests of ``cfs oci`` pull, and its digests."""

from __future__ import annotations

import json

from bootc.formats.digest import Algorithm, Digest
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.imgref import ImageReference
from bootc.formats.verity import verity_digest
from bootc.oci.layoutdir import open_layout
from bootc.oci.names import XattrMode
from bootc.oci.trees import image_tree
from support import images
from support.cfs import Cfs
from support.images import directory, file, hardlink, layer, symlink, xattr

BIG = b"big" * 1000
KERNEL = b"kernel" * 1000
BASE = images.bootable(kernel=KERNEL, initramfs=b"initramfs" * 50)
TOP = layer(
    directory("usr/share"),
    file("usr/share/big", BIG, mode=0o755, uid=7, pax_headers=xattr("user.note", "x")),
    file("usr/share/small", b"small"),
    hardlink("usr/share/again", "usr/share/big"),
    symlink("usr/share/link", "big"),
    file("usr/share/other", b"other" * 100),
)
TOP_ID = images.sha256(TOP)


def digests_of(layout: images.Layout) -> tuple[str, str]:
    """Return the digests of manifest and configuration."""
    manifest = layout.manifests[0]["digest"]
    return manifest, json.loads(layout.blob_path(manifest).read_bytes())["config"]["digest"]


def image_id(
    layout: images.Layout,
    version: int = 1,
    *,
    bootable: bool = True,
    xattrs: XattrMode = XattrMode.ALLOWLIST_ONLY,
) -> str:
    """Return what the image is called that is made of the layout's."""
    with open_layout(ImageReference.parse(layout.reference()), images.ARCHITECTURE) as source:
        root = image_tree(source, bootable=bootable, xattrs=xattrs).root
    return verity_digest(mkfs_erofs(root, version=version), Algorithm.SHA512).hex


def object_of(data: bytes) -> Digest:
    return verity_digest(data, Algorithm.SHA512)


def stream_object(cfs: Cfs, content_id: str) -> str:
    target = (cfs.repo / "streams" / content_id).readlink()
    return "".join(target.parts[-2:])
