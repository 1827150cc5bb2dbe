"""The menu of a machine with several ESPs: the mirrors first, then the main one.

The commit point is that of the menu of the main ESP. :mod:`bootc.boot.mirrors` has the order of the
writes and their reasons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bootc.boot import mirrors
from bootc.boot.menu_compose import NewItem
from bootc.boot.menu_read import Item, read_files
from bootc.boot.scheme import BootDirs
from bootc.errors import Error
from bootc.formats.digest import Digest

if TYPE_CHECKING:
    from bootc.boot.menu_files import FilesMenu
    from bootc.boot.menu_firmware import FirmwareMenu


@dataclass(frozen=True, slots=True)
class MirroredMenu:
    """The menus of all ESPs. :class:`bootc.boot.menu.BootMenu` has the API."""

    dirs: BootDirs
    main: FilesMenu | FirmwareMenu

    def write_staged(self, order: Sequence[NewItem | Item]) -> None:
        """Write the staged menu to the main ESP. The mirrors get it with the commit."""
        self.main.write_staged(order)

    def commit(self, first: Digest) -> bool:
        """Bring the mirrors to the new menu, then commit that of the main ESP."""
        staged = read_files(self.dirs, staged=True).items[:1]
        mirrors.synchronise(self.dirs, staged=any(item.boots(first) for item in staged))
        try:
            return self.main.commit(first)
        except (Error, OSError):
            # If the main ESP has the old menu, the mirrors get it back.
            mirrors.synchronise(self.dirs)
            raise

    def discard_staged(self) -> None:
        """Delete the staged menu."""
        self.main.discard_staged()

    def remove_entry(self, item: Item) -> None:
        """Remove the entry from the mirrors, then from the main ESP."""
        mirrors.synchronise(self.dirs, without=item.deployment)
        self.main.remove_entry(item)

    def remove_recounted(self, name: str) -> None:
        """Remove the file of the repeated entry. Each ESP has boot counters of its own."""
        self.main.remove_recounted(name)

    def refresh(self) -> None:
        """Bring what depends on the menu of the main ESP to its state, and then the mirrors."""
        before = read_files(self.dirs, staged=False).items
        self.main.refresh()
        if read_files(self.dirs, staged=False).items != before:
            mirrors.synchronise(self.dirs)

    def copies_bytes(self, order: Sequence[NewItem | Item]) -> int:
        """Return how many bytes a commit writes to the main ESP."""
        return self.main.copies_bytes(order)

    def check_kernel(self, sizes: Mapping[str, int]) -> None:
        """Check that the loader has a place for a new kernel."""
        self.main.check_kernel(sizes)
