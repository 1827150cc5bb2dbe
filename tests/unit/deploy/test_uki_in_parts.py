"""Machines that boot unified kernel images in parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bootc.boot.uki_parts import CannotTakeApart
from bootc.deploy import upgrade
from bootc.deploy.host.model import ImageSpec
from bootc.deploy.host.status import compose_host
from bootc.deploy.upgrade import UpdateOptions
from bootc.formats.origin import BootType, TakesApart, UkiRecord, parse_origin, serialise_origin
from support import osimages
from support.bench import Bench
from support.bootdirs import SYSTEMD
from support.osimages import Channel, Images


@pytest.fixture
def bench(top: Path) -> Bench:
    """Return a machine that runs NEW, with microcode, and can go back to OLD."""
    images = Images(top / "images", BootType.UKI, in_parts=True)
    return Bench(SYSTEMD, top, images, osimages.OLD, osimages.NEW)


def switch(bench: Bench, channel: Channel) -> None:
    spec = ImageSpec(channel.reference)
    bench.machine.command(
        lambda system, journal: upgrade.switch(system, spec, UpdateOptions(), journal)
    )


def origin_path(bench: Bench, image_id: str) -> Path:
    return bench.machine.state(image_id) / f"{image_id}.origin"


def test_updates_take_apart_and_the_status_says_so(bench: Bench) -> None:
    bench.update(osimages.TURNED)
    assert bench.shown() == ["turned", "new"]
    (options, *_) = (shown.options for shown in bench.machine.menu())
    assert options.split()[-2:] == ["a", "b"]
    assert "quiet" not in options.split()
    origin = parse_origin(origin_path(bench, bench.id(osimages.TURNED)).read_bytes())
    assert origin.boot_type is BootType.BLS
    assert origin.uki == UkiRecord(TakesApart.UNSEALED, arguments="rw a b")
    status = compose_host(bench.machine.facts()).status
    assert status.booted is not None
    assert status.booted.in_parts


def test_a_lost_entry_has_the_microcode_again(bench: Bench) -> None:
    shown = bench.machine.menu()[0]
    assert len(shown.files) == 3
    bench.machine.lose_entry(bench.id(osimages.NEW))
    bench.update(osimages.RENAMED)
    assert bench.shown() == ["renamed", "new"]
    again = bench.machine.menu()[1]
    assert again.files == shown.files
    assert set(again.options.split()) == set(shown.options.split())


@pytest.mark.parametrize("which", TakesApart)
def test_a_sealed_image_is_taken_apart_only_on_demand(
    bench: Bench, top: Path, which: TakesApart
) -> None:
    path = origin_path(bench, bench.machine.booted_id)
    origin = parse_origin(path.read_bytes())
    path.write_bytes(serialise_origin(replace(origin, uki=UkiRecord(which))))
    sealed = Images(top / "sealed", BootType.UKI, strict=True, in_parts=True)
    channel = Channel(top / "sealed-channel", sealed, osimages.TURNED)
    bench.machine.images = sealed
    if which is TakesApart.UNSEALED:
        with pytest.raises(CannotTakeApart, match="is sealed") as caught:
            switch(bench, channel)
        assert caught.value.hint == (
            "build the image with composefs=? in the UKI's command line; "
            "or update to another image: bootc switch IMAGE"
        )
        assert bench.machine.announced() is None
    else:
        switch(bench, channel)
        assert bench.machine.reboot() is None
        assert bench.machine.booted_id == channel.image_id


def test_a_bare_kernel_between_two_unified_ones(bench: Bench, top: Path) -> None:
    bare = Images(top / "bare", BootType.BLS)
    switch(bench, Channel(top / "bare-channel", bare, osimages.TURNED))
    bench.machine.images, unified = bare, bench.machine.images
    assert bench.machine.reboot() is None
    turned = bench.machine.booted_id
    assert bench.machine.menu()[0].options.split()[-2:] == ["a", "b"]
    uki = parse_origin(origin_path(bench, turned).read_bytes()).uki
    assert uki == UkiRecord(TakesApart.UNSEALED)
    switch(bench, Channel(top / "unified-channel", unified, osimages.RENAMED))
    bench.machine.images = unified
    assert bench.machine.reboot() is None
    assert not {"a", "b"} & set(bench.machine.menu()[0].options.split())
