"""Looking for updates.

Real commands on directories; the machine around them is made up.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bootc.cli.render import update_check
from bootc.deploy.host.model import ImageSpec
from bootc.deploy.upgrade import UpdateOptions, cancel, switch
from bootc.formats.origin import BootType
from support import osimages
from support.bench import Bench
from support.osimages import Channel, OsImage


def test_looking_for_updates_cannot_tell_what_a_new_image_boots(any_bench: Bench) -> None:
    any_bench.channel.offer(osimages.TURNED)
    said = any_bench.check()
    unified = any_bench.machine.scheme.boot_type is BootType.UKI
    assert [line for line in said if line.startswith("notice")] == [
        update_check.PERHAPS_WEAKER
    ] * unified


def layers(bench: Bench, image: OsImage) -> list[dict[str, Any]]:
    digest = str(bench.images.entry(image)["digest"]).removeprefix("sha256:")
    manifest = json.loads((bench.channel.path / "blobs/sha256" / digest).read_bytes())
    found: list[dict[str, Any]] = manifest["layers"]
    return found


def size(found: list[dict[str, Any]]) -> str:
    return f"{sum(layer['size'] for layer in found)} bytes"


def test_looking_for_updates(bench: Bench) -> None:
    machine, name = bench.machine, f"ostree-unverified-image:{bench.channel.reference}"
    new, turned = layers(bench, osimages.NEW), layers(bench, osimages.TURNED)
    digest = bench.images.entry(osimages.TURNED)["digest"]
    before = machine.contents(repository=True)
    bench.channel.offer(osimages.TURNED)
    assert bench.check() == [
        f"Update available for: {name}",
        f"  Digest: {digest}",
        f"Total new layers: {len(turned)}     Size: {size(turned)}",
        f"Removed layers:   {len(new)}     Size: {size(new)}",
        f"Added layers:     {len(turned)}     Size: {size(turned)}",
    ]
    after = machine.contents(repository=True)
    changed = {path for path in after.keys() | before.keys() if after.get(path) != before.get(path)}
    assert changed == {"run/composefs/cached-update.json"}
    cached = machine.status()["status"]["booted"]["cachedUpdate"]
    assert cached["imageDigest"] == digest
    assert cached["image"]["image"] == str(bench.channel.path)
    bench.upgrade(osimages.TURNED)
    assert bench.check() == [f"No changes in staged image: {name}"]
    machine.command(cancel)
    bench.channel.offer(osimages.NEW)
    assert bench.check() == [f"No changes in: {name}"]
    assert machine.status()["status"]["booted"]["cachedUpdate"] is None


def test_what_was_known_before_a_switch(bench: Bench, top: Path) -> None:
    machine = bench.machine
    bench.channel.offer(osimages.TURNED)
    bench.check()
    other = Channel(top / "other", bench.images, osimages.RENAMED)
    machine.command(lambda s, j: switch(s, ImageSpec(other.reference), UpdateOptions(), j))
    assert machine.status()["status"]["booted"]["cachedUpdate"] is None
    machine.command(cancel)
    assert machine.status()["status"]["booted"]["cachedUpdate"] is not None
