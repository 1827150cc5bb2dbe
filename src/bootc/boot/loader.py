"""The boot loaders, and which of them started this machine.

Boot loaders with the Boot Loader Interface write their name into the EFI variable
``LoaderInfo``. There is no other record of the installed loader. Like upstream, bootc takes
a machine without this variable for one that GRUB started.
"""

from __future__ import annotations

import enum

from bootc.kernel import efivars

#: The vendor of the variables of the Boot Loader Interface.
LOADER_GUID = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"


class Bootloader(enum.StrEnum):
    """The boot loaders, by their names in the Host schema."""

    GRUB = "grub"
    GRUB_CC = "grub-cc"
    SYSTEMD = "systemd"


def identify(loader_info: bytes | None) -> Bootloader:
    """Return the boot loader that the content of ``LoaderInfo`` (UTF-16LE text) names."""
    if loader_info is None:
        return Bootloader.GRUB
    text = loader_info.decode("utf-16-le", "replace").lower()
    if "systemd-boot" in text:
        return Bootloader.SYSTEMD
    return Bootloader.GRUB_CC if "grub cc" in text else Bootloader.GRUB


def running_bootloader(*, efivars_root: str = efivars.EFIVARS) -> Bootloader:
    """Return the boot loader that started the running system.

    Raises:
        OSError: the variable exists but cannot be read.
    """
    return identify(efivars.read_variable("LoaderInfo", LOADER_GUID, root=efivars_root))
