"""The boot menu of a machine: one protocol for all ways to start it.

Commands and plans do not ask which boot loader a machine has. :func:`read_menu` reads the menu
of any machine, and :func:`open_menu` returns what can change it.
``docs/adr/0017-one-menu-protocol.md`` has the reasons.

Every implementation promises:

* Writing the staged menu and dropping it change nothing that boots.
* :meth:`BootMenu.commit` has one commit point: one call to the kernel or to the firmware. Before
  it the machine boots the old menu, after it the new one.
* Each call can be interrupted at any point and repeated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from bootc.boot import menu_read
from bootc.boot.menu_read import Item, Menu
from bootc.boot.scheme import BootDirs
from bootc.formats.digest import Digest

if TYPE_CHECKING:
    from bootc.boot.menu_compose import NewItem


class BootMenu(Protocol):
    """The menu of a machine, to change it."""

    def write_staged(self, order: Sequence[NewItem | Item]) -> None:
        """Write the staged menu, in place of an older one. It is on the disk when this returns.

        Args:
            order: The deployments. The first shall boot by default.

        Raises:
            CannotCompose: the menu cannot have these entries.
            Error, OSError: writing failed. There is no staged menu.
        """
        ...

    def commit(self, first: Digest) -> bool:
        """Replace the live menu with the staged menu, unless this is already done.

        Args:
            first: The deployment that boots by default afterwards.

        Returns:
            False if the live menu already boots this deployment by default.

        Raises:
            NotStaged: neither menu boots this deployment by default.
            Error, OSError: the live menu is the old one, unless only the last sync failed.
        """
        ...

    def discard_staged(self) -> None:
        """Delete the staged menu in whatever state it is. A missing one is no error.

        Raises:
            OSError: deleting failed.
        """
        ...

    def remove_entry(self, item: Item) -> None:
        """Remove an entry of the live menu, and all others that boot the same deployment.

        Raises:
            Error, OSError: removing failed.
        """
        ...

    def remove_recounted(self, name: str) -> None:
        """Remove a name of the live menu that repeats an entry with an older boot counter.

        Raises:
            OSError: removing failed.
        """
        ...

    def refresh(self) -> None:
        """Bring what depends on the live menu to its state, if another program changed it.

        Raises:
            Error, OSError: reading or writing failed. The next call tries again.
        """
        ...

    def copies_bytes(self, order: Sequence[NewItem | Item]) -> int:
        """Return how many bytes a commit of this menu writes beside the menu and the kernels.

        Raises:
            OSError: the boot partition cannot be read.
        """
        ...

    def check_kernel(self, sizes: Mapping[str, int]) -> None:
        """Check that the loader has a place for a new kernel, beside the boot partition.

        Args:
            sizes: The bytes of each of its files, by name.

        Raises:
            NoSpaceOnBoot: it does not fit.
            Error, OSError: the place is unknown, or cannot be read.
        """
        ...


def read_menu(dirs: BootDirs, *, staged: bool) -> Menu:
    """Read the live menu of a machine, or its staged menu.

    Problems become findings, not exceptions. Only the announcement in ``/run`` says that a staged
    menu is complete, and for which deployment.
    """
    # Imported where needed: few machines have these menus, and bootc status has to be fast.
    if dirs.slots is not None:
        from bootc.boot.slots import read_live, read_staged

        return read_staged(dirs, dirs.slots) if staged else read_live(dirs.slots)
    if dirs.firmware is not None and not staged:
        from bootc.boot.firmware_order import read_started

        return read_started(dirs, dirs.firmware)
    menu = menu_read.read_files(dirs, staged=staged)
    if staged or not dirs.scheme.generated:
        return menu
    from bootc.boot.menu_generate import check_menu

    return dataclasses.replace(menu, findings=(*menu.findings, *check_menu(dirs)))


def open_menu(dirs: BootDirs) -> BootMenu:
    """Return the menu of a machine, to change it.

    Args:
        dirs: Its boot partition. The caller keeps it open.
    """
    # Imported here, because bootc status changes nothing and has to be fast.
    if dirs.slots is not None:
        from bootc.boot.menu_ukiboot import SlotMenu

        return SlotMenu(dirs, dirs.slots)
    main: FirmwareMenu | FilesMenu
    if dirs.firmware is not None:
        from bootc.boot.menu_firmware import FirmwareMenu

        main = FirmwareMenu(dirs, dirs.firmware)
    else:
        from bootc.boot.menu_files import FilesMenu

        main = FilesMenu(dirs)
    if not dirs.mirrors:
        return main
    from bootc.boot.menu_mirrored import MirroredMenu

    return MirroredMenu(dirs, main)
