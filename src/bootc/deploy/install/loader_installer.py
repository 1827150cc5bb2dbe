"""The protocol of the boot loaders that an installation can install.

One module for each boot loader implements it (``loader_systemd_boot.py``, …);
:mod:`bootc.deploy.install.loaders` chooses one. The rest of the installation never asks which
loader it has: it asks this protocol what the loader needs.

An installation calls a loader in this order:

1. :meth:`LoaderInstaller.check_kernel_arguments` and :meth:`LoaderInstaller.image_needs`, before
   the disk is touched;
2. :meth:`LoaderInstaller.check_boot_type` and :meth:`LoaderInstaller.program_sizes`, when the
   image is pulled;
3. :meth:`LoaderInstaller.write_programs`, with the image mounted;
4. :meth:`LoaderInstaller.write_kernel`;
5. :meth:`LoaderInstaller.commit`, when the state of the deployment and the whole repository are
   on the disk. Before this call the disk boots nothing.

:mod:`bootc.deploy.install.mirror_esps` then copies the content of the ESP to its mirrors.

If the installation is killed, :meth:`LoaderInstaller.boots` tells the next one whether it reached
the commit point.

A loader is a subclass of the protocol, which has defaults for the questions that most loaders
answer with "nothing".
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from bootc.boot.kernels import BootResource
from bootc.boot.scheme import BootDirs
from bootc.deploy.install import installed_menu
from bootc.deploy.install.partition import Partition, RawPartition
from bootc.deploy.install.selinux import SelinuxState
from bootc.events import Sink
from bootc.formats.digest import Digest
from bootc.formats.origin import BootRecord, BootType, UkiRecord
from bootc.formats.osrelease import OsRelease
from bootc.formats.tree import Directory
from bootc.fs.dir import Dir
from bootc.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class MirrorTarget:
    """A further ESP on the disks of the root. :class:`BootTarget` has the same attributes."""

    esp: Dir
    esp_uuid: str
    esp_partition: Partition
    xbootldr: Dir | None = None


@dataclass(frozen=True, slots=True)
class BootTarget:
    """The mounted file systems of a new installation, and the partitions that they are on.

    UUIDs of file systems are spelled as ``blkid`` prints them.

    Attributes:
        disk: The path of the whole disk.
        root: The physical root.
        root_uuid: The UUID of its file system.
        boot: The directory ``boot`` of the physical root, or the root of a file system of its own.
        boot_uuid: The UUID of the file system with ``boot``.
        separate_boot: Whether ``boot`` is a file system of its own.
        esp: The root of the EFI system partition; None if there is none.
        esp_uuid: The UUID of its file system.
        esp_partition: Its row of the partition table.
        bios_boot: The BIOS boot partition; None if there is none.
        disk_is_file: Whether the disk is a file. In this case the kernel does not know its
            partitions: each of them is a loop device of its own.
        esp_is_new: Whether the installation made the ESP, so that its size can be configured.
        raw: The partitions of :meth:`LoaderInstaller.raw_partitions`, by name.
        mirrors: The further ESPs, which become copies of the main one.
        xbootldr: The root of the extended boot loader partition that the loader of the ESP reads;
            None if there is none.
        root_kargs: The kernel arguments by which the initramfs finds and mounts the root file
            system, and the machine a separate ``/boot``.
    """

    disk: str
    root: Dir
    root_uuid: str
    boot: Dir
    boot_uuid: str
    separate_boot: bool = False
    esp: Dir | None = None
    esp_uuid: str = ""
    esp_partition: Partition | None = None
    bios_boot: Partition | None = None
    disk_is_file: bool = False
    esp_is_new: bool = False
    xbootldr: Dir | None = None
    root_kargs: tuple[str, ...] = ("rw",)
    raw: Mapping[str, Partition] = field(default_factory=dict)
    mirrors: tuple[MirrorTarget, ...] = ()

    def on_mirror(self, mirror: MirrorTarget) -> BootTarget:
        """Return the same target with a mirror in place of the main ESP."""
        return dataclasses.replace(
            self,
            esp=mirror.esp,
            esp_uuid=mirror.esp_uuid,
            esp_partition=mirror.esp_partition,
            xbootldr=mirror.xbootldr,
            mirrors=(),
        )


@dataclass(frozen=True, slots=True)
class Booting:
    """The files that the machine boots with, and how.

    Attributes:
        image_id: The id of the deployment.
        resource: The files.
        boot_type: Their kind.
        os_release: The name in the boot menu.
        options: The kernel's arguments; None if the unified kernel image has its own.
        selinux: Whether the machine will have SELinux.
        uki: How unified kernel images are taken apart, if they are.
    """

    image_id: Digest
    resource: BootResource
    boot_type: BootType
    os_release: OsRelease
    options: str | None
    selinux: SelinuxState = SelinuxState.DISABLED
    uki: UkiRecord | None = None


@dataclass(frozen=True, slots=True)
class NewDeployment:
    """The image of an installation, pulled and mounted.

    Attributes:
        booting: What it boots with.
        tree: The tree as the image has it, with ``/boot``.
        mounted: The root of the mounted deployment.
        repository: The repository that holds it.
        generic: The disk will boot on other machines: the firmware of this machine stays
            unchanged, and nothing secret is written.
        skip_boot_uuid: bootupd does not write the UUID of the file system with ``boot``.
    """

    booting: Booting
    tree: Directory
    mounted: Dir
    repository: Repository
    generic: bool
    skip_boot_uuid: bool = False


@dataclass(frozen=True, slots=True)
class ImageNeed:
    """A file that the image must have for a loader.

    Attributes:
        paths: The places where it may be; one of them is enough.
        package: The Debian package that brings it.
        replaceable: A file of the installing system takes its place if the image lacks it.
    """

    paths: tuple[str, ...]
    package: str
    replaceable: bool = False


class FirmwareType(enum.StrEnum):
    """The firmware that starts a boot loader, by its name in the origin."""

    UEFI = "uefi"
    BIOS = "bios"


class LoaderInstaller(Protocol):
    """One boot loader, as an installation installs it."""

    @property
    def name(self) -> str:
        """The name in ``--bootloader``, in the origin and in the Host schema."""

    @property
    def title(self) -> str:
        """The name in messages."""

    @property
    def firmwares(self) -> tuple[FirmwareType, ...]:
        """The kinds of firmware that start the loader."""

    @property
    def tools(self) -> tuple[str, ...]:
        """The programs that the installing system must have."""
        return ()

    @property
    def machines(self) -> tuple[str, ...]:
        """The architectures that it starts, as ``uname -m`` prints them."""

    @property
    def needs_esp(self) -> bool:
        """Whether the disk needs an EFI system partition."""

    @property
    def needs_bios_boot(self) -> bool:
        """Whether the loader is in the BIOS boot partition of the disk.

        Such a loader cannot be installed to mounted file systems: the partition is not mounted.
        """
        return False

    @property
    def kernels_on_esp(self) -> bool:
        """Whether the EFI system partition needs room for kernels."""

    @property
    def tells_partition(self) -> bool:
        """Whether the loader tells the system from which partition it was started.

        If so, the initramfs finds the root file system by the type of its partition.
        """

    @property
    def kernel_place(self) -> str:
        """The place of the kernel, in messages."""

    def raw_partitions(self, disk_size_mib: int) -> tuple[RawPartition, ...]:
        """Return the partitions without a file system that the loader needs on a disk.

        A loader that needs any cannot be installed to mounted file systems.
        """
        return ()

    def image_needs(self, machine: str) -> tuple[ImageNeed, ...]:
        """Return the files that the image must have, for a machine of this architecture."""
        return ()

    def image_choices(self, machine: str) -> tuple[tuple[ImageNeed, ...], ...]:
        """Return all sets of files of which the image must have one, the preferred set first."""
        return (self.image_needs(machine),)

    def is_by_bootupd(self, has: Callable[[str], bool]) -> bool:
        """Tell whether bootupd of an image installs the loader.

        Args:
            has: Tells whether the image has a file or a directory.
        """
        return False

    def title_in(self, has: Callable[[str], bool]) -> str:
        """Return :attr:`title` and bootupd's part, for the argument of :meth:`is_by_bootupd`."""
        return f"{self.title} by bootupd" if self.is_by_bootupd(has) else self.title

    def check_kernel_arguments(self, arguments: tuple[str, ...]) -> None:
        """Check that the loader can pass these arguments on to the kernel. Most can pass all.

        Raises:
            InstallRefused: it cannot.
        """
        return

    def check_boot_type(self, boot_type: BootType) -> None:
        """Check that the loader can start this kind of kernel. The default accepts all.

        Raises:
            InstallRefused: it cannot.
        """
        return

    def boot_dirs(self, target: BootTarget, boot_type: BootType) -> BootDirs:
        """Return the scheme of the installation, and its directories."""

    def record(self, target: BootTarget) -> BootRecord:
        """Return the record for the origin, by which later commands know the loader."""

    def write_programs(
        self, deployment: NewDeployment, target: BootTarget, boot: BootDirs, sink: Sink
    ) -> None:
        """Write the programs of the loader and their configuration. Nothing boots yet.

        Raises:
            Error, OSError: a program is missing, or writing failed.
        """

    def program_sizes(self, tree: Directory, *, generic: bool) -> Mapping[str, int]:
        """Return the sizes in bytes of the programs that :meth:`write_programs` writes to the ESP.

        The keys name the files in messages.

        Args:
            tree: The tree of the image.
            generic: As in :class:`NewDeployment`.
        """
        return {}

    def kernel_sizes(self, resource: BootResource) -> Mapping[str, int]:
        """Return the sizes in bytes of all that :meth:`write_kernel` and :meth:`commit` write.

        The menu does not count. The keys name the files in messages.
        """
        return resource.sizes

    def write_kernel(self, deployment: NewDeployment, boot: BootDirs) -> str:
        """Write the kernel of the deployment, and return its boot digest.

        Raises:
            NoSpaceOnBoot: it does not fit.
            Error, OSError: it is damaged, or writing failed.
        """

    def commit(self, deployment: NewDeployment, target: BootTarget, boot: BootDirs) -> None:
        """Make the machine boot the deployment: the commit point of the installation.

        Raises:
            Error, OSError: writing failed.
        """

    def boots(self, target: BootTarget) -> bool:
        """Tell whether the machine boots a deployment in the root file system of the target.

        This reads what :meth:`commit` wrote last. The default looks for an entry in the live menu.
        A loader with another commit point has to look there.

        Args:
            target: File systems of an installation that was killed; they may be read-only. There
                is an ESP if :attr:`needs_esp` says so.

        Raises:
            Error, OSError: the file systems cannot be read.
        """
        schemes = (self.boot_dirs(target, kind) for kind in (BootType.BLS, BootType.UKI))
        return any(installed_menu.boots(dirs, target.root) for dirs in schemes)
