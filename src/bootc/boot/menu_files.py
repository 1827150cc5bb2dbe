"""The menu of a boot loader that reads it from a file system.

The staged menu is written beside the live menu (:mod:`bootc.boot.menu_write`). The commit point
is the exchange of the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bootc.boot import menu_write
from bootc.boot.menu_compose import NewItem, compose_menu
from bootc.boot.menu_read import Item
from bootc.boot.scheme import BootDirs
from bootc.formats.digest import Digest


@dataclass(frozen=True, slots=True)
class FilesMenu:
    """The menu in the files of a boot partition. :class:`bootc.boot.menu.BootMenu` has the API."""

    dirs: BootDirs

    def write_staged(self, order: Sequence[NewItem | Item]) -> None:
        """Write the staged menu beside the live menu."""
        menu_write.write_staged(self.dirs, compose_menu(self.dirs.scheme, order))

    def commit(self, first: Digest) -> bool:
        """Exchange the two menus."""
        return menu_write.commit_staged(self.dirs, first)

    def discard_staged(self) -> None:
        """Delete the staged menu."""
        menu_write.discard_staged(self.dirs)

    def remove_entry(self, item: Item) -> None:
        """Remove the entry from its directory or file."""
        menu_write.remove_entry(self.dirs, item)

    def remove_recounted(self, name: str) -> None:
        """Remove the file of the repeated entry."""
        menu_write.remove_recounted(self.dirs, name)

    def refresh(self) -> None:
        """Do nothing: nobody else changes the menu."""

    def copies_bytes(self, order: Sequence[NewItem | Item]) -> int:
        """Return 0: the loader needs the menu and the kernels only."""
        return 0

    def check_kernel(self, sizes: Mapping[str, int]) -> None:
        """Accept all kernels: the loader reads them from the boot partition."""
