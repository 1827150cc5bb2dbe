"""Machines with several ESPs, through updates: the mirrors have the content of the main one."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from bootc.boot import mirrors
from bootc.boot.scheme import Scheme
from bootc.deploy.cleanup import collect_garbage
from bootc.deploy.refresh import refresh_menu
from bootc.deploy.rollback import delete_deployment, rollback
from bootc.formats.origin import BootType
from support import firmware, osimages
from support.bench import Bench
from support.bootdirs import GRUB, GRUB_UKI, NONE_UKI, SYSTEMD, SYSTEMD_UKI, scheme_name
from support.osimages import Images

SCHEMES = (SYSTEMD, SYSTEMD_UKI, NONE_UKI, GRUB_UKI)
ESPS = ("esp", "esp2", "esp3")
LOADER = "EFI/systemd/systemd-bootx64.efi"
GRUB_PROGRAM = b"MZ\0/EFI/debian\0"


@pytest.fixture(params=SCHEMES, ids=scheme_name)
def bench(request: pytest.FixtureRequest, top: Path, made: dict[BootType, Images]) -> Bench:
    """Return a machine with three ESPs that runs NEW and can go back to OLD."""
    scheme: Scheme = request.param
    return Bench(scheme, top, made[scheme.boot_type], osimages.OLD, osimages.NEW, esps=ESPS)


@pytest.fixture
def systemd(top: Path, made: dict[BootType, Images]) -> Bench:
    return Bench(SYSTEMD, top, made[BootType.BLS], osimages.OLD, osimages.NEW, esps=ESPS[:2])


def content(bench: Bench, esp: str) -> dict[str, bytes]:
    """Return all files of an ESP."""
    top = bench.machine.path / esp
    return {
        str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()
    }


def check_same(bench: Bench) -> None:
    wanted = content(bench, "esp")
    assert wanted
    for name in bench.machine.esps[1:]:
        assert content(bench, name) == wanted
    assert outdated(bench) == []


def outdated(bench: Bench) -> list[tuple[str, str]]:
    """Return the kinds and the subjects of the findings about mirrors."""
    findings = bench.machine.status()["status"].get("findings", ())
    return [(f["kind"], f["subject"]) for f in findings if f["subject"].startswith("esp")]


def boots(bench: Bench, esp: str) -> list[str]:
    """Return the tags of what the machine boots from an ESP, having made sure that it does."""
    seen = bench.machine.started_from(esp)
    for shown in seen.menu():
        seen.check_bootable(shown)
    return [bench.images.image(shown.image_id).tag for shown in seen.menu()]


def clean_up(bench: Bench) -> None:
    bench.machine.command(collect_garbage)


def test_every_change_of_the_menu_reaches_all_esps(bench: Bench) -> None:
    machine = bench.machine
    check_same(bench)
    bench.update(osimages.TURNED)
    check_same(bench)
    machine.command(rollback)
    check_same(bench)
    assert machine.reboot() is None
    assert bench.shown() == ["new", "turned"]
    bench.update(osimages.RENAMED)
    check_same(bench)
    new = bench.id(osimages.NEW)
    machine.command(lambda system, journal: delete_deployment(system, new, journal))
    check_same(bench)
    assert bench.shown() == ["renamed"]


def test_a_staged_deployment_is_not_in_the_menu_of_a_mirror(systemd: Bench) -> None:
    systemd.upgrade(osimages.TURNED)
    assert boots(systemd, "esp2") == ["new", "old"]
    assert outdated(systemd) == []


@pytest.mark.parametrize("repair", ["update", "clean-up"])
def test_an_empty_esp_of_a_new_disk_is_filled(systemd: Bench, repair: str) -> None:
    shutil.rmtree(systemd.machine.path / "esp2")
    (systemd.machine.path / "esp2").mkdir()
    assert outdated(systemd) == [("outdated", "esp2")]
    if repair == "update":
        systemd.update(osimages.TURNED)
    else:
        clean_up(systemd)
    check_same(systemd)


def test_a_missing_mirror_is_named_and_ends_nothing(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(bench.machine.path / "esp2")
    with caplog.at_level(logging.WARNING):
        bench.update(osimages.TURNED)
    assert "the EFI system partition esp2 is not up to date: No such device" in caplog.messages
    assert outdated(bench) == [("unreadable", "esp2")]
    assert content(bench, "esp3") == content(bench, "esp")


def test_a_mirror_that_is_full_is_named_and_ends_nothing(
    systemd: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_space = mirrors.space.free_space

    def full(root: object, **options: bool) -> tuple[int, int]:
        path = getattr(root, "path", "")
        return (0, 4096) if path.endswith("esp2") else free_space(root, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(mirrors.space, "free_space", full)
        systemd.update(osimages.RENAMED)
    assert any("esp2 has 0 B free" in message for message in caplog.messages), caplog.messages
    # It boots what it booted before.
    mirror = systemd.machine.started_from("esp2")
    mirror.check_bootable(mirror.menu()[0])
    assert mirror.menu()[0].image_id == systemd.id(osimages.NEW)
    assert outdated(systemd) == [("outdated", "esp2")]
    clean_up(systemd)
    check_same(systemd)


def test_room_for_a_kernel_is_made_of_what_only_the_old_menu_of_a_mirror_boots(
    systemd: Bench,
) -> None:
    path = systemd.machine.path / "esp2"
    saved = systemd.machine.path / "saved"
    shutil.copytree(path, saved)
    systemd.update(osimages.TURNED)
    systemd.update(osimages.RENAMED)
    shutil.rmtree(path)
    saved.rename(path)
    assert outdated(systemd) == [("outdated", "esp2")]
    clean_up(systemd)
    check_same(systemd)


def test_a_mirror_keeps_entries_of_other_systems_and_its_boot_counters(systemd: Bench) -> None:
    machine = systemd.machine
    entries = machine.path / "esp2/loader/entries"
    (entries / "other.conf").write_text("title Other\nlinux /other\n")
    (machine.path / "esp/loader/entries/main.conf").write_text("title Main\nlinux /main\n")
    (name,) = (p.name for p in entries.iterdir() if systemd.id(osimages.NEW) in p.read_text())
    (entries / name).rename(entries / name.replace(".conf", "+2-1.conf"))
    assert outdated(systemd) == []
    systemd.update(osimages.TURNED)
    names = sorted(path.name for path in entries.iterdir())
    assert "other.conf" in names
    assert "main.conf" not in names
    (counted,) = (name for name in names if "+2-1" in name)
    assert systemd.id(osimages.NEW) in (entries / counted).read_text()
    assert outdated(systemd) == []


def test_the_programs_of_the_loader_are_copied_when_they_change(systemd: Bench) -> None:
    esp = systemd.machine.path / "esp"
    for path, data in ((LOADER, b"2"), ("EFI/BOOT/BOOTX64.EFI", b"2"), ("loader/loader.conf", b"")):
        (esp / path).parent.mkdir(parents=True, exist_ok=True)
        (esp / path).write_bytes(data)
    (esp / "EFI/Other").mkdir()
    (esp / "EFI/Other/other.efi").write_bytes(b"other")
    assert outdated(systemd) == [("outdated", "esp2")]
    clean_up(systemd)
    assert outdated(systemd) == []
    copied = content(systemd, "esp2")
    assert (copied[LOADER], copied["EFI/BOOT/BOOTX64.EFI"]) == (b"2", b"2")
    assert "loader/loader.conf" in copied
    assert "EFI/Other/other.efi" not in copied


def test_the_esp_of_another_system_is_left_alone(systemd: Bench) -> None:
    esp = systemd.machine.path / "esp2"
    shutil.rmtree(esp)
    (esp / "EFI/Microsoft").mkdir(parents=True)
    (esp / "EFI/Microsoft/bootmgfw.efi").write_bytes(b"other")
    assert outdated(systemd) == [("foreign", "esp2")]
    systemd.update(osimages.TURNED)
    clean_up(systemd)
    assert content(systemd, "esp2") == {"EFI/Microsoft/bootmgfw.efi": b"other"}


def test_a_damaged_entry_of_a_mirror_is_repaired(systemd: Bench) -> None:
    (entry, *_) = (systemd.machine.path / "esp2/loader/entries").iterdir()
    entry.write_text("")
    assert outdated(systemd) == [("outdated", "esp2")]
    clean_up(systemd)
    check_same(systemd)


def test_a_large_kernel_of_the_same_size_is_the_same(
    systemd: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged kernel of the main ESP does not replace the one of the mirror."""
    (kernel, *_) = (systemd.machine.path / "esp").glob("EFI/Linux/*/vmlinuz")
    data = kernel.read_bytes()
    kernel.write_bytes(b"\0" * len(data))
    assert outdated(systemd) == [("outdated", "esp2")]
    monkeypatch.setattr(mirrors, "_COMPARED_BYTES", 16)
    assert outdated(systemd) == []
    clean_up(systemd)
    path = systemd.machine.path / "esp2" / kernel.relative_to(systemd.machine.path / "esp")
    assert path.read_bytes() == data


def test_what_is_left_of_an_update_on_a_mirror_is_removed(systemd: Bench) -> None:
    kernels = systemd.machine.path / "esp2/EFI/Linux"
    unknown = kernels / f"bootc_composefs-{'ab' * 64}"
    unknown.mkdir()
    (unknown / "vmlinuz").write_bytes(b"old")
    systemd.update(osimages.TURNED)
    check_same(systemd)


def test_the_machine_goes_on_from_a_mirror(systemd: Bench) -> None:
    """The disk with the main ESP is gone."""
    systemd.machine = systemd.machine.started_from("esp2")
    shutil.rmtree(systemd.machine.path / "esp")
    assert systemd.machine.start() == systemd.id(osimages.NEW)
    systemd.update(osimages.TURNED)
    (systemd.machine.path / "esp").mkdir()
    systemd.update(osimages.RENAMED)
    assert boots(systemd, "esp") == boots(systemd, "esp2") == ["renamed", "turned"]


def test_the_programs_of_grub_are_on_all_esps(top: Path, made: dict[BootType, Images]) -> None:
    """The menu and the kernels of GRUB are elsewhere."""
    bench = Bench(GRUB, top, made[BootType.BLS], osimages.OLD, esps=ESPS[:2])
    esp = bench.machine.path / "esp"
    files = {
        "EFI/BOOT/BOOTX64.EFI": b"shim",
        "EFI/BOOT/grubx64.efi": GRUB_PROGRAM,
        "EFI/debian/grub.cfg": b"search",
        "EFI/debian/shimx64.efi": b"shim",
    }
    for path, data in files.items():
        (esp / path).parent.mkdir(parents=True, exist_ok=True)
        (esp / path).write_bytes(data)
    assert outdated(bench) == [("outdated", "esp2")]
    bench.update(osimages.NEW)
    assert content(bench, "esp2") == files
    assert outdated(bench) == []


def test_the_record_that_follows_the_firmware_reaches_the_mirrors(
    top: Path, made: dict[BootType, Images]
) -> None:
    """Without a boot loader an interruption can leave an old record, which the next boot renews."""
    bench = Bench(NONE_UKI, top, made[BootType.UKI], osimages.OLD, osimages.NEW, esps=ESPS[:2])
    variables = bench.machine.path / "efivars"
    firmware.put_order(variables, *reversed(firmware.order(variables)))
    bench.machine.command(refresh_menu)
    assert bench.shown() == ["old", "new"]
    check_same(bench)
