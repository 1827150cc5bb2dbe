from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootc.boot.unpacked_kernel import RootKernel, SeveralKernels, find_kernel, find_kernel_version
from bootc.errors import one_line
from bootc.fs.imageroot import ImageRoot
from support.roots import Root


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "root")


def find(root: Root) -> RootKernel | None:
    with ImageRoot.open(os.fspath(root.path)) as image:
        return find_kernel(image)


def test_none(root: Root) -> None:
    assert find(root) is None
    root.directory("usr/lib/modules/6.1", "boot/EFI/Linux").file("usr/lib/modules/vmlinuz")
    root.file("boot/EFI/Linux/.efi").file("boot/EFI/Linux/README")
    root.link("usr/lib/modules/6.1/vmlinuz", "nowhere")
    assert find(root) is None


def test_a_kernel(root: Root) -> None:
    root.file("usr/lib/modules/6.12.0-100.fc41.x86_64/vmlinuz").file("usr/lib/modules/x/y")
    path = "usr/lib/modules/6.12.0-100.fc41.x86_64"
    found = find(root)
    assert found == RootKernel("6.12.0-100.fc41.x86_64", f"{path}/vmlinuz", unified=False)
    assert found.initramfs == f"{path}/initramfs.img"


def test_a_kernel_behind_a_link(root: Root) -> None:
    root.file("boot/vmlinuz-6.12").link("usr/lib/modules/6.12/vmlinuz", "/boot/vmlinuz-6.12")
    assert find(root) == RootKernel("6.12", "usr/lib/modules/6.12/vmlinuz", unified=False)


def test_several(root: Root) -> None:
    root.file("usr/lib/modules/6.1/vmlinuz").file("usr/lib/modules/6 2/vmlinuz")
    with pytest.raises(SeveralKernels) as caught:
        find(root)
    assert one_line(caught.value) == (
        "Found multiple subdirectories in usr/lib/modules (hint: keep one of '6 2', 6.1)"
    )


def test_a_unified_image_goes_first_and_the_first_of_several(root: Root) -> None:
    for name in ("6.1", "6.2"):
        root.file(f"usr/lib/modules/{name}/vmlinuz")
    for name in ("zzz.efi", "aaa.efi", "fedora-6.12.0.efi"):
        root.file(f"boot/EFI/Linux/{name}")
    assert find(root) == RootKernel("aaa", "boot/EFI/Linux/aaa.efi", unified=True)


@pytest.mark.parametrize("path", ["usr/lib/modules", "usr/lib"])
def test_a_file_in_the_place_of_a_directory(root: Root, path: str) -> None:
    root.file(path)
    with ImageRoot.open(os.fspath(root.path)) as image:
        assert find_kernel_version(image) is None
