"""What an image brings to boot with: its kernel and initramfs.

Owns the search through an image's tree. A kernel is
``usr/lib/modules/<kver>/vmlinuz`` with ``initramfs.img`` beside it. An image that
carries anything which would rank before that (a unified kernel image, or boot
entries of its own) is refused rather than booted in a way its maker did not mean:
starting the bare kernel of a sealed image would lose the seal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bootc.errors import Error
from bootc.formats.tree import Directory, External, Inline, Leaf

_MODULES = "usr/lib/modules"


class ImageNotBootable(Error):
    """The image cannot be booted as it is."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel and its initramfs, both regular files of the tree."""

    kver: str
    vmlinuz: Leaf
    initramfs: Leaf


def find_kernel(root: Directory) -> Kernel:
    """Find the one kernel of an image. ``root`` still has the content of ``/boot``.

    Raises:
        ImageNotBootable: no kernel, several, one without initramfs, or one that
            should be started by other means.
    """
    _refuse_entries(root)
    modules = root.lookup(_MODULES)
    directories = modules.sorted_entries() if isinstance(modules, Directory) else []
    found: list[Kernel] = []
    for name, directory in directories:
        if not isinstance(directory, Directory):
            continue
        kver = _text(name)
        _refuse_unified(directory, f"{_MODULES}/{kver}")
        if b"vmlinuz" in directory.entries:
            found.append(
                Kernel(
                    kver,
                    _regular_file(directory, kver, "vmlinuz"),
                    _regular_file(directory, kver, "initramfs.img"),
                )
            )
    if not found:
        raise ImageNotBootable(
            f"no kernel: the image has no {_MODULES}/<version>/vmlinuz",
            hint="use an image that is made to be booted",
        )
    if len(found) > 1:
        names = ", ".join(kernel.kver for kernel in found)
        raise ImageNotBootable(
            f"the image holds {len(found)} kernels: {names}",
            hint=f"leave one of them below {_MODULES}",
        )
    return found[0]


def _refuse_entries(root: Directory) -> None:
    entries = root.lookup("boot/loader/entries")
    if isinstance(entries, Directory) and any(n.endswith(b".conf") for n in entries.entries):
        raise ImageNotBootable(
            "the image carries boot entries of its own in boot/loader/entries",
            hint="remove them: entries are written at installation",
        )
    efi = root.lookup("boot/EFI/Linux")
    if isinstance(efi, Directory):
        _refuse_unified(efi, "boot/EFI/Linux")


def _refuse_unified(directory: Directory, where: str) -> None:
    for path in _files(directory):
        if path.endswith(b".efi"):
            raise ImageNotBootable(
                f"the image boots a unified kernel image, {where}/{_text(path)}, "
                "which is not supported",
            )


def _files(directory: Directory) -> Iterator[bytes]:
    return (path[1:] for path, node in directory.walk() if isinstance(node, Leaf))


def _regular_file(directory: Directory, kver: str, name: str) -> Leaf:
    node = directory.entries.get(name.encode())
    path = f"{_MODULES}/{kver}/{name}"
    if node is None:
        raise ImageNotBootable(
            f"kernel {kver} has no initramfs: {path} is missing",
            hint="build it into the image with dracut",
        )
    if not isinstance(node, Leaf) or not isinstance(node.content, Inline | External):
        raise ImageNotBootable(f"{path} is not a regular file")
    return node


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
