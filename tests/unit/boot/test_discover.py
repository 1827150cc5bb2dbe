from __future__ import annotations

import pytest

from bootc.boot.discover import ImageNotBootable, find_kernel
from bootc.formats.tree import Directory, Inline, Leaf, Stat, Symlink


def tree(*paths: str, links: tuple[str, ...] = ()) -> Directory:
    root = Directory()
    for path in (*paths, *links):
        *above, name = path.encode().split(b"/")
        directory = root
        for component in above:
            below = directory.entries.setdefault(component, Directory())
            assert isinstance(below, Directory)
            directory = below
        content = Symlink(b"x") if path in links else Inline(path.encode())
        directory.entries[name] = Leaf(Stat(), content)
    return root


VMLINUZ = "usr/lib/modules/6.12/vmlinuz"
INITRAMFS = "usr/lib/modules/6.12/initramfs.img"


def test_the_one_kernel_is_found() -> None:
    root = tree(VMLINUZ, INITRAMFS, "usr/lib/modules/6.11/modules.dep", "usr/lib/modules/file")
    kernel = find_kernel(root)
    assert kernel.kver == "6.12"
    assert kernel.vmlinuz.content == Inline(VMLINUZ.encode())
    assert kernel.initramfs.content == Inline(INITRAMFS.encode())


@pytest.mark.parametrize(
    ("root", "message"),
    [
        (tree(), "no kernel: the image has no usr/lib/modules/<version>/vmlinuz"),
        (tree("usr/lib/modules"), "no kernel: the image has no usr/lib/modules/<version>/vmlinuz"),
        (
            tree(VMLINUZ),
            "kernel 6.12 has no initramfs: usr/lib/modules/6.12/initramfs.img is missing",
        ),
        (
            tree(
                VMLINUZ,
                INITRAMFS,
                "usr/lib/modules/6.9/vmlinuz",
                "usr/lib/modules/6.9/initramfs.img",
            ),
            "the image holds 2 kernels: 6.12, 6.9",
        ),
        (tree(INITRAMFS, links=(VMLINUZ,)), f"{VMLINUZ} is not a regular file"),
        (tree(VMLINUZ, f"{INITRAMFS}/x"), f"{INITRAMFS} is not a regular file"),
        (
            tree(VMLINUZ, INITRAMFS, "boot/EFI/Linux/6.12.efi"),
            "the image boots a unified kernel image, boot/EFI/Linux/6.12.efi, "
            "which is not supported",
        ),
        (
            tree(VMLINUZ, INITRAMFS, "usr/lib/modules/6.12/a.efi"),
            "the image boots a unified kernel image, usr/lib/modules/6.12/a.efi, "
            "which is not supported",
        ),
        (
            tree(VMLINUZ, INITRAMFS, "boot/loader/entries/a.conf"),
            "the image carries boot entries of its own in boot/loader/entries",
        ),
    ],
)
def test_why_an_image_does_not_boot(root: Directory, message: str) -> None:
    with pytest.raises(ImageNotBootable) as caught:
        find_kernel(root)
    assert caught.value.message == message
