"""What an image brings to boot with: a kernel and its initramfs, or both in one.

Owns the search through an image's tree. A unified kernel image is a file
``boot/EFI/Linux/*.efi`` or ``usr/lib/modules/<kver>/*.efi``, and deeper in there are the
``*.addon.efi`` that may be added to it. Otherwise a kernel is
``usr/lib/modules/<kver>/vmlinuz`` with ``initramfs.img`` beside it. A unified image goes
first: starting the bare kernel of a sealed image would lose the seal. An image with
boot entries of its own is refused rather than booted in a way its maker did not mean, and so
is one that has something else where these directories should be.

Add-ons keep their file names on the ESP, so that two cannot have one name, and each name must
be one that FAT can hold.
"""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from bootc.boot.image_content import size_of
from bootc.boot.scheme import ADDON_SUFFIX, INITRD, UKI_SUFFIX, VMLINUZ
from bootc.boot.unpacked_kernel import INITRAMFS as _INITRAMFS
from bootc.boot.unpacked_kernel import MODULES as _MODULES
from bootc.boot.unpacked_kernel import UKIS as _UKIS
from bootc.errors import Error
from bootc.formats import fat
from bootc.formats.tree import Directory, External, Inline, Leaf, NotADirectoryInTree
from bootc.printable import listed, printable


class ImageNotBootable(Error):
    """The image cannot be booted as it is."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel and its initramfs, both regular files of the tree."""

    kver: str
    vmlinuz: Leaf
    initramfs: Leaf

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of each file that will be written."""
        return {VMLINUZ: size_of(self.vmlinuz), INITRD: size_of(self.initramfs)}


@dataclass(frozen=True, slots=True)
class UkiFile:
    """A unified kernel image, a regular file of the tree.

    Attributes:
        path: Where it is in the image.
        leaf: The file.
        addons: What may be added to it, by file name.
    """

    path: str
    leaf: Leaf
    addons: Mapping[str, Leaf]

    def with_addons(self, names: Collection[str]) -> UkiFile:
        """Return the image with those of its add-ons that have one of these file names."""
        chosen = {name: leaf for name, leaf in self.addons.items() if name in names}
        return dataclasses.replace(self, addons=chosen)

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of each file that will be written."""
        return {self.path: size_of(self.leaf)} | {n: size_of(f) for n, f in self.addons.items()}


def find_boot_resource(root: Directory) -> Kernel | UkiFile:
    """Find what an image boots with. ``root`` still has the content of ``/boot``.

    Raises:
        ImageNotBootable: there is nothing or too much, or it is not what it should be.
    """
    _refuse_entries(root)
    return _find_uki(root) or _find_kernel(root)


def is_uki_path(path: str) -> bool:
    """Tell whether a regular file of an image with this path is a unified kernel image."""
    home, name = posixpath.split(path)
    return name.endswith(UKI_SUFFIX) and (home == _UKIS or posixpath.dirname(home) == _MODULES)


def kernel_dirs(root: Directory) -> Iterator[tuple[str, Directory]]:
    """Yield version and modules of every kernel of a tree, by name."""
    modules = root.lookup(_MODULES)
    if isinstance(modules, Directory):
        for name, node in modules.sorted_entries():
            if isinstance(node, Directory):
                yield name.decode("utf-8", "surrogateescape"), node


def _refuse_entries(root: Directory) -> None:
    entries = _directory(root, "boot/loader/entries")
    if entries is not None and any(n.endswith(b".conf") for n in entries.entries):
        raise ImageNotBootable(
            "the image carries boot entries of its own in boot/loader/entries",
            hint="remove them: entries are written at installation",
        )


def find_ukis(root: Directory) -> list[UkiFile]:
    """Return every unified kernel image of a tree, each with all add-ons.

    Raises:
        ImageNotBootable: one is not a regular file, or an add-on cannot be installed.
    """
    found: dict[str, Leaf] = {}
    addons: dict[str, Leaf] = {}
    homes = [(_UKIS, _directory(root, _UKIS))]
    homes += [(f"{_MODULES}/{kver}", directory) for kver, directory in kernel_dirs(root)]
    for home, directory in homes:
        if directory is None:
            continue
        for raw_path, node in directory.walk():
            path = raw_path.decode("utf-8", "surrogateescape")[1:]
            if not path.endswith(UKI_SUFFIX) or isinstance(node, Directory):
                continue
            where, _, name = f"{home}/{path}".rpartition("/")
            leaf = _regular_file(node, f"{home}/{path}")
            if where == home:
                found[f"{home}/{path}"] = leaf
            elif name.endswith(ADDON_SUFFIX) and addons.setdefault(name, leaf) != leaf:
                raise ImageNotBootable(
                    f"the image holds several UKI add-ons called {printable(name)}",
                    hint="give each a name of its own",
                )
    _check_names(addons)
    return [UkiFile(path, leaf, addons) for path, leaf in found.items()]


def _find_uki(root: Directory) -> UkiFile | None:
    found = find_ukis(root)
    if len(found) > 1:
        names = listed(uki.path for uki in found)
        raise ImageNotBootable(
            f"the image holds {len(found)} unified kernel images: {names}", hint="leave one of them"
        )
    return next(iter(found), None)


def _check_names(addons: Collection[str]) -> None:
    for name in addons:
        if not (fat.is_name(name) and name.isprintable()):
            raise ImageNotBootable(
                f"the UKI add-on '{printable(name)}' has a name that the ESP cannot hold"
            )
    if same := fat.same_names(addons):
        raise ImageNotBootable(f"the UKI add-ons {same[0]} and {same[1]} are one name on the ESP")


def _find_kernel(root: Directory) -> Kernel:
    found: list[Kernel] = []
    for kver, directory in kernel_dirs(root):
        path = f"{_MODULES}/{printable(kver)}"
        vmlinuz, initramfs = (directory.entries.get(n.encode()) for n in (VMLINUZ, _INITRAMFS))
        if vmlinuz is None:
            continue
        if initramfs is None:
            raise ImageNotBootable(
                f"kernel {printable(kver)} has no initramfs: {path}/{_INITRAMFS} is missing",
                hint="build it into the image with dracut",
            )
        found.append(
            Kernel(
                printable(kver),
                _regular_file(vmlinuz, f"{path}/{VMLINUZ}"),
                _regular_file(initramfs, f"{path}/{_INITRAMFS}"),
            )
        )
    if not found:
        raise ImageNotBootable(
            f"no kernel: the image has no {_MODULES}/<version>/vmlinuz",
            hint="use an image that is made to be booted",
        )
    if len(found) > 1:
        names = listed(kernel.kver for kernel in found)
        raise ImageNotBootable(
            f"the image holds {len(found)} kernels: {names}",
            hint=f"leave one of them below {_MODULES}",
        )
    return found[0]


def _directory(root: Directory, path: str) -> Directory | None:
    try:
        return root.find_directory(path)
    except NotADirectoryInTree as exc:
        raise ImageNotBootable(exc.message) from None


def _regular_file(node: Directory | Leaf, path: str) -> Leaf:
    if not isinstance(node, Leaf) or not isinstance(node.content, Inline | External):
        raise ImageNotBootable(f"{printable(path)} is not a regular file")
    return node
