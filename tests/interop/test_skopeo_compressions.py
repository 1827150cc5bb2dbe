"""Layers as skopeo compresses them, zstd:chunked with its index among them: one image id."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import pytest

from bootc.formats.imgref import ImageReference
from bootc.oci.decompress import decompress
from bootc.oci.source import open_source
from support import images, require
from support.images import compute_image_id, directory, file, symlink

pytestmark = pytest.mark.interop

MEMBERS = [
    directory("usr/share"),
    *(file(f"usr/share/{number}", b"%d" % number * 5000) for number in range(40)),
    *(file(f"usr/share/empty-{number}") for number in range(5)),
    symlink("usr/link", "share"),
    # More than one chunk.
    file("usr/large", b"".join(b"%d\n" % number for number in range(150_000))),
]


@pytest.mark.parametrize("form", ["zstd:chunked", "zstd", "gzip", "none"])
def test_compressions_of_skopeo(tmp_path: Path, form: str) -> None:
    skopeo = require.tool("skopeo")
    # Two zero blocks, as Go writes: skopeo 1.9 loses what follows when it makes zstd:chunked.
    plain = images.bootable(*MEMBERS).rstrip(b"\0")
    plain += bytes(-len(plain) % 512 + 1024)
    images.Layout(tmp_path / "in").image([plain], tag="os", compression="")
    target = tmp_path / "out"
    how = [] if form == "none" else ["--dest-compress", "--dest-compress-format", form]
    copy = [skopeo, "--insecure-policy", "copy", "-q", *how]
    subprocess.run([*copy, f"oci:{tmp_path}/in:os", f"dir:{target}"], check=True)
    (layer,) = json.loads((target / "manifest.json").read_text())["layers"]
    assert ("zstd-chunked" in json.dumps(layer)) == (form == "zstd:chunked")
    blob = (target / layer["digest"].removeprefix("sha256:")).read_bytes()
    # The magic of the footer; versions of skopeo spell it differently.
    assert (b"gnulinux" in blob.lower()) == (form == "zstd:chunked")
    assert b"".join(decompress(io.BytesIO(blob))) == plain
    with open_source(ImageReference.parse(f"oci:{tmp_path}/in:os")) as source:
        wanted = compute_image_id(source)
    with open_source(ImageReference.parse(f"dir:{target}")) as source:
        assert compute_image_id(source) == wanted
