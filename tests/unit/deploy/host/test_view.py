"""How a machine boots, from the record of its installation and the traces of its loader."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bootc.boot.loader import Bootloader, LoaderTraces
from bootc.deploy.host import session
from bootc.deploy.host.boot_state import BootedState
from bootc.deploy.host.gather import gather
from bootc.deploy.host.status import compose_host
from bootc.deploy.host.view import (
    NoBootMenu,
    booted_slot,
    find_scheme,
    open_partial_view,
    preferred_esps,
)
from bootc.formats.digest import Digest
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import BootRecord, BootType, Origin, parse_origin, serialise_origin
from bootc.fs.dir import Dir
from support import osimages
from support.bench import Bench
from support.bootdirs import SYSTEMD
from support.osimages import Images
from support.sysroot import FakeSysroot, image_id

A = image_id("aa")
UKI = f"/EFI/Linux/bootc/bootc_composefs-{A}.efi"
ESP, STICK = "11111111-2222-4333-8444-555555555555", "22222222-2222-4333-8444-555555555555"
ORIGIN = Origin(image=ImageReference("registry", "q.io/os"), boot_type=BootType.UKI)


def booted(traces: LoaderTraces) -> BootedState:
    return BootedState(A, missing_verity_allowed=True, loader=traces)


@pytest.mark.parametrize(
    ("recorded", "traces", "grub", "bootloader"),
    [
        ("systemd", LoaderTraces(), False, Bootloader.SYSTEMD),
        ("systemd", LoaderTraces(None, UKI), False, Bootloader.SYSTEMD),
        (None, LoaderTraces(None, UKI), False, Bootloader.NONE),
        (None, LoaderTraces(None, UKI.removeprefix("/")), False, Bootloader.NONE),
        (None, LoaderTraces(None, UKI), True, Bootloader.GRUB),
        (None, LoaderTraces(None, "/EFI/Linux/other.efi"), False, Bootloader.GRUB),
        (None, LoaderTraces(), False, Bootloader.GRUB),
        (None, LoaderTraces(Bootloader.SYSTEMD), True, Bootloader.SYSTEMD),
    ],
)
def test_the_loader_of_a_machine(
    tmp_path: Path, recorded: str | None, traces: LoaderTraces, grub: bool, bootloader: Bootloader
) -> None:
    system = FakeSysroot(tmp_path)
    system.add_state(A, dataclasses.replace(ORIGIN, record=BootRecord(recorded)))
    if grub:
        (system.physical / "boot/grub2").mkdir()
    with Dir.open(system.physical) as physical:
        scheme = find_scheme(physical, booted(traces))
    assert (scheme.bootloader, scheme.boot_type) == (bootloader, BootType.UKI)


def test_the_esp_of_a_machine(tmp_path: Path) -> None:
    system = FakeSysroot(tmp_path)
    with Dir.open(system.physical) as physical:
        assert preferred_esps(physical, booted(LoaderTraces())) == ()
        system.add_state(A, dataclasses.replace(ORIGIN, record=BootRecord(esp=ESP.upper())))
        assert preferred_esps(physical, booted(LoaderTraces())) == (ESP,)
        started = booted(LoaderTraces(Bootloader.SYSTEMD, None, STICK))
        assert preferred_esps(physical, started) == (STICK, ESP)


def test_status_of_a_machine_with_android_boot(tmp_path: Path) -> None:
    system = FakeSysroot(tmp_path)
    record = BootRecord("none")
    system.add_state(A, dataclasses.replace(ORIGIN, boot_type=BootType.ABOOT, record=record))
    state = booted(LoaderTraces())
    (tmp_path / "sysroot/sysroot").symlink_to(".")
    with open_partial_view(state, root=str(system.physical)) as view:
        assert view.boot is None
        # Without /sys there is another finding: the device of the disk is unknown.
        (finding,) = (found for found in view.findings if found.subject == "boot menu")
        host = compose_host(gather(view))
    assert "A/B partitions (boot_type aboot) without ukiboot, which" in finding.text
    shown = host.status.booted
    assert shown is not None
    composefs = shown.composefs.to_json()
    assert composefs["bootType"] == "Aboot"
    assert composefs["bootloader"] == "none"


@pytest.mark.parametrize(
    ("cmdline", "image", "slot"),
    [
        ("rw androidboot.slot_suffix=_a", None, "a"),
        ("androidboot.slot_suffix=_b rw", "EFI/BOOT/ukiboot_a.efi", "b"),
        ("androidboot.slot_suffix=_b androidboot.slot_suffix=_b", None, "b"),
        ("androidboot.slot_suffix=_b androidboot.slot_suffix=_a", None, None),
        ("androidboot.slot_suffix=_c", "EFI/BOOT/ukiboot_a.efi", None),
        ("rw", "/EFI/BOOT/UKIBOOT_B.EFI", "b"),
        ("rw", "/EFI/BOOT/other.efi", None),
        ("rw", None, None),
    ],
)
def test_the_slot_that_runs(cmdline: str, image: str | None, slot: str | None) -> None:
    state = dataclasses.replace(booted(LoaderTraces(None, image)), cmdline=cmdline)
    assert booted_slot(state) == slot


@pytest.mark.parametrize(
    ("boot_type", "traces"),
    [
        (BootType.ABOOT, LoaderTraces()),
        (BootType.ABOOT, LoaderTraces(Bootloader.SYSTEMD)),
        (BootType.UKI, LoaderTraces(None, "EFI/BOOT/ukiboot_b.efi")),
    ],
)
def test_changes_are_refused_before_anything_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, boot_type: BootType, traces: LoaderTraces
) -> None:
    system = FakeSysroot(tmp_path)
    system.add_state(A, dataclasses.replace(ORIGIN, boot_type=boot_type))
    monkeypatch.setattr(session, "_require_host", lambda root: None)
    monkeypatch.setattr(session, "_require_booted", lambda root: booted(traces))
    monkeypatch.setattr(session.mounts, "private_mount_namespace", lambda: None)
    monkeypatch.setattr(session, "_writable", lambda path: pytest.fail("it is made writable"))
    opened = session.open_host_session(lambda event: None, root=str(tmp_path))
    with pytest.raises(NoBootMenu) as caught, opened:
        pass
    assert caught.value.hint


def test_deployments_pass_the_record_on(tmp_path: Path) -> None:
    images = Images(tmp_path / "images", SYSTEMD.boot_type)
    bench = Bench(SYSTEMD, tmp_path, images, osimages.OLD)
    record = BootRecord("systemd", "uefi", ESP)
    old = bench.id(osimages.OLD)
    path = bench.machine.state(old) / f"{old}.origin"
    origin = parse_origin(path.read_bytes())
    path.write_bytes(serialise_origin(dataclasses.replace(origin, record=record)))
    bench.update(osimages.NEW)
    # The same tree under another name: only its origin is written again.
    bench.update(osimages.REBUILT)
    new = bench.machine.facts().origin(Digest.from_hex(bench.id(osimages.NEW)))
    assert new is not None
    assert new.record == record
