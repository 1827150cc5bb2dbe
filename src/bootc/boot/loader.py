"""The boot loaders, and which of them started this machine.

Boot loaders with the Boot Loader Interface write their name into the EFI variable
``LoaderInfo``. Old versions of GRUB do not, and without a boot loader nobody does. Therefore the
installer records the loader in the origin, and the traces of systemd-stub tell other cases
apart:

===================================  ============================  ========
started by                           LoaderInfo                    StubInfo
===================================  ============================  ========
systemd-boot, kernel (or UKI)        ``systemd-boot 257.13``       - (yes)
GRUB 2.14, kernel (or UKI)           ``GRUB 2.14``                 - (yes)
GRUB 2.06 and 2.12, kernel           -                             -
GRUB 2.12, UKI                       -                             yes
the firmware or ukiboot, UKI         -                             yes
===================================  ============================  ========

Like upstream, bootc takes a machine without any trace for one that GRUB started.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from bootc.kernel import efivars
from bootc.kernel.efivars import LOADER_GUID

#: ukiboot starts a slot under an invented path.
_UKIBOOT_SLOT = re.compile(r"(?:.*/)?ukiboot_[ab]\.efi\Z", re.IGNORECASE)
_PARTUUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")


class Bootloader(enum.StrEnum):
    """The boot loaders, by their names in the Host schema."""

    GRUB = "grub"
    GRUB_CC = "grub-cc"
    SYSTEMD = "systemd"
    #: The firmware starts unified kernel images.
    NONE = "none"
    #: It starts one of two partitions.
    UKIBOOT = "ukiboot"

    @property
    def sorts_by_key(self) -> bool:
        """Whether the key ``sort-key`` gives the order of entries, not the file name."""
        return self in (Bootloader.SYSTEMD, Bootloader.NONE)


@dataclass(frozen=True, slots=True)
class LoaderTraces:
    """What the loader that started the machine left in the variables of the firmware.

    Attributes:
        loader: The loader, if ``LoaderInfo`` names one that bootc knows.
        stub_image: If systemd-stub ran without such a loader: the path of the unified kernel
            image, with ``/`` between the names. It may be empty.
        partition: The PARTUUID of the partition that the loader or the stub was read from.
    """

    loader: Bootloader | None = None
    stub_image: str | None = None
    partition: str | None = None


def named_loader(loader_info: bytes | None) -> Bootloader | None:
    """Return the boot loader that the content of ``LoaderInfo`` (UTF-16LE text) names.

    The result is None for a loader that bootc does not know.
    """
    text = _text(loader_info).lower()
    if "systemd-boot" in text:
        return Bootloader.SYSTEMD
    if "grub cc" in text:
        return Bootloader.GRUB_CC
    return Bootloader.GRUB if "grub" in text else None


def read_traces(*, efivars_root: str = efivars.EFIVARS) -> LoaderTraces:
    """Read the traces of the loader that started the running system.

    Raises:
        OSError: a variable exists but cannot be read.
    """

    def variable(name: str) -> bytes | None:
        return efivars.read_variable(name, LOADER_GUID, root=efivars_root)

    loader_info, stub_image = variable("LoaderInfo"), None
    if loader_info is None and variable("StubInfo") is not None:
        stub_image = _text(variable("LoaderImageIdentifier")).replace("\\", "/")
    partition = _text(variable("LoaderDevicePartUUID")).lower()
    return LoaderTraces(
        loader=named_loader(loader_info),
        stub_image=stub_image,
        partition=partition if _PARTUUID.match(partition) else None,
    )


def identify(
    traces: LoaderTraces, *, recorded: str | None = None, our_uki: bool = False
) -> Bootloader:
    """Return the boot loader of a machine.

    Args:
        traces: The traces of the loader that started the machine.
        recorded: The name in the record of the installation, if there is one.
        our_uki: :attr:`LoaderTraces.stub_image` is a unified kernel image of ours, and the machine
            has no GRUB that can have started it.
    """
    if traces.loader is not None:
        return traces.loader
    if recorded in list(Bootloader):
        return Bootloader(recorded)
    if _UKIBOOT_SLOT.match(traces.stub_image or ""):
        return Bootloader.UKIBOOT
    return Bootloader.NONE if our_uki else Bootloader.GRUB


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-16-le", "replace").partition("\0")[0]
