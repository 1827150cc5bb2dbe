"""Writes the next boot menu beside the live menu, and replaces the live menu with it.

Promises, also on FAT, which has no journal:

* bootc never writes to the live menu, except to remove an entry. It writes the next menu beside
  it, as the staged menu. :func:`commit_staged` replaces the live menu in one step. This step is
  the commit point: from then on the machine boots the new menu.
* Each call can be interrupted at any point and repeated. Committing twice has the same effect as
  committing once.
* The new menu has the foreign entries of the live menu, as they are at the commit. Its entries
  have the boot counters that their entries in the live menu have at the commit.
* Where GRUB reads a generated menu, it is in the directory of the entries that it is generated
  from. Therefore one exchange replaces both.

Another implementation may write and exchange the same menus. Therefore nothing inside a menu can
say how far its writer got. The deployment that a menu boots by default tells the two menus apart.
The announcement in ``/run`` says that a staged menu is complete (:mod:`bootc.deploy.finalize`).
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable

from bootc.boot import scheme as schemes
from bootc.boot.foreign_entries import carry_foreign
from bootc.boot.menu_generate import generate_menu
from bootc.boot.menu_read import (
    MAX_MENU_BYTES,
    OLD_MARK,
    Item,
    files_of,
    is_foreign,
    read_menu_at,
)
from bootc.boot.scheme import USER_CFG, BootDirs
from bootc.errors import Error, doing, one_line
from bootc.formats import grubcfg
from bootc.formats.digest import Digest
from bootc.formats.grubcfg import GrubCfgError, MenuEntry
from bootc.fs import atomic
from bootc.fs.atomic import write_stream
from bootc.fs.dir import Dir

#: How often a commit reads the live menu again because another program changed it.
_MAX_ROUNDS = 5

_log = logging.getLogger(__name__)


class NotStaged(Error):
    """The staged menu does not exist, or does not boot the expected deployment."""


def whole_file(dirs: BootDirs, entries: Iterable[MenuEntry]) -> bytes:
    """Return GRUB's menu file of these entries, with the foreign parts of the live menu.

    Raises:
        OSError: the live menu cannot be read.
    """
    try:
        data = dirs.menu.read_bytes(dirs.scheme.entries, MAX_MENU_BYTES)
        foreign = [entry for entry in grubcfg.parse_menu(data) if is_foreign(entry)]
        settings = grubcfg.parse_settings(data)
    except (FileNotFoundError, GrubCfgError):
        return grubcfg.serialise_menu(entries)
    return grubcfg.serialise_menu([*entries, *foreign], settings)


def write_staged(dirs: BootDirs, files: Iterable[tuple[str, bytes]]) -> None:
    """Write the staged menu in place of an older one. It is on the disk when this returns.

    Args:
        dirs: The boot partition.
        files: The result of :func:`bootc.boot.menu_compose.compose_menu`.

    Raises:
        OSError: writing failed. There is no staged menu afterwards.
    """
    discard_staged(dirs)
    menu, path = dirs.menu, dirs.scheme.staged
    with doing(f"Writing the next boot menu to {menu.path}/{path}"):
        try:
            if dirs.scheme.menu_is_file:
                _write_file(dirs, files)
            else:
                _write_directory(dirs, files)
        except BaseException:
            with contextlib.suppress(OSError):
                menu.remove_tree(path)
            raise


def commit_staged(dirs: BootDirs, first: Digest) -> bool:
    """Replace the live menu with the staged menu, unless this is already done.

    The change is on the disk when this returns. If deleting the old menu fails, the call still
    succeeds, and writing the next staged menu deletes it.

    Args:
        dirs: The boot partition.
        first: The deployment that the live menu boots by default afterwards.

    Returns:
        False if the live menu already boots this deployment by default.

    Raises:
        NotStaged: neither menu boots this deployment by default.
        OSError: reading or writing failed. The live menu is the old one, unless only the last
            sync failed.
    """
    with doing(f"Replacing the boot menu {dirs.menu.path}/{dirs.scheme.entries}"):
        # After an exchange the old menu has the name of the staged menu. It boots another
        # deployment, so a second call does not exchange the menus back.
        committing = _boots(dirs, dirs.scheme.staged, first)
        if committing and dirs.scheme.menu_is_file:
            _commit_file(dirs)
        elif committing:
            _commit_directory(dirs, first)
        elif not _boots(dirs, dirs.scheme.entries, first):
            raise not_staged(dirs, first)
    _keep_last(dirs)
    try:
        _clean_up(dirs)
    except OSError as exc:
        _log.warning("the old boot menu remains for now: %s", one_line(exc))
    return committing


def discard_staged(dirs: BootDirs) -> None:
    """Delete the staged menu in whatever state it is. A missing one is no error.

    The caller withdraws its announcement first. Otherwise a half-deleted menu would count as
    complete.

    Raises:
        OSError: deleting failed.
    """
    with doing(f"Deleting {dirs.menu.path}/{dirs.scheme.staged}"):
        _clean_up(dirs)


def remove_recounted(dirs: BootDirs, name: str) -> None:
    """Remove a name of the live menu that repeats an entry with an older boot counter.

    Raises:
        OSError: removing failed.
    """
    with (
        doing(f"Removing the repeated boot entry {name!a}"),
        dirs.menu.open_dir(dirs.scheme.entries) as directory,
    ):
        with contextlib.suppress(FileNotFoundError):
            directory.unlink(name)
        os.fsync(directory.fileno())


def remove_entry(dirs: BootDirs, item: Item) -> None:
    """Remove an entry of the live menu, and all others that boot the same deployment.

    The caller ensures that another entry remains to boot by default.

    Raises:
        OSError: removing failed.
    """
    with doing(f"Removing the boot entry {item.name!a}"):
        for live in dirs.scheme.menus:
            parent, _, name = live.rpartition("/")
            try:
                directory = dirs.menu.open_dir(parent if live == USER_CFG else live)
            except FileNotFoundError:
                continue
            with directory:
                if live == USER_CFG:
                    _remove_from_file(directory, name, item.deployment)
                else:
                    for entry in files_of(directory, item):
                        directory.unlink(entry)
                    _generate(dirs, directory)
                os.fsync(directory.fileno())
        _keep_last(dirs)


def _remove_from_file(directory: Dir, name: str, deployment: Digest) -> None:
    try:
        data = directory.read_bytes(name, MAX_MENU_BYTES)
        entries = grubcfg.parse_menu(data)
    except (FileNotFoundError, GrubCfgError):
        return  # GRUB boots nothing from this file either.
    kept = [e for e in entries if schemes.uki_artifact(e.chainloader or "") != deployment.hex]
    if len(kept) != len(entries):
        menu = grubcfg.serialise_menu(kept, grubcfg.parse_settings(data))
        write_stream(directory, name, [menu])


def _write_directory(dirs: BootDirs, files: Iterable[tuple[str, bytes]]) -> None:
    with dirs.menu.ensure_dir(dirs.scheme.staged) as staged:
        for name, data in files:
            atomic.write_file(staged, name, data, durable=True)
        _carry(dirs, staged)
        _generate(dirs, staged)
        dirs.menu.sync()


def _generate(dirs: BootDirs, directory: Dir) -> None:
    """Generate GRUB's menu of the entries in a directory, if GRUB reads a generated menu."""
    if not dirs.scheme.generated:
        return
    menu = generate_menu(directory, dirs.scheme)
    for finding in menu.findings:
        _log.warning("GRUB's menu lacks the boot entry %s: %s", finding.subject, finding.text)
    _write_if_new(directory, schemes.GENERATED_MENU, menu.data)


def _keep_last(dirs: BootDirs) -> None:
    """Copy the live menu for GRUB, which reads the copy if another program's menu replaces it."""
    if not dirs.scheme.generated or dirs.scheme.menu_is_file:
        return
    path = f"{dirs.scheme.entries}/{schemes.GENERATED_MENU}"
    parent, _, name = schemes.LAST_MENU.rpartition("/")
    try:
        data = dirs.menu.read_bytes(path, MAX_MENU_BYTES)
        with dirs.menu.ensure_dir(parent) as directory:
            _write_if_new(directory, name, data)
    except OSError as exc:
        _log.warning("the copy of the boot menu is an older one: %s", one_line(exc))


def _write_if_new(directory: Dir, name: str, data: bytes) -> None:
    # A file that cannot be read is replaced.
    with contextlib.suppress(OSError):
        if directory.read_bytes(name, MAX_MENU_BYTES) == data:
            return
    write_stream(directory, name, [data])


def _boots(dirs: BootDirs, path: str, deployment: Digest) -> bool:
    return any(item.boots(deployment) for item in read_menu_at(dirs, path).items[:1])


def not_staged(dirs: BootDirs, first: Digest) -> NotStaged:
    """Return the error that the staged menu does not boot a deployment."""
    path = dirs.scheme.staged
    reasons = [finding.text for finding in read_menu_at(dirs, path).findings]
    reason = f": {reasons[0]}" if reasons else ""
    return NotStaged(
        f"the staged boot menu {dirs.menu.path}/{path} does not boot deployment {first}{reason}",
        hint="stage it again: bootc upgrade",
    )


def _commit_directory(dirs: BootDirs, first: Digest) -> None:
    menu, live, path = dirs.menu, dirs.scheme.entries, dirs.scheme.staged
    menu.ensure_dir(live).close()
    with menu.open_dir(path) as staged, menu.open_dir(live) as current:
        if staged.exists(OLD_MARK):
            staged.unlink(OLD_MARK)
        for _ in range(_MAX_ROUNDS):
            names = current.names()
            carry_foreign(current, staged)
            if dirs.scheme.counts_boots:
                _carry_counters(dirs, staged, first)
            _generate(dirs, staged)
            menu.sync()
            # systemd-bless-boot renames the entry of the running system when it has booted.
            if current.names() == names:
                break
    parent, _, name = live.rpartition("/")
    with menu.open_dir(parent) as directory:
        atomic.exchange(directory, path.rpartition("/")[2], name)
    # Not fsync of the parent: FAT keeps an exchange in the two inodes until it writes them.
    menu.sync()


def _carry_counters(dirs: BootDirs, staged: Dir, first: Digest) -> None:
    """Give the staged entries the boot counters of their live entries."""
    live = {item.deployment: item for item in read_menu_at(dirs, dirs.scheme.entries).items}
    for item in read_menu_at(dirs, dirs.scheme.staged).items:
        if item.deployment in live:
            counted, is_default = live[item.deployment].name, item.deployment == first
            name = schemes.with_kept_counter(item.name, counted, is_default=is_default)
            if name != item.name and not staged.exists(name):
                staged.rename(item.name, name)


def _clean_up(dirs: BootDirs) -> None:
    """Delete the staged menu, or an old menu with its name."""
    with contextlib.suppress(FileNotFoundError):
        dirs.menu.remove_tree(dirs.scheme.staged)


def _carry(dirs: BootDirs, staged: Dir) -> None:
    try:
        live = dirs.menu.open_dir(dirs.scheme.entries)
    except FileNotFoundError:
        return
    with live:
        carry_foreign(live, staged)


def _write_file(dirs: BootDirs, files: Iterable[tuple[str, bytes]]) -> None:
    entries = [entry for _, data in files for entry in grubcfg.parse_menu(data)]
    with contextlib.suppress(FileNotFoundError):
        try:
            grubcfg.parse_menu(dirs.menu.read_bytes(dirs.scheme.entries, MAX_MENU_BYTES))
        except GrubCfgError as exc:
            # GRUB also stops at the error, so nothing bootable is lost.
            _log.warning("replacing the damaged %s: %s", dirs.scheme.entries, exc.message)
    parent, _, name = dirs.scheme.staged.rpartition("/")
    with dirs.menu.ensure_dir(parent) as directory:
        write_stream(directory, name, [whole_file(dirs, entries)])


def _commit_file(dirs: BootDirs) -> None:
    # Here a rename replaces the menu. Another implementation may exchange the two files.
    menu, path = dirs.menu, dirs.scheme.staged
    data = menu.read_bytes(path, MAX_MENU_BYTES)
    entries = [entry for entry in grubcfg.parse_menu(data) if not is_foreign(entry)]
    parent, _, name = path.rpartition("/")
    with menu.open_dir(parent) as directory:
        current = whole_file(dirs, entries)
        if current != data:
            write_stream(directory, name, [current])
        directory.rename(name, dirs.scheme.entries.rpartition("/")[2])
    menu.sync()
