"""What makes a sealed image protect less than its owner expects, found before it is published.

``bootc container lint`` runs these checks on an unpacked image, and ``bootc container seal`` on the
image that it is about to sign. None of them is a reason to refuse the image on a machine: the
image boots, with less protection or in another way.

Sources: ``docs/reference/sealed-images.md``; Linux, ``security/lockdown``; initramfs-tools 0.148,
``scripts/functions`` (``panic``).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import BinaryIO

from bootc.boot.esp_size import ESP_SIZE_MIB, LARGE_DISK_MIB, LARGE_ESP_SIZE_MIB
from bootc.boot.image_content import size_of
from bootc.boot.image_kernel import UkiFile, kernel_dirs
from bootc.boot.kernel_release import kernel_config, locks_itself_down
from bootc.boot.scheme import GLOBAL_ADDONS, VMLINUZ
from bootc.boot.unpacked_kernel import MODULES
from bootc.formats import cmdline
from bootc.formats.initramfs import initramfs_names
from bootc.formats.pe import CMDLINE, PeError, Uki
from bootc.formats.pesignature import is_signed
from bootc.formats.tree import Directory, External, Inline, Leaf
from bootc.sizes import human_size

OpenFile = Callable[[Leaf], AbstractContextManager[BinaryIO]]
#: The boot loader systemd-boot in an image. bootctl prefers a program with the second suffix.
LOADERS = "usr/lib/systemd/boot/efi"
_LOADER, SIGNED_SUFFIX = "systemd-boot*.efi", ".signed"
#: The values that the kernel knows, and one that says that nobody forgot the argument.
_LOCKDOWN = ("integrity", "confidentiality", "none")
#: Files that mkinitramfs of initramfs-tools always writes.
_INITRAMFS_TOOLS = {b"conf/initramfs.conf", b"scripts/functions"}
#: A machine has the booted deployment and the next one.
_DEPLOYMENTS = 2
#: systemd-boot has less than a hundredth of this.
_MAX_LOADER_BYTES = 64 << 20
_LOADER_COPIES = 2
_MIB = 1 << 20

NO_LOCKDOWN = (
    "Found no lockdown= in the kernel command line, and no configuration of the kernel that locks "
    "it down under Secure Boot. Without it, root can change the running kernel; add "
    "lockdown=integrity"
)
NO_PANIC = (
    "Found an initramfs of initramfs-tools and no panic= in the kernel command line. If the boot "
    "fails, the initramfs opens a shell of root on the console; add panic=30"
)


def command_lines(uki: UkiFile, open_file: OpenFile) -> list[list[str]]:
    """Return the arguments of each command line of a UKI, each with those of all add-ons.

    Args:
        uki: The UKI.
        open_file: Opens a file of the image.

    Raises:
        PeError: the UKI is not one.
    """
    with open_file(uki.leaf) as file:
        lines = [cmdline.parse(text) for text in Uki.read(file).texts(CMDLINE)]
    more: list[str] = []
    for _, leaf in uki.addon_files:
        with suppress(PeError), open_file(leaf) as file:  # The stub skips a damaged one.
            more += [word for text in Uki.read(file).texts(CMDLINE) for word in cmdline.parse(text)]
    return [[*line, *more] for line in lines]


def missing_arguments(lines: Iterable[Sequence[str]], wanted: Iterable[str]) -> list[str]:
    """Return the arguments that a command line lacks."""
    every = list(lines)
    return [one for one in wanted if any(cmdline.add(line, one) != line for line in every)]


def lacks_lockdown(
    lines: Iterable[Sequence[str]],
    root: Directory,
    releases: Collection[str],
    open_file: OpenFile,
) -> bool:
    """Tell whether a kernel runs without lockdown although Secure Boot is on.

    Args:
        lines: The command lines.
        root: The tree of the image, which may have the configuration of the kernel.
        releases: The releases of the kernel.
        open_file: Opens a file of the image.
    """
    if all(any(v in _LOCKDOWN for v in cmdline.find_all(line, "lockdown")) for line in lines):
        return False
    for release in releases:
        leaf = kernel_config(root, release)
        if leaf is None:
            return True
        with open_file(leaf) as file:
            if not locks_itself_down(file.read()):
                return True
    return not releases


def lacks_panic(lines: Iterable[Sequence[str]], read: Callable[[int], bytes]) -> bool:
    """Tell whether an initramfs opens a shell if the boot fails.

    The initramfs of dracut asks for the password of root, which it does not have.

    Args:
        lines: The command lines.
        read: Reads the initramfs: returns up to as many bytes as asked for.

    Raises:
        InitramfsError: it is no initramfs.
    """
    if all(["", *cmdline.find_all(line, "panic")][-1] for line in lines):
        return False
    left = set(_INITRAMFS_TOOLS)
    for name in initramfs_names(read):
        left.discard(name)
        if not left:
            return True
    return False


def raw_kernels(root: Directory) -> list[str]:
    """Return the paths of the kernels that boot without a UKI."""
    return [
        f"{MODULES}/{kver}/{VMLINUZ}"
        for kver, directory in kernel_dirs(root)
        if VMLINUZ.encode() in directory.entries
    ]


def loaders(root: Directory) -> list[tuple[str, Leaf]]:
    """Return path and file of each program of systemd-boot that bootctl would install."""
    home = root.lookup(LOADERS)
    found = home.entries if isinstance(home, Directory) else {}
    names = {name.decode("utf-8", "surrogateescape"): node for name, node in found.items()}
    programs = []
    for name in sorted(fnmatch.filter(names, _LOADER)):
        chosen = name + SIGNED_SUFFIX if name + SIGNED_SUFFIX in names else name
        node = names[chosen]
        if not isinstance(node, Leaf) or not isinstance(node.content, Inline | External):
            continue
        if size_of(node) <= _MAX_LOADER_BYTES:
            programs.append((f"{LOADERS}/{chosen}", node))
    return programs


def unsigned_programs(root: Directory, uki: UkiFile, open_file: OpenFile) -> list[str]:
    """Return the paths of the EFI programs without a signature: loader, UKI, and its add-ons.

    A file that is no EFI program counts as unsigned. Of an add-on beside the UKI it is the name.

    Args:
        root: The tree of the image.
        uki: The UKI of the image.
        open_file: Opens a file of the image.
    """
    programs = [*loaders(root), (uki.path, uki.leaf), *uki.addons.items()]
    shared = uki.global_addons.items()
    programs += [(f"boot/{GLOBAL_ADDONS}/{name}", leaf) for name, leaf in shared]
    return [path for path, leaf in programs if not has_signature(leaf, open_file)]


def has_signature(leaf: Leaf, open_file: OpenFile) -> bool:
    """Tell whether a file is an EFI program with a signature, which nothing verifies."""
    try:
        with open_file(leaf) as file:
            return is_signed(file)
    except PeError:
        return False


def esp_too_small(root: Directory, uki_bytes: int, configured_mib: int | None) -> str | None:
    """Return what to tell if two deployments do not fit on the EFI system partition, or None.

    Args:
        root: The tree of the image, which has the boot loader.
        uki_bytes: The size of the UKI with its add-ons.
        configured_mib: The size of the partition that the image asks for.
    """
    loader_bytes = max((size_of(leaf) for _, leaf in loaders(root)), default=0)
    # The firmware's default path gets a copy of the loader.
    needed = _LOADER_COPIES * loader_bytes + _DEPLOYMENTS * uki_bytes
    have = (ESP_SIZE_MIB if configured_mib is None else configured_mib) * _MIB
    if needed <= have:
        return None
    disks = ""
    if configured_mib is None and needed <= LARGE_ESP_SIZE_MIB * _MIB:
        disks = f" on disks below {human_size(LARGE_DISK_MIB * _MIB)}"
    return (
        f"Two deployments take {human_size(needed)}, and the EFI system partition of an "
        f"installation{disks} has {human_size(have)}: updates will fail; make the initramfs "
        "smaller, or set esp-size in the table [install] of /usr/lib/bootc/install/*.toml"
    )
