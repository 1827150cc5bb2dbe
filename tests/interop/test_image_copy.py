"""``bootc image copy-to-storage`` by the real skopeo: every kind of place has the same image."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bootc.deploy.images import copy_image
from bootc.events import null_sink
from bootc.formats.imgref import ImageReference
from bootc.oci.source import open_source
from support import osimages, require
from support.bench import Bench
from support.bootdirs import SYSTEMD
from support.images import compute_image_id
from support.osimages import Images

pytestmark = pytest.mark.interop


@pytest.mark.parametrize(
    "target",
    [
        "dir:{0}/copy",
        "oci:{0}/copy:os",
        "oci-archive:{0}/copy.tar:os",
        "docker-archive:{0}/copy.tar:localhost/os:1",
        "containers-storage:[vfs@{0}/storage+{0}/run]localhost/bootc",
    ],
    ids=lambda target: target.partition(":")[0],
)
def test_a_copy_makes_the_same_deployment(tmp_path: Path, target: str) -> None:
    require.tool("skopeo")
    if target.startswith("containers-storage"):
        require.root()
    images = Images(tmp_path / "images", SYSTEMD.boot_type)
    bench = Bench(SYSTEMD, tmp_path, images, osimages.OLD)
    reference = ImageReference.parse(target.format(tmp_path))
    with bench.machine.open() as system:
        copy_image(system, None, reference, null_sink)
    if reference.transport == "containers-storage":
        # Older versions of skopeo cannot serve it, only copy from it.
        layout = ImageReference.parse(f"oci:{tmp_path}/out:os")
        argv = ["skopeo", "--insecure-policy", "copy", "--quiet", str(reference), str(layout)]
        subprocess.run(argv, check=True, capture_output=True)
        reference = layout
    with open_source(reference) as source:
        assert compute_image_id(source).hex == bench.id(osimages.OLD)
