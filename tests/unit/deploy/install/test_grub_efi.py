from __future__ import annotations

from pathlib import Path

import pytest

from bootc.deploy.install import grub_efi
from bootc.formats.tree import Directory, Inline, Leaf, Stat
from bootc.fs.dir import Dir

GRUB = b"MZ grub\0/EFI/debian\0"
SIGNED = "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
UNSIGNED = "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi"
SHIM = {
    "usr/lib/shim/shimx64.efi.signed": b"shim",
    "usr/lib/shim/mmx64.efi.signed": b"manager",
    "usr/lib/shim/fbx64.efi.signed": b"fallback",
    "usr/lib/shim/BOOTX64.CSV": b"list",
}
STUB_PATH = "EFI/debian/grub.cfg"
STUB = b"search --no-floppy --fs-uuid --set=root 1234\n"


def tree_of(files: dict[str, bytes]) -> Directory:
    """Return the tree of an image with these files."""
    root = Directory(Stat(0o755))
    for path, data in files.items():
        *parents, name = path.encode().split(b"/")
        directory = root
        for parent in parents:
            node = directory.entries.setdefault(parent, Directory(Stat(0o755)))
            assert isinstance(node, Directory)
            directory = node
        directory.entries[name] = Leaf(Stat(0o644), Inline(data))
    return root


def written(
    tmp_path: Path, image: dict[str, bytes], *, generic: bool
) -> tuple[str, dict[str, bytes]]:
    """Return the program to start, and the files; check that the plan had their sizes."""
    for name, data in image.items():
        path = tmp_path / "image" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "esp").mkdir()
    with Dir.open(tmp_path / "image") as root, Dir.open(tmp_path / "esp") as esp:
        started = grub_efi.write_programs(root, esp, "x86_64", "1234", generic=generic)
    top = tmp_path / "esp"
    found = {str(p.relative_to(top)): p.read_bytes() for p in top.rglob("*") if p.is_file()}
    planned = grub_efi.sizes(tree_of(image), "x86_64", generic=generic)
    names = {name.replace("<distribution>", "debian"): size for name, size in planned.items()}
    assert names == {name: len(data) for name, data in found.items() if name != STUB_PATH}
    stub = found.pop(STUB_PATH)
    assert stub.startswith(STUB)
    return started, found


def test_shim_starts_grub(tmp_path: Path) -> None:
    started, found = written(tmp_path, {SIGNED: GRUB, UNSIGNED: b"", **SHIM}, generic=False)
    assert started == "EFI/debian/shimx64.efi"
    assert found == {
        "EFI/BOOT/BOOTX64.EFI": b"shim",
        "EFI/BOOT/grubx64.efi": GRUB,
        "EFI/BOOT/mmx64.efi": b"manager",
        "EFI/debian/shimx64.efi": b"shim",
        "EFI/debian/grubx64.efi": GRUB,
        "EFI/debian/mmx64.efi": b"manager",
        "EFI/debian/BOOTX64.CSV": b"list",
    }


def test_a_disk_for_any_machine_has_one_place(tmp_path: Path) -> None:
    started, found = written(tmp_path, {SIGNED: GRUB, **SHIM}, generic=True)
    assert started == "EFI/BOOT/BOOTX64.EFI"
    assert {Path(name).parent.name for name in found} == {"BOOT"}


@pytest.mark.parametrize("generic", [False, True])
def test_without_shim_the_firmware_starts_grub(tmp_path: Path, generic: bool) -> None:
    started, found = written(tmp_path, {UNSIGNED: GRUB}, generic=generic)
    expected = {"EFI/BOOT/BOOTX64.EFI": GRUB}
    if not generic:
        expected["EFI/debian/grubx64.efi"] = GRUB
    assert found == expected
    assert started == ("EFI/BOOT/BOOTX64.EFI" if generic else "EFI/debian/grubx64.efi")
