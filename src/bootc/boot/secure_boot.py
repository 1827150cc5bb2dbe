"""What the firmware says of Secure Boot, and the programs that it should check, as values.

Nothing in bootc verifies a signature; the firmware does. A signature that is missing tells that the
firmware cannot have checked the program. :mod:`bootc.boot.boot_programs` finds the programs.

Source: UEFI specification 2.10, "Globally Defined Variables".
"""

from __future__ import annotations

from dataclasses import dataclass

from bootc.kernel import efivars


@dataclass(frozen=True, slots=True)
class SecureBoot:
    """The state of the firmware; None if it does not say.

    Attributes:
        enabled: The firmware starts only programs that it trusts.
        setup_mode: Anybody may replace its keys.
    """

    enabled: bool | None = None
    setup_mode: bool | None = None

    @property
    def enforced(self) -> bool:
        """Whether the firmware checks what it starts, by keys that are its owner's."""
        return self.enabled is True and self.setup_mode is False


@dataclass(frozen=True, slots=True)
class Program:
    """An EFI program on a boot partition.

    Attributes:
        path: Its path there.
        signed: Whether it has a signature; None if it cannot be read.
    """

    path: str
    signed: bool | None


@dataclass(frozen=True, slots=True)
class BootPrograms:
    """The programs that start the booted deployment.

    Attributes:
        loaders: The programs of the boot loader; empty if they are not on an open file system.
        uki: The unified kernel image, if the deployment has one.
        addons: The add-ons that its stub finds.
    """

    loaders: tuple[Program, ...] = ()
    uki: Program | None = None
    addons: tuple[Program, ...] = ()


def read_secure_boot(*, efivars_root: str = efivars.EFIVARS) -> SecureBoot:
    """Read the state of the firmware; on a machine without UEFI nothing is known.

    Raises:
        OSError: a variable exists but cannot be read.
    """

    def flag(name: str) -> bool | None:
        return efivars.read_flag(name, efivars.GLOBAL_GUID, root=efivars_root)

    return SecureBoot(flag("SecureBoot"), flag("SetupMode"))
