from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from bootc.deploy.install import grub_bootupd
from bootc.deploy.install.loader_installer import BootTarget, NewDeployment
from bootc.formats.tree import Directory, Inline, Leaf, Stat
from bootc.fs.dir import Dir
from support import bootupd

DISK = "/dev/vda"


def test_the_arguments_are_those_of_upstream(tmp_path: Path) -> None:
    for generic, skip, new, is_file, debug in itertools.product((False, True), repeat=5):
        with Dir.open(tmp_path) as root:
            target = BootTarget(DISK, root, "", root, "", disk_is_file=is_file)
            deployment = NewDeployment(None, None, root, None, generic, skip)  # type: ignore[arg-type]
            help_text = bootupd.HELP if new else bootupd.OLD_HELP
            found = grub_bootupd.arguments(help_text.encode(), deployment, target, debug=debug)
        # The kernel knows no partitions of a file, so no way leads from a file system to the disk.
        by_file_system = new and not is_file
        assert found == (
            *("backend", "install", "--with-static-configs" if skip else "--write-uuid"),
            *(("-vvvv",) if debug else ()),
            *(() if generic else ("--update-firmware", "--auto")),
            *(("--filesystem", "/sysroot") if by_file_system else ("--device", DISK)),
            "/",
        )


@pytest.mark.parametrize(
    ("paths", "is_there"),
    [
        ((bootupd.PROGRAM, bootupd.UPDATES), True),
        ((bootupd.PROGRAM, f"{bootupd.UPDATES}/BIOS.json"), True),
        (("usr/sbin/bootupctl", bootupd.UPDATES), True),
        ((bootupd.PROGRAM,), False),
        ((bootupd.UPDATES, f"{bootupd.UPDATES}/EFI.json"), False),
        (("usr/libexec/bootupd", bootupd.UPDATES), False),
    ],
)
def test_an_image_with_bootupd(paths: tuple[str, ...], is_there: bool) -> None:
    assert grub_bootupd.is_there(paths.__contains__) is is_there


def tree(**files: int) -> Directory:
    """Return a tree of files with these sizes; ``__`` stands for a slash."""
    top = Directory()
    for key, size in files.items():
        *parents, name = key.replace("__", "/").replace("_dot_", ".").encode().split(b"/")
        directory = top
        for parent in parents:
            below = directory.entries.setdefault(parent, Directory())
            assert isinstance(below, Directory)
            directory = below
        directory.entries[name] = Leaf(Stat(), Inline(b"x" * size))
    return top


def test_the_programs_count_in_the_layouts_of_all_versions() -> None:
    old = tree(
        usr__lib__bootupd__updates__EFI__fedora__grubx64_dot_efi=3,
        usr__lib__bootupd__updates__EFI_dot_json=9,
        usr__lib__bootupd__updates__BIOS_dot_json=9,
    )
    assert grub_bootupd.sizes(old) == {"EFI/fedora/grubx64.efi": 3}
    new = tree(
        usr__lib__efi__grub2__2_dot_12__EFI__fedora__grubx64_dot_efi=3,
        usr__lib__efi__shim__15_dot_8__EFI__BOOT__BOOTX64_dot_EFI=4,
        usr__lib__efi__README=9,
    )
    assert grub_bootupd.sizes(new) == {"EFI/fedora/grubx64.efi": 3, "EFI/BOOT/BOOTX64.EFI": 4}
    assert grub_bootupd.sizes(tree(usr__lib__efi=9)) == {}
