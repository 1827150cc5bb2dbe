"""An image with a unified kernel image brought onto real file systems."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from bootc.boot.loader import Bootloader
from bootc.boot.scheme import BootDirs, Scheme
from bootc.boot.space import NoSpaceOnBoot
from bootc.boot.uki import check_installed_uki
from bootc.boot.uki_parts import CannotTakeApart
from bootc.deploy.install.boot_choice import UkiRefused
from bootc.deploy.install.loader_none import NoLoaderInstaller
from bootc.errors import Error, one_line
from bootc.formats.digest import Digest
from bootc.formats.origin import BootType, TakesApart, UkiRecord, parse_origin
from support import images
from support.commands import Commands
from support.mountedtarget import (
    BOOTCTL,
    INITRAMFS,
    KERNEL,
    MIB,
    ROOT_UUID,
    Target,
    members,
)
from support.unified import ADDON, KVER, unified

pytestmark = pytest.mark.host

#: The loader says its version where bootctl puts it.
WITH_LOADER = """
mkdir -p "$3/boot/EFI/systemd" "$3/boot/loader"
printf '#### LoaderInfo: systemd-boot %s ####' '{}' >"$3/boot/EFI/systemd/systemd-bootx64.efi"
"""


def sealed(path: Path, **options: Any) -> images.Layout:
    return unified(path, members(), KERNEL, INITRAMFS, **options)


def refusal(
    target: Target, layout: images.Layout, *kargs: str, addons: tuple[str, ...] = ()
) -> str:
    """Return the line an installation ends with before anything that boots is written."""
    with pytest.raises(Error) as caught:
        target.install(layout, *kargs, addons=addons)
    assert os.listdir(target.esp.path) == []
    assert target.bootctl.calls == []
    assert "\n" not in one_line(caught.value)
    return caught.value.message


def test_a_unified_kernel_image_boots(target: Target, tmp_path: Path) -> None:
    image = target.install(sealed(tmp_path)).image_id.hex

    esp = Path(target.esp.path)
    assert sorted(os.listdir(esp / "EFI/Linux")) == ["bootc"]
    assert os.listdir(esp / "EFI/Linux/bootc") == [f"bootc_composefs-{image}.efi"]
    (entry,) = target.entries()
    assert entry.name == "bootc_sealed_os-7-1.conf"
    assert entry.read_text() == (
        "title Sealed OS 7 7\n"
        "version 7\n"
        f"efi /EFI/Linux/bootc/bootc_composefs-{image}.efi\n"
        "sort-key bootc-sealed-os-0\n"
    )
    assert (esp / "loader/loader.conf").read_bytes() == b"timeout 5"
    origin = parse_origin(target.root.read_bytes(f"state/deploy/{image}/{image}.origin"))
    assert origin.boot_type is BootType.UKI
    assert origin.boot_digest == hashlib.sha256(KERNEL + INITRAMFS).hexdigest()
    state = Path(target.root.path, "state/deploy", image)
    assert (state / "etc/hostname").read_bytes() == b"pristine\n"


def test_a_unified_kernel_image_of_two_digests(target: Target, tmp_path: Path) -> None:
    layout = sealed(tmp_path, arguments="composefs.digest=?v1-sha512-12:{1} composefs=?{2}")
    image = target.install(layout).image_id.hex
    file = f"EFI/Linux/bootc/bootc_composefs-{image}.efi"
    assert os.listdir(Path(target.esp.path, file).parent) == [os.path.basename(file)]
    dirs = BootDirs(Scheme(Bootloader.SYSTEMD, BootType.UKI), menu=target.esp, binaries=target.esp)
    first, second = check_installed_uki(dirs, Digest.from_hex(image), f"/{file}").images.hexes
    assert first == image
    # The initramfs finds either.
    assert set(os.listdir(Path(target.root.path, "composefs/images"))) >= {first, second}
    assert os.listdir(Path(target.root.path, "state/deploy")) == [image]


def test_a_unified_kernel_image_with_a_digest_too_many(target: Target, tmp_path: Path) -> None:
    layout = sealed(tmp_path, arguments="composefs=?{1} composefs=?" + "ab" * 64)
    assert refusal(target, layout) == (
        f"The UKI has the wrong parameter composefs=?{'ab' * 64}: "
        "no image of its container has this digest"
    )


@pytest.mark.parametrize(
    ("version", "key"), [("257.9-1~deb13u1", "efi"), ("258~rc2", "uki"), ("262.1-1", "uki")]
)
def test_the_entry_is_for_the_loader_that_was_installed(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, key: str
) -> None:
    Commands(tmp_path / "bin", monkeypatch).mock("bootctl", BOOTCTL + WITH_LOADER.format(version))
    target.install(sealed(tmp_path))
    (entry,) = target.entries()
    assert entry.read_text().splitlines()[2].split()[0] == key


def test_the_configuration_of_the_boot_loader_stays(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured = BOOTCTL + 'mkdir "$3/boot/loader"; echo "#timeout 3" >"$3/boot/loader/loader.conf"'
    Commands(tmp_path / "bin", monkeypatch).mock("bootctl", configured)
    target.install(sealed(tmp_path))
    assert target.esp.read_bytes("loader/loader.conf") == b"#timeout 3\n"


def test_the_addons_that_were_asked_for(target: Target, tmp_path: Path) -> None:
    image = target.install(sealed(tmp_path), addons=("debug",)).image_id.hex
    extra = Path(target.esp.path, f"EFI/Linux/bootc/bootc_composefs-{image}.efi.extra.d")
    assert os.listdir(extra) == ["debug.addon.efi"]
    assert (extra / "debug.addon.efi").read_bytes() == ADDON


def test_an_addon_that_is_not_there(target: Target, tmp_path: Path, layout: images.Layout) -> None:
    line = refusal(target, sealed(tmp_path), addons=("debug", "none"))
    assert line == "the image has no UKI add-on none"
    line = refusal(target, layout, addons=("debug",))
    assert line == "the image has no unified kernel image to add debug to"


def test_arguments_beside_a_unified_kernel_image_are_refused(
    target: Target, tmp_path: Path
) -> None:
    assert refusal(target, sealed(tmp_path), "quiet") == (
        "Cannot use externally specified kernel arguments with UKI: quiet"
    )


@pytest.mark.parametrize("optional", [True, False])
def test_a_unified_kernel_image_in_parts(target: Target, tmp_path: Path, optional: bool) -> None:
    layout = sealed(tmp_path, optional=optional)
    if not optional:
        with pytest.raises(CannotTakeApart, match="is sealed"):
            target.install(layout, boot_type=BootType.BLS)
    image = target.install(
        layout,
        "console=ttyS0",
        addons=("debug",),
        boot_type=BootType.BLS,
        disable_sealing=not optional,
    ).image_id.hex

    esp = Path(target.esp.path)
    assert os.listdir(esp / "EFI/Linux") == [f"bootc_composefs-{image}"]
    assert {
        p.name: p.read_bytes() for p in (esp / "EFI/Linux" / f"bootc_composefs-{image}").iterdir()
    } == {
        "vmlinuz": KERNEL,
        "initrd": INITRAMFS,
    }
    (entry,) = target.entries()
    assert entry.read_text() == (
        "title Sealed OS 7\n"
        "version 7\n"
        f"linux /EFI/Linux/bootc_composefs-{image}/vmlinuz\n"
        f"initrd /EFI/Linux/bootc_composefs-{image}/initrd\n"
        f"options root=UUID={ROOT_UUID} rw console=ttyS0 composefs=?{image} quiet\n"
        "sort-key bootc-sealed-os-0\n"
    )
    origin = parse_origin(target.root.read_bytes(f"state/deploy/{image}/{image}.origin"))
    assert origin.boot_type is BootType.BLS
    assert origin.boot_digest == hashlib.sha256(KERNEL + INITRAMFS).hexdigest()
    which = TakesApart.UNSEALED if optional else TakesApart.ALL
    assert origin.uki == UkiRecord(which, ("debug.addon.efi",), "rw quiet")


def test_a_bare_kernel_and_a_boot_type(
    target: Target, tmp_path: Path, layout: images.Layout
) -> None:
    with pytest.raises(UkiRefused, match="the image has no unified kernel image"):
        target.install(layout, boot_type=BootType.UKI)
    image = target.install(layout, boot_type=BootType.BLS).image_id.hex
    origin = parse_origin(target.root.read_bytes(f"state/deploy/{image}/{image}.origin"))
    assert origin.uki == UkiRecord(TakesApart.UNSEALED)


def test_a_seal_is_not_weakened(target: Target, tmp_path: Path) -> None:
    assert refusal(target, sealed(tmp_path, optional=False)) == (
        "--allow-missing-verity is of no use: the image's UKI demands fs-verity at each boot"
    )


def test_a_unified_kernel_image_of_another_image(target: Target, tmp_path: Path) -> None:
    line = refusal(target, sealed(tmp_path, image_id="ab" * 64))
    assert "The UKI has the wrong composefs= parameter (is 'abab" in line


def test_a_unified_kernel_image_that_does_not_fit(target: Target, tmp_path: Path) -> None:
    ballast = Path(target.esp.path, "ballast")
    ballast.write_bytes(bytes(8 * MIB - 40960))
    with pytest.raises(NoSpaceOnBoot, match=rf"boot/EFI/Linux/{KVER}.efi [\d.]+ KiB"):
        target.install(sealed(tmp_path))
    assert target.entries() == []
    assert not target.esp.exists("EFI")


def test_a_copy_that_does_not_fit_is_refused_before_the_old_loader_is_removed(
    target: Target, tmp_path: Path
) -> None:
    """Without a boot loader there is a copy in EFI/BOOT. The ESP has room for one of the two."""
    cleared: list[str] = []
    layout = unified(tmp_path, members(), os.urandom(5 * MIB), INITRAMFS)
    with pytest.raises(NoSpaceOnBoot, match=r"the copy of .* in EFI/BOOT"):
        target.install(
            layout, loader=NoLoaderInstaller(), clear_boot=lambda: cleared.append("cleared")
        )
    assert cleared == []
    assert os.listdir(target.esp.path) == []
