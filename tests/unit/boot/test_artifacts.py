from __future__ import annotations

import errno
import itertools
import os
from pathlib import Path

import pytest

from bootc.boot.artifacts import ArtifactKind, list_artifacts, remove_artifact
from bootc.boot.image_kernel import Kernel
from bootc.boot.kernels import publish_kernel
from bootc.boot.scheme import BootDirs
from bootc.formats.tree import Inline, Leaf, Stat
from bootc.fs.dir import Dir
from support.bootdirs import GRUB, GRUB_UKI, SYSTEMD_UKI, deployment, open_boot
from support.failing import dies
from support.objectdir import ObjectDirectory

A, B, C = (deployment(number) for number in (1, 2, 3))
KERNEL_A = f"EFI/Linux/bootc_composefs-{A}"


def kernel_of(objects: ObjectDirectory) -> Kernel:
    return Kernel("6.12", objects.leaf(b"kernel"), Leaf(Stat(), Inline(b"initramfs")))


def put(path: Path, size: int, mtime: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, ns=(mtime, mtime))


def test_artifacts_of_all_kinds(tmp_path: Path) -> None:
    esp = tmp_path / "esp/EFI/Linux"
    put(esp / f"bootc_composefs-{A}/vmlinuz", 10, 5)
    put(esp / f"bootc_composefs-{A}/.tmp-file-initrd", 7, 9)
    put(esp / f"{B}/vmlinuz", 1, 1)
    put(esp / f".tmp-file-bootc_composefs-{C}/vmlinuz", 5, 6)
    put(esp / f"bootc/bootc_composefs-{C}.efi", 100, 3)
    put(esp / f"bootc/bootc_composefs-{C}.efi.extra.d/x.addon.efi", 20, 2)
    put(esp / f"bootc/bootc_composefs-{A}.efi.extra.d/x.addon.efi", 4, 2)
    put(esp / f"bootc/{B}.efi", 2, 2)
    put(esp / "bootc/.tmp-file-x.efi", 3, 8)
    others = ("fedora.efi", "6.12/vmlinuz", "bootc/other.efi", "bootc_composefs-12/vmlinuz")
    for other in (*others, ".tmp-file-other/vmlinuz"):
        put(esp / other, 1, 1)
    with open_boot(tmp_path, SYSTEMD_UKI) as dirs:
        found = list_artifacts(dirs)
        assert [(a.name, a.kind, a.size_bytes, a.mtime_ns) for a in found] == [
            (f".tmp-file-bootc_composefs-{C}", ArtifactKind.KERNEL_LEFTOVER, 5, 6),
            (B.hex, ArtifactKind.KERNEL, 1, 1),
            (A.hex, ArtifactKind.KERNEL, 17, 9),
            (".tmp-file-x.efi", ArtifactKind.LEFTOVER, 3, 8),
            (B.hex, ArtifactKind.UKI, 2, 2),
            (f"bootc_composefs-{A}.efi.extra.d", ArtifactKind.LEFTOVER, 4, 2),
            (C.hex, ArtifactKind.UKI, 120, 3),
        ]
        for artifact in found:
            remove_artifact(dirs, artifact)
            remove_artifact(dirs, artifact)
        assert list_artifacts(dirs) == ()
    left = sorted(str(path.relative_to(esp)) for path in esp.rglob("*") if path.is_file())
    assert left == [
        ".tmp-file-other/vmlinuz",
        "6.12/vmlinuz",
        "bootc/other.efi",
        "bootc_composefs-12/vmlinuz",
        "fedora.efi",
    ]


def test_a_boot_counter_makes_no_other_artifact(tmp_path: Path) -> None:
    """systemd-stub finds the add-ons with the counter in the name, or without it."""
    ukis = tmp_path / "esp/EFI/Linux/bootc"
    put(ukis / f"bootc_composefs-{A}+2-1.efi", 10, 1)
    put(ukis / f"bootc_composefs-{A}.efi.extra.d/x.addon.efi", 5, 1)
    put(ukis / f"bootc_composefs-{B}+1.efi", 10, 1)
    put(ukis / f"bootc_composefs-{B}+1.efi.extra.d/x.addon.efi", 5, 1)
    with open_boot(tmp_path, SYSTEMD_UKI) as dirs:
        found = list_artifacts(dirs)
        assert [(a.name, a.kind, a.size_bytes) for a in found] == [
            (A.hex, ArtifactKind.UKI, 15),
            (B.hex, ArtifactKind.UKI, 15),
        ]
        for artifact in found:
            remove_artifact(dirs, artifact)
        assert list(ukis.iterdir()) == []


def test_a_cut_at_any_change_of_a_removal(dirs: BootDirs, objects: ObjectDirectory) -> None:
    """A kernel is there wholly or not, as far as its name tells; what is left of it goes, too."""
    for at in itertools.count(1):
        publish_kernel(dirs, A, kernel_of(objects), objects)
        (artifact,) = list_artifacts(dirs)
        cut = dies(at, lambda artifact=artifact: remove_artifact(dirs, artifact))  # type: ignore[misc]
        if dirs.menu.exists(KERNEL_A):
            with dirs.menu.open_dir(KERNEL_A) as directory:
                assert directory.names() == ["initrd", "vmlinuz"]
        for left in list_artifacts(dirs):
            remove_artifact(dirs, left)
        assert list_artifacts(dirs) == ()
        if not cut:
            break


def test_a_kernel_goes_also_where_there_is_no_room_for_another_name(
    dirs: BootDirs, objects: ObjectDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_kernel(dirs, A, kernel_of(objects), objects)

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Dir, "rename", full)
    (artifact,) = list_artifacts(dirs)
    remove_artifact(dirs, artifact)
    assert list_artifacts(dirs) == ()


def test_artifacts_of_grub(tmp_path: Path) -> None:
    put(tmp_path / f"boot/bootc_composefs-{A}/vmlinuz", 1, 1)
    put(tmp_path / f"esp/EFI/Linux/bootc/bootc_composefs-{B}.efi", 2, 2)
    put(tmp_path / f"boot/.tmp-file-bootc_composefs-{C}/initrd", 1, 1)
    put(tmp_path / "boot/grub2/grub.cfg", 1, 1)
    leftover = f".tmp-file-bootc_composefs-{C}"
    with open_boot(tmp_path, GRUB) as dirs:
        assert [a.name for a in list_artifacts(dirs)] == [leftover, A.hex]
    with open_boot(tmp_path, GRUB_UKI) as dirs:
        found = list_artifacts(dirs)
        assert [(a.name, a.kind) for a in found] == [
            (leftover, ArtifactKind.KERNEL_LEFTOVER),
            (A.hex, ArtifactKind.KERNEL),
            (B.hex, ArtifactKind.UKI),
        ]
        for artifact in found:
            remove_artifact(dirs, artifact)
        assert list_artifacts(dirs) == ()


def test_no_artifacts(dirs: BootDirs) -> None:
    assert list_artifacts(dirs) == ()
