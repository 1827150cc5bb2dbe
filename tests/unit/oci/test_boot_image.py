"""A boot image made to match a digest."""

from __future__ import annotations

import os

from bootc.formats.digest import Digest
from bootc.formats.splitstream import StreamReader
from bootc.oci.boot_image import BootImage, match_boot_image
from bootc.oci.names import XattrMode
from bootc.oci.pull import Pulled
from bootc.oci.stored import find_image
from bootc.oci.tags import tagged
from bootc.repository.repository import Repository


def test_a_match_is_found_again_and_made_again(repository: Repository, pulled: Pulled) -> None:
    def image_ids() -> dict[str, Digest]:
        stream = StreamReader(repository.streams.read(f"oci-config-{pulled.config_digest}"))
        return {k: v for k, v in stream.named_refs.items() if k.startswith("composefs")}

    before = image_ids()
    image = find_image(repository, "os")
    assert match_boot_image(repository, image, Digest.from_hex("ab" * 64)) is None
    found = match_boot_image(repository, image, pulled.image_id)
    assert found == BootImage(pulled.image_id, XattrMode.ALLOWLIST_ONLY, 1)
    assert image_ids() == before
    # It is named, and gone: it is made once more.
    os.unlink(f"{repository.dir.path}/images/{pulled.image_id}")
    assert match_boot_image(repository, image, pulled.image_id) == found
    assert repository.images.exists(pulled.image_id)
    assert image_ids() == before
    assert tagged(repository, "os") == pulled.manifest_digest
