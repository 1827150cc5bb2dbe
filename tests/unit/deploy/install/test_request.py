from __future__ import annotations

import pytest

from bootc.deploy.install.request import target_reference
from bootc.formats.imgref import ImageReference, ImageReferenceError

REGISTRY = ImageReference("registry", "example.com/os:1")
LAYOUT = ImageReference("oci", "/srv/image:v1")


@pytest.mark.parametrize(
    ("source", "imgref", "transport", "target"),
    [
        (REGISTRY, None, None, REGISTRY),
        (LAYOUT, None, None, LAYOUT),
        (LAYOUT, "example.com/os:2", None, ImageReference("registry", "example.com/os:2")),
        (LAYOUT, "/other", "oci", ImageReference("oci", "/other")),
        (LAYOUT, None, "dir", ImageReference("dir", "/srv/image:v1")),
        (REGISTRY, None, "registry", REGISTRY),
    ],
)
def test_where_updates_come_from(
    source: ImageReference, imgref: str | None, transport: str | None, target: ImageReference
) -> None:
    assert target_reference(source, imgref, transport) == target


@pytest.mark.parametrize(
    ("imgref", "transport"), [("", None), ("two\nlines", None), ("x", "ftp"), (None, "")]
)
def test_what_is_no_reference(imgref: str | None, transport: str | None) -> None:
    with pytest.raises(ImageReferenceError):
        target_reference(REGISTRY, imgref, transport)
