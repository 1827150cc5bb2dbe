from __future__ import annotations

import errno
import hashlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from bootc.boot import publish
from bootc.boot.content import DamagedKernel
from bootc.boot.discover import Kernel
from bootc.boot.publish import ArtifactKind, boot_digest_of, publish_kernel
from bootc.boot.scheme import BootDirs, Scheme
from bootc.errors import one_line
from bootc.formats.tree import Inline, Leaf, Stat
from bootc.fs.dir import Dir
from support.bootdirs import GRUB, GRUB_UKI, SYSTEMD, SYSTEMD_UKI, deployment, open_boot
from support.failing import dies
from support.objectdir import ObjectDirectory

A, B, C = (deployment(number) for number in (1, 2, 3))
VMLINUZ = b"kernel " * 300_000
INITRD = b"initramfs"
BOOT_DIGEST = hashlib.sha256(VMLINUZ + INITRD).hexdigest()
KERNEL_A = f"EFI/Linux/bootc_composefs-{A}"


@pytest.fixture
def objects(tmp_path: Path) -> ObjectDirectory:
    (tmp_path / "objects").mkdir()
    return ObjectDirectory(tmp_path / "objects")


@pytest.fixture
def dirs(tmp_path: Path) -> Iterator[BootDirs]:
    with open_boot(tmp_path, SYSTEMD) as dirs:
        yield dirs


def kernel_of(objects: ObjectDirectory) -> Kernel:
    return Kernel("6.12", objects.leaf(VMLINUZ), Leaf(Stat(), Inline(INITRD)))


def names(dirs: BootDirs, path: str = KERNEL_A) -> list[str]:
    with dirs.menu.open_dir(path) as directory:
        return directory.names()


@pytest.mark.parametrize(
    ("scheme", "directory"),
    [(SYSTEMD, "esp/EFI/Linux"), (GRUB, "boot")],
)
def test_the_kernel_is_copied_and_digested(
    tmp_path: Path, objects: ObjectDirectory, scheme: Scheme, directory: str
) -> None:
    kernel = kernel_of(objects)
    with open_boot(tmp_path, scheme) as dirs:
        assert publish_kernel(dirs, A, kernel, objects) == BOOT_DIGEST
    place = tmp_path / directory / f"bootc_composefs-{A}"
    assert {path.name: path.read_bytes() for path in place.iterdir()} == {
        "vmlinuz": VMLINUZ,
        "initrd": INITRD,
    }
    assert boot_digest_of(kernel, objects) == BOOT_DIGEST
    assert kernel.sizes == {"vmlinuz": len(VMLINUZ), "initrd": len(INITRD)}


def test_a_cut_at_any_change_of_publishing(dirs: BootDirs, objects: ObjectDirectory) -> None:
    kernel = kernel_of(objects)
    at = 1
    while dies(at, lambda: publish_kernel(dirs, A, kernel, objects)):
        # Upstream's program looks into every directory of a kernel, and fails at half of one.
        if dirs.menu.exists(KERNEL_A):
            assert dirs.menu.read_bytes(f"{KERNEL_A}/vmlinuz") == VMLINUZ
            assert dirs.menu.read_bytes(f"{KERNEL_A}/initrd") == INITRD
        publish_kernel(dirs, A, kernel, objects)
        assert names(dirs) == ["initrd", "vmlinuz"]
        dirs.menu.remove_tree(KERNEL_A)
        at += 1
    assert at > 6


def test_publishing_again_replaces_what_a_cut_left(
    dirs: BootDirs, objects: ObjectDirectory
) -> None:
    with dirs.menu.ensure_dir(KERNEL_A) as directory:
        for name in ("vmlinuz", ".tmp-file-vmlinuz"):
            os.close(directory.open_file(name, os.O_WRONLY | os.O_CREAT))
    publish_kernel(dirs, A, kernel_of(objects), objects)
    assert dirs.menu.read_bytes(f"{KERNEL_A}/vmlinuz") == VMLINUZ
    assert names(dirs) == ["initrd", "vmlinuz"]


@pytest.mark.parametrize("stored", [b"", VMLINUZ[:-1], VMLINUZ[:-1] + b"!"])
def test_a_damaged_kernel_is_refused(
    dirs: BootDirs, objects: ObjectDirectory, stored: bytes
) -> None:
    kernel = kernel_of(objects)
    objects.damage(kernel.vmlinuz, stored)
    with pytest.raises(DamagedKernel, match="vmlinuz in the repository is not the one"):
        publish_kernel(dirs, A, kernel, objects)
    with dirs.menu.open_dir("EFI/Linux") as directory:
        assert directory.names() == []
    with pytest.raises(DamagedKernel):
        boot_digest_of(kernel, objects)


def test_a_missing_object_says_what_was_being_done(
    dirs: BootDirs, objects: ObjectDirectory
) -> None:
    kernel = kernel_of(objects)
    objects.lose(kernel.vmlinuz)
    with pytest.raises(FileNotFoundError) as caught:
        publish_kernel(dirs, A, kernel, objects)
    assert one_line(caught.value).startswith(f"Writing the kernel to {dirs.menu.path}/{KERNEL_A}: ")


def test_a_kernel_that_is_there_is_found(dirs: BootDirs, objects: ObjectDirectory) -> None:
    publish_kernel(dirs, B, kernel_of(objects), objects)
    half = dirs.menu.ensure_dir(KERNEL_A)
    with half, open(half.open_file("vmlinuz", os.O_WRONLY | os.O_CREAT), "wb") as file:
        file.write(VMLINUZ)
    with dirs.menu.ensure_dir(f"EFI/Linux/{C}"):
        pass
    candidates = [C.hex, A.hex, B.hex]
    assert publish.find_shared_kernel(dirs, BOOT_DIGEST, candidates) == B.hex
    assert publish.find_shared_kernel(dirs, BOOT_DIGEST, [C.hex, A.hex]) is None
    assert publish.find_shared_kernel(dirs, "00" * 32, candidates) is None


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
        found = publish.list_artifacts(dirs)
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
            publish.remove_artifact(dirs, artifact)
            publish.remove_artifact(dirs, artifact)
        assert publish.list_artifacts(dirs) == ()
    left = sorted(str(path.relative_to(esp)) for path in esp.rglob("*") if path.is_file())
    assert left == [
        ".tmp-file-other/vmlinuz",
        "6.12/vmlinuz",
        "bootc/other.efi",
        "bootc_composefs-12/vmlinuz",
        "fedora.efi",
    ]


def test_a_cut_at_any_change_of_a_removal(dirs: BootDirs, objects: ObjectDirectory) -> None:
    """A kernel is there wholly or not, as far as its name tells; what is left of it goes, too."""
    for at in itertools.count(1):
        publish_kernel(dirs, A, kernel_of(objects), objects)
        (artifact,) = publish.list_artifacts(dirs)
        cut = dies(at, lambda artifact=artifact: publish.remove_artifact(dirs, artifact))  # type: ignore[misc]
        if dirs.menu.exists(KERNEL_A):
            assert names(dirs) == ["initrd", "vmlinuz"]
        for left in publish.list_artifacts(dirs):
            publish.remove_artifact(dirs, left)
        assert publish.list_artifacts(dirs) == ()
        if not cut:
            break


def test_a_kernel_goes_also_where_there_is_no_room_for_another_name(
    dirs: BootDirs, objects: ObjectDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_kernel(dirs, A, kernel_of(objects), objects)

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Dir, "rename", full)
    (artifact,) = publish.list_artifacts(dirs)
    publish.remove_artifact(dirs, artifact)
    assert publish.list_artifacts(dirs) == ()


def test_artifacts_of_grub(tmp_path: Path) -> None:
    put(tmp_path / f"boot/bootc_composefs-{A}/vmlinuz", 1, 1)
    put(tmp_path / f"esp/EFI/Linux/bootc/bootc_composefs-{B}.efi", 2, 2)
    put(tmp_path / f"boot/.tmp-file-bootc_composefs-{C}/initrd", 1, 1)
    put(tmp_path / "boot/grub2/grub.cfg", 1, 1)
    leftover = f".tmp-file-bootc_composefs-{C}"
    with open_boot(tmp_path, GRUB) as dirs:
        assert [a.name for a in publish.list_artifacts(dirs)] == [leftover, A.hex]
    with open_boot(tmp_path, GRUB_UKI) as dirs:
        found = publish.list_artifacts(dirs)
        assert [(a.name, a.kind) for a in found] == [
            (leftover, ArtifactKind.KERNEL_LEFTOVER),
            (A.hex, ArtifactKind.KERNEL),
            (B.hex, ArtifactKind.UKI),
        ]
        for artifact in found:
            publish.remove_artifact(dirs, artifact)
        assert publish.list_artifacts(dirs) == ()


def test_no_artifacts(dirs: BootDirs) -> None:
    assert publish.list_artifacts(dirs) == ()


def test_free_space(dirs: BootDirs) -> None:
    free, cluster = publish.free_space(dirs.binaries)
    assert free > cluster > 0
    assert free % cluster == 0


def test_what_is_reserved(dirs: BootDirs, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = SimpleNamespace(f_bavail=0, f_bfree=7, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda fd: volume)
    assert publish.free_space(dirs.binaries) == (0, 4096)
    assert publish.free_space(dirs.binaries, reserved=True) == (7 * 4096, 4096)
