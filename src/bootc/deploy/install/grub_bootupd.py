"""Has bootupd of the image install GRUB.

Images of Fedora and of its relatives have bootupd, and with it GRUB and a static configuration.
``bootupctl`` runs inside the mounted image, as in upstream bootc, with the new file systems at
``/boot``, ``/boot/efi`` and ``/sysroot``. It writes the programs to the EFI system partition, or to
the BIOS boot partition; ``grub2/grub.cfg``, which lists the boot entries; ``bootuuid.cfg``, which
names the file system with them; and its record ``bootupd-state.json``, by which
``bootupctl update`` later replaces the programs.

If the GRUB that it wrote reads no boot entries, this module adds ``grub2/custom.cfg``
(:data:`bootc.boot.grub.CUSTOM_CONFIG`). bootupd does not write that file, now or later.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping

from bootc.boot import grub
from bootc.deploy.install.image_mounts import mount_api_file_systems, mount_directory
from bootc.deploy.install.loader_installer import BootTarget, ImageNeed, NewDeployment
from bootc.errors import Error, doing
from bootc.events import Message, Sink
from bootc.formats.origin import BootType
from bootc.formats.tree import Directory, External, Inline, Leaf
from bootc.fs import atomic, process
from bootc.fs.dir import Dir
from bootc.fs.process import CommandFailed, Completed
from bootc.printable import printable

_PROGRAM = "bootupctl"
#: The directories of PATH in which the program can be.
_BIN = ("usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin")
_UPDATES = "usr/lib/bootupd/updates"
#: A layer may have the files in a directory without the directory itself.
_METADATA = (_UPDATES, f"{_UPDATES}/EFI.json", f"{_UPDATES}/BIOS.json")
_STATE = "bootupd-state.json"
_PACKAGE = "bootupd"
NEEDS = (
    ImageNeed(tuple(f"{path}/{_PROGRAM}" for path in _BIN), _PACKAGE),
    ImageNeed(_METADATA, _PACKAGE),
)
#: What bootupd copies to the ESP: newer versions by name and version of a package.
_EFI_FILES = re.compile(
    rb"/usr/lib/(?:bootupd/updates|efi/[^/]+/[^/]+)/(EFI/.+)", re.DOTALL | re.IGNORECASE
)
_INSTALL = ("backend", "install")
#: Upstream's variable; if it has a value, bootupctl says what it does.
_DEBUG = "BOOTC_BOOTLOADER_DEBUG"
#: It runs grub2-install, which looks at all disks of the machine.
_TIMEOUT_S = 600.0

#: The command by which GRUB reads boot entries. EFI programs contain their modules uncompressed.
_READS_ENTRIES = b"blscfg"
_EFI_PROGRAM = re.compile(r"grub[^/]*\.efi\Z", re.IGNORECASE)
_MAX_PROGRAM_BYTES = 32 << 20
_MAX_NAMES = 1000
_BIOS_MODULES = "grub2/i386-pc"
_BIOS_READERS = ("blscfg.mod", "blsuki.mod")


def is_there(has: Callable[[str], bool]) -> bool:
    """Tell whether an image has bootupd; ``has`` tells whether it has a file or a directory."""
    return all(any(map(has, need.paths)) for need in NEEDS)


def sizes(tree: Directory) -> Mapping[str, int]:
    """Return the programs that bootupd copies to the ESP: name and size in bytes."""
    found: dict[str, int] = {}
    for top in ("usr/lib/bootupd/updates", "usr/lib/efi"):
        directory = tree.lookup(top)
        if not isinstance(directory, Directory):
            continue
        for path, node in directory.walk():
            name = _EFI_FILES.fullmatch(f"/{top}".encode() + path)
            if name is None or not isinstance(node, Leaf):
                continue
            if isinstance(node.content, External | Inline):
                found[os.fsdecode(name[1])] = node.content.size_bytes
    return found


def install(deployment: NewDeployment, target: BootTarget, sink: Sink) -> None:
    """Run bootupctl, and make sure that the GRUB which it installs shows the boot entries.

    Raises:
        CommandFailed: bootupctl failed, or did not end in time.
        Error: it wrote no configuration, or one that shows no boot entries.
        OSError: mounting, reading or writing failed.
    """
    image = deployment.mounted
    with doing("Mounting the new file systems into the image"):
        mount_directory(target.boot, image, "boot")
        mount_directory(target.root, image, "sysroot")
        if target.esp is not None:
            # bootupd would look for the device of the ESP, which the image of a disk has not.
            target.boot.ensure_dir("efi").close()
            mount_directory(target.esp, image, "boot/efi")
    mount_api_file_systems(image, firmware=not deployment.generic)
    # Of an installation to the same /boot that failed. bootupctl would refuse to install twice.
    with contextlib.suppress(FileNotFoundError):
        target.boot.unlink(_STATE)
    help_text = _run(image, (*_INSTALL, "--help")).stdout
    debug = bool(os.environ.get(_DEBUG))
    done = _run(image, arguments(help_text, deployment, target, debug=debug))
    if debug:
        for line in done.stderr.splitlines():
            sink(Message(printable(line)))
    _connect_menu(target, deployment.booting.boot_type)


def arguments(
    help_text: bytes, deployment: NewDeployment, target: BootTarget, *, debug: bool
) -> tuple[str, ...]:
    """Return the arguments for bootupctl, which are those of upstream bootc.

    Args:
        help_text: The help of ``bootupctl backend install``.
        deployment: The deployment.
        target: The file systems.
        debug: Whether bootupctl writes what it does.
    """
    uuid = "--with-static-configs" if deployment.skip_boot_uuid else "--write-uuid"
    # Without --auto it installs GRUB for all kinds of firmware that the image has GRUB for.
    firmware = () if deployment.generic else ("--update-firmware", "--auto")
    by_file_system = re.search(rb"--filesystem\b", help_text) and not target.disk_is_file
    disk = ("--filesystem", "/sysroot") if by_file_system else ("--device", target.disk)
    return (*_INSTALL, uuid, *(("-vvvv",) if debug else ()), *firmware, *disk, "/")


def _run(image: Dir, args: tuple[str, ...]) -> Completed:
    try:
        return process.run_in_root(image.path, (_PROGRAM, *args), timeout_s=_TIMEOUT_S)
    except CommandFailed as exc:
        exc.hint = (
            f"{_DEBUG}=1 makes bootupctl of the image say more; or choose another boot loader of "
            "the image with --bootloader"
        )
        raise


def _connect_menu(target: BootTarget, boot_type: BootType) -> None:
    """Have GRUB read the menu that bootc generates, if it cannot read boot entries."""
    config = grub.read_config(target.boot, grub.STATIC_CONFIG)
    if not config:
        raise Error(
            f"bootupctl of the image wrote no {grub.STATIC_CONFIG} to {target.boot.path}",
            hint="the image needs bootupd's static configuration in /usr/lib/bootupd/grub2-static",
        )
    if boot_type is BootType.UKI:
        _require(config, "user.cfg")
    if _READS_ENTRIES in config and _reads_entries(target):
        return
    parent, _, name = grub.CUSTOM_CONFIG.rpartition("/")
    if boot_type is BootType.BLS:
        _require(config, name)
    with doing(f"Writing {target.boot.path}/{grub.CUSTOM_CONFIG}"):
        custom = grub.custom_config(grub.read_config(target.boot, grub.CUSTOM_CONFIG))
        with target.boot.open_dir(parent) as directory:
            atomic.write_file(directory, name, custom, mode=grub.STATIC_CONFIG_MODE, durable=True)


def _require(config: bytes, name: str) -> None:
    if name.encode() not in config:
        raise Error(
            f"the GRUB that bootupctl of the image wrote would show no boot entry: its "
            f"{grub.STATIC_CONFIG} does not read {name}",
            hint="add bootupd's own files to /usr/lib/bootupd/grub2-static/configs.d of the image, "
            "or choose another boot loader with --bootloader",
        )


def _reads_entries(target: BootTarget) -> bool:
    """Tell whether every GRUB that was installed reads boot entries."""
    answers = list(_answers(target))
    return bool(answers) and all(answers)


def _answers(target: BootTarget) -> Iterator[bool]:
    if target.boot.exists(_BIOS_MODULES):
        yield any(target.boot.exists(f"{_BIOS_MODULES}/{name}") for name in _BIOS_READERS)
    if target.esp is None or not target.esp.exists("EFI"):
        return
    with doing("Looking at the GRUB that bootupctl wrote"), target.esp.open_dir("EFI") as directory:
        for vendor in directory.names(_MAX_NAMES):
            if not os.path.isdir(f"{directory.path}/{vendor}"):
                continue
            with directory.open_dir(vendor) as programs:
                for name in filter(_EFI_PROGRAM.match, programs.names(_MAX_NAMES)):
                    yield _READS_ENTRIES in programs.read_bytes(name, _MAX_PROGRAM_BYTES)
