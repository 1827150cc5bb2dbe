from __future__ import annotations

import pytest

from bootc.boot.image_kernel import (
    ImageNotBootable,
    Kernel,
    UkiFile,
    find_boot_resource,
    is_uki_path,
)
from bootc.formats.tree import Directory, Inline, Leaf, Stat, Symlink


def tree(*paths: str, links: tuple[str, ...] = (), files: tuple[str, ...] = ()) -> Directory:
    root = Directory()
    for path in (*paths, *links, *files):
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
UKI = "boot/EFI/Linux/a.efi"


def test_the_one_kernel_is_found() -> None:
    root = tree(VMLINUZ, INITRAMFS, "usr/lib/modules/6.11/modules.dep", "usr/lib/modules/file")
    kernel = find_boot_resource(root)
    assert isinstance(kernel, Kernel)
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
            tree("boot/EFI/Linux/a.efi", "usr/lib/modules/6.12/b.efi"),
            "the image holds 2 unified kernel images: "
            "boot/EFI/Linux/a.efi, usr/lib/modules/6.12/b.efi",
        ),
        (
            tree(VMLINUZ, INITRAMFS, links=("boot/EFI/Linux/a.efi",)),
            "boot/EFI/Linux/a.efi is not a regular file",
        ),
        (
            tree("boot/EFI/Linux/a.efi", "boot/loader/entries/a.conf"),
            "the image carries boot entries of its own in boot/loader/entries",
        ),
        (
            tree(VMLINUZ, INITRAMFS, "boot/loader/entries/a.conf"),
            "the image carries boot entries of its own in boot/loader/entries",
        ),
        # Elsewhere there may be unified kernel images, or entries.
        *(
            (tree(VMLINUZ, INITRAMFS, **{how: (path,)}), f"{path} is not a directory but {what}")
            for path in ("boot", "boot/EFI", "boot/EFI/Linux", "boot/loader/entries")
            for how, what in (("links", "a symbolic link"), ("files", "a file"))
        ),
        *(
            (
                tree(*(f"{UKI}.extra.d/{name}" for name in names), UKI),
                message,
            )
            for names, message in (
                (
                    ("a:b.addon.efi",),
                    "the UKI add-on 'a:b.addon.efi' has a name that the ESP cannot hold",
                ),
                (
                    ("a\n.addon.efi",),
                    "the UKI add-on 'a\\n.addon.efi' has a name that the ESP cannot hold",
                ),
                (
                    ("x" * 250 + ".addon.efi",),
                    f"the UKI add-on '{'x' * 250}.addon.efi' has a name that the ESP cannot hold",
                ),
                (
                    ("a.addon.efi", "A.addon.efi"),
                    "the UKI add-ons A.addon.efi and a.addon.efi have the same name on the ESP",
                ),
                (
                    ("a.addon.efi", "more/a.addon.efi"),
                    "the image holds several UKI add-ons called a.addon.efi",
                ),
            )
        ),
    ],
)
def test_why_an_image_does_not_boot(root: Directory, message: str) -> None:
    with pytest.raises(ImageNotBootable) as caught:
        find_boot_resource(root)
    assert caught.value.message == message


@pytest.mark.parametrize("path", ["boot/EFI/Linux/6.12.efi", "usr/lib/modules/6.12/a.efi"])
def test_a_unified_image_goes_first(path: str) -> None:
    root = tree(VMLINUZ, INITRAMFS, path, f"{path}.extra.d/debug.addon.efi", f"{path}.d/other.efi")
    resource = find_boot_resource(root)
    assert isinstance(resource, UkiFile)
    assert resource.path == path
    assert resource.leaf.content == Inline(path.encode())
    assert list(resource.addons) == ["debug.addon.efi"]
    assert resource.with_addons(()).addons == {}
    addon = f"{path}.extra.d/debug.addon.efi"
    assert resource.sizes == {path: len(path), "debug.addon.efi": len(addon)}


def test_global_add_ons() -> None:
    shared = "boot/loader/addons/debug.addon.efi"
    root = tree("boot/EFI/Linux/a.efi", "boot/EFI/Linux/a.efi.extra.d/debug.addon.efi", shared)
    resource = find_boot_resource(root)
    assert isinstance(resource, UkiFile)
    assert resource.global_addons["debug.addon.efi"].content == Inline(shared.encode())
    assert len(resource.addon_files) == 2
    assert resource.with_addons(()).global_addons == {}
    chosen = resource.with_addons((), for_all=("debug.addon.efi",))
    assert (list(chosen.addons), list(chosen.global_addons)) == ([], ["debug.addon.efi"])
    assert chosen.sizes["loader/addons/debug.addon.efi"] == len(shared)


def test_a_global_add_on_needs_room_for_its_prefix() -> None:
    name = "x" * 235 + ".addon.efi"
    root = tree("boot/EFI/Linux/a.efi", f"boot/loader/addons/{name}")
    with pytest.raises(ImageNotBootable, match="has a name that the ESP cannot hold"):
        find_boot_resource(root)


def test_add_ons_alone_do_not_boot() -> None:
    root = tree("boot/EFI/Linux/a.efi.extra.d/debug.addon.efi")
    with pytest.raises(ImageNotBootable, match="no kernel"):
        find_boot_resource(root)


def test_names_that_are_no_text() -> None:
    root = tree(VMLINUZ, INITRAMFS)
    modules = root.lookup("usr/lib/modules")
    assert isinstance(modules, Directory)
    modules.entries[b"\xff"] = modules.entries[b"6.12"]
    with pytest.raises(ImageNotBootable, match=r"2 kernels: 6\.12, \\xff"):
        find_boot_resource(root)


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("boot/EFI/Linux/a.efi", True),
        ("usr/lib/modules/6.12/a.efi", True),
        ("usr/lib/modules/a.efi", False),
        ("usr/lib/modules/6.12/vmlinuz", False),
        ("boot/EFI/Linux/a.efi.extra.d/b.addon.efi", False),
        ("boot/EFI/BOOT/BOOTX64.EFI", False),
        ("a.efi", False),
    ],
)
def test_paths_of_unified_kernel_images(path: str, is_one: bool) -> None:
    assert is_uki_path(path) is is_one
