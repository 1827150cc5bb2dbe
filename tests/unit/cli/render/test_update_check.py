from __future__ import annotations

import pytest

from bootc.cli.render.update_check import PERHAPS_WEAKER, lines
from bootc.deploy.check import Unchanged, Update
from bootc.deploy.host.model import ImageSpec, ImageStatus
from bootc.formats.digest import OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.ocispec import Descriptor

REGISTRY = ImageReference("registry", "quay.io/example/os:1")
DIGEST = OciDigest.of(b"manifest")


def layer(content: bytes, size_bytes: int) -> Descriptor:
    return Descriptor(
        "application/vnd.oci.image.layer.v1.tar", OciDigest.of(content), size_bytes, {}
    )


def update(
    *, version: str | None = None, old: int | None = None, new: int = 1, unified: bool = False
) -> Update:
    image = ImageStatus(ImageSpec(REGISTRY), DIGEST, "amd64", version)
    before = () if old is None else (layer(b"old", old), layer(b"both", 5))
    return Update(image, before, (layer(b"new", new), layer(b"both", 5)), unified)


def test_an_update() -> None:
    assert list(lines(update(version="2", old=1, new=2000, unified=True))) == [
        "Update available for: quay.io/example/os:1",
        f"  Digest: {DIGEST}",
        "  Version: 2",
        "Total new layers: 2     Size: 2.0 kB",
        "Removed layers:   1     Size: 1 byte",
        "Added layers:     1     Size: 2.0 kB",
        PERHAPS_WEAKER,
    ]


def test_an_update_of_an_image_whose_layers_are_not_known() -> None:
    assert list(lines(update(new=995))) == [
        "Update available for: quay.io/example/os:1",
        f"  Digest: {DIGEST}",
        "Total new layers: 2     Size: 1.0 kB",
        "Removed layers:   0     Size: 0 bytes",
        "Added layers:     2     Size: 1.0 kB",
    ]


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        *((0, "5 bytes"), (994, "999 bytes"), (995, "1.0 kB")),
        *((999_995, "1.0 MB"), (1_500_000_000, "1.5 GB"), (2_000_000_000_000, "2000.0 GB")),
    ],
)
def test_sizes_are_those_of_glib(size_bytes: int, text: str) -> None:
    total = next(line for line in lines(update(new=size_bytes)) if line.startswith("Total"))
    assert total == f"Total new layers: 2     Size: {text}"


def test_a_version_cannot_write_lines_of_its_own() -> None:
    found = list(lines(update(version="1\nUpdate available for: evil\x1b[2J")))
    assert found[2] == "  Version: 1\\nUpdate available for: evil\\x1b[2J"


def test_no_update() -> None:
    layout = ImageReference("oci", "/srv/os")
    assert list(lines(Unchanged(REGISTRY, staged=False, losses=()))) == [
        "No changes in: quay.io/example/os:1"
    ]
    assert list(lines(Unchanged(layout, staged=True, losses=("it is weak",)))) == [
        "No changes in staged image: ostree-unverified-image:oci:/srv/os",
        "notice: the new image protects less than the booted one: it is weak",
    ]
