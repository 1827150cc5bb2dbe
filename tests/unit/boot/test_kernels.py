from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from bootc.boot.image_content import DamagedKernel
from bootc.boot.image_kernel import Kernel
from bootc.boot.kernels import boot_digest_of, find_shared_kernel, publish_kernel
from bootc.boot.scheme import BootDirs, Scheme
from bootc.errors import one_line
from bootc.formats.tree import Inline, Leaf, Stat
from support.bootdirs import GRUB, SYSTEMD, deployment, open_boot
from support.failing import dies
from support.objectdir import ObjectDirectory

A, B, C = (deployment(number) for number in (1, 2, 3))
VMLINUZ = b"kernel " * 300_000
INITRD = b"initramfs"
BOOT_DIGEST = hashlib.sha256(VMLINUZ + INITRD).hexdigest()
KERNEL_A = f"EFI/Linux/bootc_composefs-{A}"


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
    assert find_shared_kernel(dirs, BOOT_DIGEST, candidates) == B.hex
    assert find_shared_kernel(dirs, BOOT_DIGEST, [C.hex, A.hex]) is None
    assert find_shared_kernel(dirs, "00" * 32, candidates) is None
