"""The menu of a machine without a boot loader.

The commit point is one write of ``BootOrder``. The files on the ESP are the record of the menu,
and have the staged menu (:mod:`bootc.boot.firmware_order`). They follow after the commit, with the
fallback. If that fails or is interrupted, :meth:`FirmwareMenu.refresh` does it at the next boot.

Where the variables cannot be written, the firmware starts the fallback, and replacing it is the
commit point.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bootc.boot import menu_write
from bootc.boot.fallback import (
    fallback_artifacts,
    fallback_bytes,
    has_other_addons,
    write_fallback,
)
from bootc.boot.firmware_entries import Firmware, placed
from bootc.boot.firmware_order import in_order, our_entries, read_started
from bootc.boot.menu_compose import NewItem
from bootc.boot.menu_files import FilesMenu
from bootc.boot.menu_read import Item, Menu, program_of, read_files
from bootc.boot.scheme import BootDirs
from bootc.errors import Error, doing, one_line
from bootc.formats import bls
from bootc.formats.digest import Digest

_log = logging.getLogger(__name__)

#: The memory of a firmware is small.
_MAX_TITLE = 64
#: Characters of a deployment id in the description of an entry.
_SHORT_ID = 8


class NoCommit(Error):
    """The firmware cannot be made to start another deployment."""


@dataclass(frozen=True, slots=True)
class FirmwareMenu:
    """The boot entries of the firmware. :class:`bootc.boot.menu.BootMenu` has the API."""

    dirs: BootDirs
    firmware: Firmware

    def write_staged(self, order: Sequence[NewItem | Item]) -> None:
        """Write the staged menu to the ESP. The firmware does not know of it."""
        self._files.write_staged(order)

    def commit(self, first: Digest) -> bool:
        """Write ``BootOrder``, then the record, the fallback and the remaining variables."""
        staged = read_files(self.dirs, staged=True)
        live = read_started(self.dirs, self.firmware)
        committing = _starts(staged, first)
        if committing:
            self._start(staged.items)
        elif not _starts(live, first):
            raise menu_write.not_staged(self.dirs, first)
        self._follow(staged.items if committing else live.items, first)
        return committing and not _starts(live, first)

    def discard_staged(self) -> None:
        """Delete the staged menu from the ESP."""
        self._files.discard_staged()

    def remove_entry(self, item: Item) -> None:
        """Take the entry out of ``BootOrder``, then out of the record."""
        live = read_started(self.dirs, self.firmware).items
        rest = [other for other in live if other.deployment != item.deployment]
        if self.firmware.is_writable:
            with doing(f"Removing the boot entry {item.name!a}"):
                self._write_order(rest)
        self._files.remove_entry(item)
        self._tidy(rest)

    def remove_recounted(self, name: str) -> None:
        """Remove the file of the repeated entry."""
        self._files.remove_recounted(name)

    def refresh(self) -> None:
        """Give the firmware what it has lost, and the record and the fallback what they lack.

        ``BootOrder`` decides the order, which an administrator may have changed. If it has no
        entry of ours, the record decides.

        Raises:
            Error, OSError: the firmware or the ESP cannot be read or written.
        """
        with doing("Comparing the boot entries of the firmware with the boot menu"):
            record = read_files(self.dirs, staged=False).items
            writable = self.firmware.is_writable
            lost = writable and not in_order(self.firmware)
            items = record if lost else read_started(self.dirs, self.firmware).items
            if not items:
                return
            if writable:
                self._write_order(items)
            # The staged menu may be announced. It replaces the record anyway.
            if items != record and not self.dirs.menu.exists(self.dirs.scheme.staged):
                self._files.write_staged(items)
                self._files.commit(items[0].deployment)
            self._tidy(items)

    def copies_bytes(self, order: Sequence[NewItem | Item]) -> int:
        """Return the size of the next fallback, which exists beside the old one for a moment."""
        menu = [item.artifact for item in order]
        return sum(fallback_bytes(self.dirs, name, menu) for name in menu[1:2] if name)

    def check_kernel(self, sizes: Mapping[str, int]) -> None:
        """Accept all kernels: the firmware reads them from the boot partition."""

    @property
    def _files(self) -> FilesMenu:
        return FilesMenu(self.dirs)

    def _start(self, items: Sequence[Item]) -> None:
        """Have the firmware start the first of these. This is the commit point."""
        path = program_of(items[0].entry)
        if items[0].artifact is None or path is None:
            raise _no_program(items[0])
        if not self._has(path):
            raise NoCommit(
                f"{self.dirs.binaries.path}{path} is missing, which the firmware would start",
                hint="restore the file, or stage the deployment again: bootc upgrade",
            )
        if self.firmware.is_writable:
            with doing("Writing the boot order of the firmware"):
                self._write_order(items)
            return
        if in_order(self.firmware):
            raise NoCommit(
                "the boot order of the firmware cannot be written",
                hint="mount /sys/firmware/efi/efivars for writing",
            )
        # The firmware starts the fallback.
        if has_other_addons(self.dirs, items[0].artifact):
            raise NoCommit(
                "the variables of the firmware cannot be written, and the next deployment has "
                "other add-ons; the boot program and its add-ons cannot be replaced in one step",
                hint="mount /sys/firmware/efi/efivars for writing",
            )
        # Until it is replaced the old one is needed, whichever it is.
        write_fallback(self.dirs, items[0].artifact, fallback_artifacts(self.dirs))

    def _write_order(self, items: Sequence[Item]) -> None:
        """Write missing entries, and then the order, if it differs."""
        numbers = []
        for item in items:
            path = program_of(item.entry)
            # The menu may have kernels of a boot loader that was there before.
            if item.artifact is not None and path is not None and self._has(path):
                numbers.append(self.firmware.write_entry(path, _description(item)))
        order = self.firmware.order()
        ours = {option.number for option in our_entries(self.firmware)}
        wanted = placed(order, ours, numbers)
        if wanted != order:
            self.firmware.write_order(wanted)

    def _has(self, path: str) -> bool:
        return self.dirs.binaries.exists(path.lstrip("/"))

    def _follow(self, items: Sequence[Item], first: Digest) -> None:
        """Bring everything else to the state of a commit. The machine boots without it."""
        try:
            self._files.commit(first)
        except (Error, OSError) as exc:
            _log.warning("the record of the boot menu is old for now: %s", one_line(exc))
        self._tidy(items)

    def _tidy(self, items: Sequence[Item]) -> None:
        """Remove variables of deployments that are gone, and renew the fallback."""
        try:
            if self.firmware.is_writable:
                used = set(self.firmware.order())
                for option in our_entries(self.firmware):
                    if option.number not in used:
                        self.firmware.remove_entry(option.number)
                menu = [item.artifact for item in items]
                # The second deployment has booted here.
                for name in menu[1:2] or menu[:1]:
                    if name is not None:
                        write_fallback(self.dirs, name, menu)
        except (Error, OSError) as exc:
            # A clean-up tries again, and the status shows what is missing.
            _log.info("the firmware is not tidied yet: %s", one_line(exc))


def _starts(menu: Menu, deployment: Digest) -> bool:
    return any(item.boots(deployment) for item in menu.items[:1])


def _description(item: Item) -> str:
    title = item.entry.title if isinstance(item.entry, bls.Entry) else item.name
    return f"bootc {(title or 'deployment')[:_MAX_TITLE]} {item.deployment.hex[:_SHORT_ID]}"


def _no_program(item: Item) -> NoCommit:
    return NoCommit(
        f"the firmware starts only unified kernel images, and {item.name!a} is not one",
        hint=f"delete it first: bootc delete-deployment {item.deployment}",
    )
