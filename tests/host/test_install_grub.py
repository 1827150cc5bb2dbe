"""An image with GRUB brought onto a file system: what lies where, and in which order.

``grub-mkimage`` is a fake here, and the disk and its BIOS boot partition are files;
``test_grub_bios.py`` and the boot tests have the real ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.boot.space import NoSpaceOnBoot
from bootc.deploy.install.loader_grub import GrubAnyInstaller, GrubBiosInstaller, GrubUefiInstaller
from bootc.deploy.install.loader_installer import LoaderInstaller
from bootc.formats import grubembed
from bootc.formats.cmdline import MAX_BYTES
from bootc.formats.grubcfg import GrubCfgError
from bootc.formats.origin import BootRecord, parse_origin
from support import images, require
from support.commands import Commands
from support.grubmachine import ESP_UUID, MIB, ROOT_UUID, Machine, bench
from support.images import directory, file
from support.room import Volume, limited

pytestmark = pytest.mark.host

BOOT_IMAGE = bytes(range(254)) * 2 + b"\0\0" + b"\x55\xaa"
CORE = b"core" * 400
#: Do what grub-mkimage does in a chroot: write the file that --output names.
CHROOT = 'for _ in $(seq 400); do printf core; done >"$1/tmp/core.img"'
PROGRAM = b"MZ grub\0/EFI/debian\0".ljust(20 << 10, b"p")


def layer(*more: images.Member) -> bytes:
    return images.bootable(
        directory("etc"),
        directory("var"),
        directory("tmp", 0o1777),
        file("usr/lib/os-release", b'ID=demo\nVERSION_ID=1\nPRETTY_NAME="Demo 1"\n' + b"#" * 99),
        file("usr/lib/grub/i386-pc/boot.img", BOOT_IMAGE),
        file("usr/bin/grub-mkimage", b"a program", mode=0o755),
        file("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", PROGRAM),
        *more,
        kernel=b"kernel" * 100,
        initramfs=b"initramfs" * 100,
    )


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    require.root()
    Commands(tmp_path / "bin", monkeypatch).mock("chroot", CHROOT)
    with bench(tmp_path) as machine:
        yield machine


def test_a_bios_machine(machine: Machine, tmp_path: Path) -> None:
    image = machine.install(images.single(tmp_path / "l", layer()), GrubBiosInstaller(), 'a="b c"')
    boot = Path(machine.root.path, "boot")
    assert sorted(path.name for path in boot.iterdir()) == [
        f"bootc_composefs-{image}",
        "efi",
        "grub2",
        "loader",
    ]
    assert {path.name for path in (boot / "grub2").iterdir()} == {
        "grub.cfg",
        "grubenv",
        "bootc-last.cfg",
    }
    assert (boot / "grub2/grub.cfg").stat().st_mode & 0o7777 == 0o600
    assert (boot / "loader/entries/grub.cfg").read_text() == (
        f"set bootc_first='{image}'\n"
        f"menuentry 'Demo 1' --id 'bootc-{image}' {{\n"
        f"\tlinux '/boot/bootc_composefs-{image}/vmlinuz' 'root=UUID={ROOT_UUID}' 'rw' 'a=b c' "
        f"'composefs=?{image}'\n"
        f"\tinitrd '/boot/bootc_composefs-{image}/initrd'\n"
        "}\n"
    )
    origin = parse_origin(machine.root.read_bytes(f"state/deploy/{image}/{image}.origin"))
    assert origin.record == BootRecord("grub", "bios")
    core = grubembed.patch_core(CORE, 2048, 2048)
    assert machine.bios_boot.read_bytes()[: len(core)] == core
    expected = grubembed.patch_boot(BOOT_IMAGE, bytes(512), 2048)
    assert machine.disk.read_bytes()[:512] == expected
    assert machine.boots_without_sector_0 is False


def test_a_failure_before_the_entry_leaves_a_disk_that_boots_nothing(
    machine: Machine, tmp_path: Path
) -> None:
    """The arguments are too long only together with the one that GRUB adds."""
    fits = "x" * (MAX_BYTES - len(f"root=UUID={ROOT_UUID} rw  composefs=?{'0' * 128}"))
    layout = images.single(tmp_path / "l", layer())
    with pytest.raises(GrubCfgError, match="with GRUB's own"):
        machine.install(layout, GrubBiosInstaller(), fits)
    assert machine.disk.read_bytes() == bytes(MIB)
    assert not Path(machine.root.path, "boot/loader/entries").exists()


@pytest.mark.parametrize("loader", [GrubBiosInstaller(), GrubUefiInstaller(), GrubAnyInstaller()])
def test_a_partition_that_is_too_small_stays_as_it_is(
    machine: Machine, tmp_path: Path, loader: LoaderInstaller
) -> None:
    """The sum of kernel and programs counts, before any of them is written."""
    layout = images.single(tmp_path / "l", layer())
    boot = Path(machine.root.path, "boot")
    boot.mkdir()
    volume, what = (
        (Volume(Path(machine.esp.path)), "EFI/BOOT/BOOTX64.EFI 20.0 KiB")
        if loader.needs_esp
        else (Volume(boot), "vmlinuz 600 B, initrd 900 B")
    )
    with limited(volume):
        volume.leave(len(PROGRAM) // 512 - 1 if loader.needs_esp else 19)
        with pytest.raises(NoSpaceOnBoot, match=what) as caught:
            machine.install(layout, loader)
        assert caught.value.hint == "make room on the partition, or make it larger"
        if loader.needs_esp:
            # Of a new ESP the user can choose the size.
            with pytest.raises(NoSpaceOnBoot) as caught:
                machine.install(layout, loader, esp_is_new=True)
            assert "set esp-size in the table [install]" in (caught.value.hint or "")
    assert list(Path(volume.root).iterdir()) == []
    assert machine.disk.read_bytes() == machine.bios_boot.read_bytes() == bytes(MIB)


def test_a_disk_for_any_machine(machine: Machine, tmp_path: Path) -> None:
    image = machine.install(images.single(tmp_path / "l", layer()), GrubAnyInstaller())
    assert Path(machine.esp.path, "EFI/BOOT/BOOTX64.EFI").read_bytes() == PROGRAM
    core = grubembed.patch_core(CORE, 2048, 2048)
    assert machine.bios_boot.read_bytes()[: len(core)] == core
    assert machine.disk.read_bytes()[:512] == grubembed.patch_boot(BOOT_IMAGE, bytes(512), 2048)
    origin = parse_origin(machine.root.read_bytes(f"state/deploy/{image}/{image}.origin"))
    assert origin.record == BootRecord("grub", "uefi", ESP_UUID)


def test_a_disk_for_any_machine_from_an_image_for_a_bios(machine: Machine, tmp_path: Path) -> None:
    without = images.layer(file("usr/lib/grub/x86_64-efi-signed/.wh.grubx64.efi.signed"))
    removed = images.single(tmp_path / "l", layer(), without)
    machine.install(removed, GrubAnyInstaller())
    assert machine.notices == [
        "notice: UEFI does not start the disk: the image has no grub-efi-amd64-signed"
    ]
    assert list(Path(machine.esp.path).iterdir()) == []
    assert machine.disk.read_bytes()[:512] == grubembed.patch_boot(BOOT_IMAGE, bytes(512), 2048)


def test_a_uefi_machine(machine: Machine, tmp_path: Path) -> None:
    image = machine.install(images.single(tmp_path / "l", layer()), GrubUefiInstaller())
    esp = Path(machine.esp.path)
    assert {str(p.relative_to(esp)) for p in esp.rglob("*") if p.is_file()} == {
        "EFI/BOOT/BOOTX64.EFI",
        "EFI/debian/grub.cfg",
    }
    assert f"--set=root {ROOT_UUID}\n" in (esp / "EFI/debian/grub.cfg").read_text()
    assert Path(machine.root.path, "boot/loader/entries/grub.cfg").exists()
    origin = parse_origin(machine.root.read_bytes(f"state/deploy/{image}/{image}.origin"))
    assert origin.record == BootRecord("grub", "uefi", ESP_UUID)
    assert machine.disk.read_bytes() == bytes(MIB)
    assert machine.boots_without_sector_0 is True
