"""Container images whose kernel is a unified kernel image, with add-ons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bootc.formats import cmdline
from bootc.formats.imgref import ImageReference
from bootc.oci.source import open_source
from bootc.oci.trees import image_id_of, image_tree
from support import images, pe
from support.images import directory, file

KVER = "6.12.0-test"
OS_RELEASE = b'ID=sealed-os\nVERSION_ID=7\nPRETTY_NAME="Sealed OS 7"\n'
ADDON = b"MZ add-on" * 99


def unified(
    path: Path,
    members: list[images.Member],
    kernel: bytes,
    initramfs: bytes,
    *,
    optional: bool = True,
    image_id: str | None = None,
    arguments: str = "",
    later: Sequence[bytes] = (),
) -> images.Layout:
    """Make an image with a unified kernel image beside its bare kernel.

    Args:
        path: Where to make it.
        members: Its files, except those in ``/boot`` and the kernel.
        kernel: Its kernel.
        initramfs: Its initramfs.
        optional: The unified kernel image tolerates missing fs-verity.
        image_id: The image that it names; None for the right one.
        arguments: Kernel arguments that name the image. {1} and {2} are its ids of these format
            versions.
        later: Layers behind the one with the unified kernel image.
    """
    base = images.bootable(*members, kernel=kernel, initramfs=initramfs)
    bare = images.single(path / "bare", base)
    with open_source(ImageReference.parse(bare.reference())) as source:
        root = image_tree(source).root
    ids = ["", *(image_id_of(root, version=version).hex for version in (1, 2))]
    named = arguments.format(*ids) or cmdline.composefs_karg(image_id or ids[1], optional=optional)
    uki = pe.program(
        (b".osrel", OS_RELEASE),
        (b".cmdline", f"rw quiet {named}".encode()),
        (b".linux", kernel),
        (b".initrd", initramfs),
    )
    home = f"boot/EFI/Linux/{KVER}.efi"
    extra = f"{home}.extra.d"
    sealed = images.layer(
        *(directory(d) for d in ("boot/EFI", "boot/EFI/Linux", extra)),
        file(home, uki),
        file(f"{extra}/debug.addon.efi", ADDON),
        file(f"{extra}/quiet.addon.efi", ADDON),
    )
    return images.single(path / "unified", base, sealed, *later)
