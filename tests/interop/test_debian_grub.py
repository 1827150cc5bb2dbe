"""Debian's GRUB takes what bootc writes, and bootc reads what Debian built: stable and unstable."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.boot import grub
from bootc.boot.loader import Bootloader, named_loader
from bootc.deploy.install import grub_efi
from bootc.formats import grubcfg, grubmenu
from bootc.formats.bls import Entry
from bootc.formats.digest import Digest
from bootc.formats.grubefi import configuration_directory
from bootc.fs.dir import Dir
from support import grubtree
from support.grubtree import GrubTree

SIGNED = "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
#: What the kernel must get unchanged, though GRUB's language gives most of it a meaning.
ODD = 'rw q=?x q=i$j {} ; # a|b & $(x) ${y} demo="a b" "whole=c  d" é composefs=?00'
UUID = "12345678-1234-4123-8123-123456789abc"

pytestmark = pytest.mark.parametrize("tree", grubtree.TREES, ids=lambda tree: tree.suite)


def scripts() -> Iterator[tuple[str, bytes]]:
    """Return all that bootc writes for GRUB, by a name."""
    yield "static", grub.static_config(["console=ttyS0"])
    yield "early", grub.early_config("1234", separate_boot=False)
    yield "stub", grub.stub("1234")
    yield "efiuuid", grub.esp_uuid_config("1234-5678")
    entry = Entry(title="It's \\ $x {", linux="/k/vmlinuz", initrd=("/k/a", "/k/b"), options=ODD)
    yield "menu", grubmenu.serialise("00", [grubmenu.MenuItem("bootc-00", entry)])
    uki = grubcfg.uki_entry('It\'s "$x" {}', Digest.from_hex("00" * 64), "/EFI/Linux/a.efi")
    yield "user", grubcfg.serialise_menu([uki])


def test_scripts(tree: GrubTree, tmp_path: Path) -> None:
    for name, text in scripts():
        path = tmp_path / name
        path.write_bytes(text)
        tree.check_script(path)


@pytest.mark.parametrize("path", [SIGNED, "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi"])
def test_the_directory_of_its_programs(tree: GrubTree, path: str) -> None:
    assert configuration_directory((tree.find() / path).read_bytes()) == "EFI/debian"


def test_the_programs_on_the_esp(tree: GrubTree, tmp_path: Path) -> None:
    with Dir.open(tree.find()) as image, Dir.open(tmp_path) as esp:
        started = grub_efi.write_programs(image, esp, "x86_64", UUID, generic=False)
    assert started == "EFI/debian/shimx64.efi"
    beside = {"grubx64.efi", "mmx64.efi"}
    assert {path.name for path in (tmp_path / "EFI/BOOT").iterdir()} == {*beside, "BOOTX64.EFI"}
    assert {path.name for path in (tmp_path / "EFI/debian").iterdir()} == {
        *beside,
        "shimx64.efi",
        "BOOTX64.CSV",
        "grub.cfg",
    }


def test_what_it_leaves_in_the_variables_of_the_firmware(tree: GrubTree) -> None:
    """GRUB 2.14 names itself and its partition, which 2.12 does not."""
    program = (tree.find() / SIGNED).read_bytes()
    for name in (b"LoaderInfo", b"LoaderDevicePartUUID"):
        assert (name in program) is tree.has_bli
    names = re.findall(rb"GRUB \d[\w.+~-]*(?=\0)", program)
    assert [named_loader(name.decode().encode("utf-16-le")) for name in names] == (
        [Bootloader.GRUB] if tree.has_bli else []
    )
    assert tree.version.encode() in program


def test_it_reads_no_boot_entries(tree: GrubTree) -> None:
    """The command is in no signed program, so bootc generates the menu, also for GRUB 2.14.

    Where an unsigned GRUB 2.14 finds the module, the generated menu still comes first.
    """
    assert b"blscfg" not in (tree.find() / SIGNED).read_bytes()
    for platform in ("i386-pc", "x86_64-efi"):
        module = tree.find() / f"usr/lib/grub/{platform}/blsuki.mod"
        assert module.exists() is (tree is grubtree.SID)
    static = grub.static_config([])
    assert static.index(b"source $bootc_menu/grub.cfg") < static.index(b"insmod blsuki")
