"""The boot loaders, and which of them started this machine.

Boot loaders that speak the Boot Loader Interface leave their name in the EFI
variable ``LoaderInfo``. There is no other record of what was installed, so a
machine without that variable counts as started by GRUB, as upstream has it.
"""

from __future__ import annotations

import enum

from bootc.kernel import efivars

#: Vendor of the Boot Loader Interface's variables.
LOADER_GUID = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"


class Bootloader(enum.StrEnum):
    """A boot loader, by its name in the Host schema."""

    GRUB = "grub"
    GRUB_CC = "grub-cc"
    SYSTEMD = "systemd"


def identify(loader_info: bytes | None) -> Bootloader:
    """Tell the boot loader from the payload of ``LoaderInfo`` (UTF-16LE text)."""
    if loader_info is None:
        return Bootloader.GRUB
    text = loader_info.decode("utf-16-le", "replace").lower()
    if "systemd-boot" in text:
        return Bootloader.SYSTEMD
    return Bootloader.GRUB_CC if "grub cc" in text else Bootloader.GRUB


def running_bootloader(*, efivars_root: str = efivars.EFIVARS) -> Bootloader:
    """Tell which boot loader started the running system.

    Raises:
        OSError: the variable exists but cannot be read.
    """
    return identify(efivars.read_variable("LoaderInfo", LOADER_GUID, root=efivars_root))
