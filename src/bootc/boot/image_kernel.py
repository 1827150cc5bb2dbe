"""Finds the kernel in the tree of an image: a kernel with its initramfs, or both in one file.

The search, for an installation or an update:

* A unified kernel image is a file ``boot/EFI/Linux/*.efi`` or
  ``usr/lib/modules/<kver>/*.efi``. Its add-ons are ``*.addon.efi`` in directories below these.
  The add-ons for all unified kernel images are ``boot/loader/addons/*.addon.efi``.
* Otherwise a kernel is ``usr/lib/modules/<kver>/vmlinuz`` with ``initramfs.img`` beside it.

An image that has something else in the place of these directories is refused.
:mod:`bootc.boot.unpacked_kernel` finds the kernel of an image that is unpacked.
"""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from bootc.boot.image_content import size_of
from bootc.boot.scheme import (
    ADDON_SUFFIX,
    GLOBAL_ADDONS,
    INITRD,
    UKI_SUFFIX,
    VMLINUZ,
    global_addon_file,
)
from bootc.boot.unpacked_kernel import INITRAMFS as _INITRAMFS
from bootc.boot.unpacked_kernel import MODULES as _MODULES
from bootc.boot.unpacked_kernel import UKIS as _UKIS
from bootc.errors import Error
from bootc.formats import fat
from bootc.formats.tree import Directory, External, Inline, Leaf, NotADirectoryInTree
from bootc.printable import listed, printable


class ImageNotBootable(Error):
    """bootc cannot boot this image."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel and its initramfs, both regular files of the tree."""

    kver: str
    vmlinuz: Leaf
    initramfs: Leaf

    @property
    def sizes(self) -> Mapping[str, int]:
        """The size in bytes of each file that bootc will write."""
        return {VMLINUZ: size_of(self.vmlinuz), INITRD: size_of(self.initramfs)}


@dataclass(frozen=True, slots=True)
class UkiFile:
    """A unified kernel image, a regular file of the tree.

    Attributes:
        path: Its path in the image.
        leaf: The file.
        addons: Its add-ons by file name.
        global_addons: The add-ons of all unified kernel images of the machine, by file name.
    """

    path: str
    leaf: Leaf
    addons: Mapping[str, Leaf]
    global_addons: Mapping[str, Leaf] = dataclasses.field(default_factory=dict)

    def with_addons(self, names: Collection[str], for_all: Collection[str] = ()) -> UkiFile:
        """Return the unified kernel image with only the add-ons of these file names.

        Args:
            names: The names of its own add-ons.
            for_all: The names of the global ones.
        """
        chosen = {name: leaf for name, leaf in self.addons.items() if name in names}
        shared = {name: leaf for name, leaf in self.global_addons.items() if name in for_all}
        return dataclasses.replace(self, addons=chosen, global_addons=shared)

    @property
    def addon_files(self) -> tuple[tuple[str, Leaf], ...]:
        """The add-ons of both kinds, which may have the same names."""
        return (*self.addons.items(), *self.global_addons.items())

    @property
    def sizes(self) -> Mapping[str, int]:
        """The size in bytes of each file that bootc will write."""
        sizes = {self.path: size_of(self.leaf)} | {n: size_of(f) for n, f in self.addons.items()}
        shared = self.global_addons.items()
        return sizes | {f"{GLOBAL_ADDONS}/{name}": size_of(leaf) for name, leaf in shared}


def find_boot_resource(root: Directory) -> Kernel | UkiFile:
    """Find the kernel or the unified kernel image of an image.

    Args:
        root: The tree of the image, still with the content of ``/boot``.

    Raises:
        ImageNotBootable: there is no kernel, there are several, or a file is not usable.
    """
    _refuse_entries(root)
    # First: the bare kernel of a sealed image would boot without the seal.
    return _find_uki(root) or _find_kernel(root)


def is_uki_path(path: str) -> bool:
    """Tell whether a regular file with this path in an image is a unified kernel image."""
    home, name = posixpath.split(path)
    return name.endswith(UKI_SUFFIX) and (home == _UKIS or posixpath.dirname(home) == _MODULES)


def kernel_dirs(root: Directory) -> Iterator[tuple[str, Directory]]:
    """Yield the version and the directory of modules of every kernel of a tree, by version."""
    modules = root.lookup(_MODULES)
    if isinstance(modules, Directory):
        for name, node in modules.sorted_entries():
            if isinstance(node, Directory):
                yield name.decode("utf-8", "surrogateescape"), node


def _refuse_entries(root: Directory) -> None:
    # Whoever made the image meant it to boot by its own entries. bootc would boot it otherwise.
    entries = _directory(root, "boot/loader/entries")
    if entries is not None and any(n.endswith(b".conf") for n in entries.entries):
        raise ImageNotBootable(
            "the image carries boot entries of its own in boot/loader/entries",
            hint="remove them: the installation writes boot entries",
        )


def find_ukis(root: Directory) -> list[UkiFile]:
    """Return every unified kernel image of a tree, each with all add-ons.

    Raises:
        ImageNotBootable: a file is not regular, or an add-on cannot be installed.
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
    shared = _global_addons(root)
    return [UkiFile(path, leaf, addons, shared) for path, leaf in found.items()]


def _global_addons(root: Directory) -> dict[str, Leaf]:
    directory = _directory(root, f"boot/{GLOBAL_ADDONS}")
    found: dict[str, Leaf] = {}
    for raw_name, node in () if directory is None else directory.sorted_entries():
        name = raw_name.decode("utf-8", "surrogateescape")
        if name.endswith(ADDON_SUFFIX):
            found[name] = _regular_file(node, f"boot/{GLOBAL_ADDONS}/{name}")
    _check_names([global_addon_file(name) for name in found])
    return found


def _find_uki(root: Directory) -> UkiFile | None:
    found = find_ukis(root)
    if len(found) > 1:
        names = listed(uki.path for uki in found)
        raise ImageNotBootable(
            f"the image holds {len(found)} unified kernel images: {names}", hint="keep one of them"
        )
    return next(iter(found), None)


def _check_names(addons: Collection[str]) -> None:
    # Add-ons keep their file names on the ESP.
    for name in addons:
        if not (fat.is_name(name) and name.isprintable()):
            raise ImageNotBootable(
                f"the UKI add-on '{printable(name)}' has a name that the ESP cannot hold"
            )
    if same := fat.same_names(addons):
        raise ImageNotBootable(
            f"the UKI add-ons {same[0]} and {same[1]} have the same name on the ESP"
        )


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
            hint="use a bootable image",
        )
    if len(found) > 1:
        names = listed(kernel.kver for kernel in found)
        raise ImageNotBootable(
            f"the image holds {len(found)} kernels: {names}",
            hint=f"keep one of them below {_MODULES}",
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
