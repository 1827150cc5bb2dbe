"""Tags of stored images, given, read and removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootc.formats.digest import OciDigest
from bootc.formats.imgref import ImageReference
from bootc.oci.layoutdir import open_layout
from bootc.oci.names import tag_of
from bootc.oci.pull import Pulled, pull
from bootc.oci.stored import find_image, list_images
from bootc.oci.tags import BadTag, NotStored, referrers, tag_image, tag_names, tagged, untag_image
from bootc.repository.repository import Repository
from support import images
from support.layers import LAYERS

ABSENT = OciDigest.of(b"absent")


def test_tags_come_and_go(repository: Repository, pulled: Pulled) -> None:
    tag_image(repository, pulled.manifest_digest, "a/b%:1")
    assert tag_names(repository) == ["a/b%:1", "os"]
    assert repository.streams.refs()["oci/a%2Fb%25:1"] == f"oci-manifest-{pulled.manifest_digest}"
    assert tagged(repository, "a/b%:1") == pulled.manifest_digest
    untag_image(repository, "a/b%:1")
    for gone in (lambda: untag_image(repository, "a/b%:1"), lambda: tagged(repository, "a/b%:1")):
        with pytest.raises(NotStored, match=r"no image is tagged 'a/b%:1'"):
            gone()
    with pytest.raises(NotStored, match=f"there is no image {ABSENT}"):
        tag_image(repository, ABSENT, "new")
    assert tag_names(repository) == ["os"]


def test_bootc_s_own_tag_where_none_is_given(repository: Repository, tmp_path: Path) -> None:
    layout = images.single(tmp_path / "layout", *LAYERS)
    with open_layout(ImageReference.parse(layout.reference()), images.ARCHITECTURE) as source:
        pulled = pull(repository, source)
    assert list(repository.streams.refs()) == [tag_of(pulled.manifest_digest)]
    assert tag_names(repository) == [f"localhost/bootc-{pulled.manifest_digest}"]


@pytest.mark.parametrize("tag", ["@x", "", ".", "..", "a\0b", "/" * 86])
def test_bad_tags(repository: Repository, pulled: Pulled, tag: str) -> None:
    for use in (
        lambda: tagged(repository, tag),
        lambda: tag_image(repository, pulled.manifest_digest, tag),
        lambda: untag_image(repository, tag),
    ):
        with pytest.raises(BadTag):
            use()


def test_what_is_no_tag_is_left_out(
    repository: Repository, pulled: Pulled, caplog: pytest.LogCaptureFixture
) -> None:
    tags = Path(repository.dir.path, "streams/refs/oci")
    (tags / "directory").mkdir()
    (tags / "file").write_bytes(b"")
    (tags / "stream").symlink_to("../../oci-layer-sha256:1")
    (tags / "short").symlink_to("../../oci-manifest-sha256:12")
    (tags / "missing").symlink_to(f"../../oci-manifest-{ABSENT}")
    os.symlink("../../x", os.fsencode(tags) + b"/\xff")
    assert [tag for tag, _ in list_images(repository)] == ["os"]
    assert len(caplog.records) == 6
    for tag in ("stream", "short"):
        with pytest.raises(NotStored, match="which is not a manifest"):
            tagged(repository, tag)
    with pytest.raises(NotStored, match=f"there is no image {ABSENT}"):
        find_image(repository, "missing")


def test_referrers(
    repository: Repository, pulled: Pulled, caplog: pytest.LogCaptureFixture
) -> None:
    assert referrers(repository, pulled.manifest_digest) == ()
    below = Path(repository.dir.path, "streams/refs/oci-referrers", str(pulled.manifest_digest))
    below.mkdir(parents=True)
    (below / str(ABSENT)).symlink_to("x")
    (below / "readme").write_bytes(b"")
    assert referrers(repository, pulled.manifest_digest) == (ABSENT,)
    assert [r.getMessage().rpartition("/")[2] for r in caplog.records] == [
        "'readme': the name is not a digest"
    ]
