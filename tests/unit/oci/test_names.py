"""Names of the parts of an image."""

from __future__ import annotations

from bootc.oci.names import XattrMode, image_name


def test_names_of_images_in_configurations() -> None:
    # composefs 0.9, "Streams written for an OCI image"
    assert image_name(2, bootable=False) == "composefs.image"
    assert image_name(1, bootable=False) == "composefs.image.v1"
    assert image_name(2, bootable=True) == "composefs.image.boot"
    keep = XattrMode.KEEP_USER_XATTRS
    name = "composefs.image.boot.v1.xattrs=keep-user-xattrs"
    assert image_name(1, bootable=True, xattrs=keep) == name
