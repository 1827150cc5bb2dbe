"""``bootc install to-disk --bootloader ukiboot``: the partitions, and every byte in them.

The loader is Debian's. The ESP is ext4 on a kernel without vfat.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bootc.deploy.install.interrupted import disk_boots
from bootc.deploy.install.partition import is_unfinished, read_table
from bootc.deploy.install.target_disk import check_may_be_written, inspect_file
from bootc.formats import cmdline, dps
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import BootRecord, BootType, parse_origin
from bootc.formats.ukiboot import ControlBlock, Slot
from bootc.fs import loopback, mounts
from bootc.oci.source import open_source
from bootc.oci.trees import image_id_of, image_tree
from support import images, installer, pe, require, ukiboottree
from support.images import directory, file

pytestmark = pytest.mark.host

MIB = 1 << 20
SLOT = "df331e4d-be00-463f-b4a7-8b43e18fb53a"
CONTROL = "fefd9070-346f-4c9a-85e6-17f07f922773"
OPTIONS = ("--filesystem", "ext4", "--allow-missing-verity", "--target-imgref", "example.com/os:1")


def base(*more: images.Member) -> bytes:
    return images.bootable(
        *(directory(name) for name in ("etc", "var", "tmp")),
        file("etc/hostname", b"pristine\n"),
        file("usr/lib/os-release", b"ID=demo\nVERSION_ID=1\n"),
        *more,
        kernel=b"kernel" * 1000,
        initramfs=b"initramfs" * 1000,
    )


def sealed(path: Path, *more: images.Member, kernel: bytes = b"kernel") -> tuple[str, bytes, str]:
    """Return the reference of an image, its unified kernel image, and the image id."""
    lower = base(*more)
    bare = images.single(path / "bare", lower)
    with open_source(ImageReference.parse(bare.reference())) as source:
        image_id = image_id_of(image_tree(source).root, version=1).hex
    uki = pe.program(
        (b".osrel", b"ID=demo\nVERSION_ID=1\nPRETTY_NAME=Demo\n"),
        (b".cmdline", f"rw {cmdline.composefs_karg(image_id, optional=True)}".encode()),
        (b".linux", kernel),
        (b".initrd", b"initramfs"),
    )
    upper = images.layer(
        *(directory(d) for d in ("boot/EFI", "boot/EFI/Linux")), file("boot/EFI/Linux/os.efi", uki)
    )
    return images.single(path / "unified", lower, upper).reference(), uki, image_id


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    require.root()
    require.tool("sfdisk")
    path = tmp_path / "disk.img"
    with open(path, "wb") as image:
        image.truncate(2048 * MIB)
    return path


def install(reference: str, disk: Path, *options: str) -> tuple[int, str]:
    """Install, and return the exit status and the last line."""
    arguments = ("--source-imgref", reference, *OPTIONS, "--bootloader", "ukiboot", *options)
    done = installer.run("to-disk", *arguments, "--via-loopback", disk)
    said = done.stderr if done.returncode else done.stdout
    return done.returncode, said.strip().splitlines()[-1]


def test_the_installed_disk(tmp_path: Path, disk: Path) -> None:
    reference, uki, image_id = sealed(tmp_path, *ukiboottree.members())
    assert install(reference, disk) == (0, "Installation complete!")
    table = read_table(str(disk))
    assert not is_unfinished(table)
    assert [(row.name, row.type, row.size_bytes // MIB) for row in table] == [
        ("BIOS-BOOT", dps.BIOS_BOOT, 1),
        ("EFI-SYSTEM", dps.ESP, 100),
        ("ukiboot_a", SLOT, 192),
        ("ukiboot_b", SLOT, 192),
        ("ukibootctl", CONTROL, 1),
        ("root", dps.root_type("x86_64"), table[-1].size_bytes // MIB),
    ]
    parts = {row.name: row for row in table}

    def start_of(name: str, size: int) -> bytes:
        with open(disk, "rb") as image:
            image.seek(512 * parts[name].first_sector)
            return image.read(size)

    assert start_of("ukiboot_a", len(uki)) == uki
    assert start_of("ukiboot_b", 4096) == bytes(4096)
    # Slot A has seven tries.
    assert start_of("ukibootctl", 20) == bytes.fromhex("08e1ab54 0f070000 00000000") + bytes(8)

    def inside(name: str, look: Callable[[Path], None]) -> None:
        row, fstype = parts[name], installer.esp_filesystem() if name != "root" else "ext4"
        place = {"offset": 512 * row.first_sector, "size_bytes": row.size_bytes}
        with (
            loopback.attached(str(disk), **place) as node,
            mounts.mounted(node, fstype, read_only=True) as root,
        ):
            look(Path(root.path))

    def esp(root: Path) -> None:
        found = {
            str(path.relative_to(root)): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file()
        }
        tree = ukiboottree.TREE / ukiboottree.PROGRAMS
        assert found == {
            "EFI/BOOT/BOOTX64.EFI": (tree / "ukibootx64.efi").read_bytes(),
            **{
                f"EFI/BOOT/ukiboot_{s}.efi.extra.d/slot_{s}.addon.efi": (
                    tree / f"slot_{s}.addon.efi"
                ).read_bytes()
                for s in "ab"
            },
        }

    def root(root: Path) -> None:
        state = root / "state/deploy" / image_id
        origin = parse_origin((state / f"{image_id}.origin").read_bytes())
        assert origin.boot_type is BootType.ABOOT
        assert origin.record == BootRecord("ukiboot", "uefi", parts["EFI-SYSTEM"].uuid)
        # The first boot records what it sees.
        assert not (root / "state/boot").exists()
        assert not (state / "aboot").exists()

    inside("EFI-SYSTEM", esp)
    inside("root", root)
    # A kill after the commit leaves a disk that boots, and before it one that does not.
    assert disk_boots(str(disk), table, "x86_64")
    with open(disk, "r+b") as image:
        image.seek(512 * parts["ukibootctl"].first_sector)
        image.write(ControlBlock(Slot(), Slot()).to_bytes())
    assert not disk_boots(str(disk), table, "x86_64")


def test_an_image_without_ukiboot_is_refused(tmp_path: Path, disk: Path) -> None:
    reference, _, _ = sealed(tmp_path)
    status, line = install(reference, disk)
    assert status == 1
    assert "has no /usr/libexec/ukiboot/efi/ukibootx64.efi" in line
    with open(disk, "rb") as image:
        assert image.read(MIB) == bytes(MIB)


def test_an_image_without_a_unified_kernel_image_is_refused(tmp_path: Path, disk: Path) -> None:
    layout = images.single(tmp_path / "bare", base(*ukiboottree.members()))
    status, line = install(layout.reference(), disk)
    assert status == 1
    assert "ukiboot starts only unified kernel images" in line
    # The next installation takes the disk for a blank one.
    assert not check_may_be_written(inspect_file(str(disk)), wipe=False, machine="x86_64")


def test_mounted_file_systems_have_no_partitions_for_it(tmp_path: Path) -> None:
    require.root()
    reference, _, _ = sealed(tmp_path, *ukiboottree.members())
    arguments = ("--source-imgref", reference, "--bootloader", "ukiboot", tmp_path)
    done = installer.run("to-filesystem", *arguments)
    assert done.returncode == 1
    assert "to-filesystem makes none" in done.stderr
