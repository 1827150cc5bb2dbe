"""Replacing the boot menu: the next one is written, and takes the place of the live one.

Promises, on FAT, which has no journal:

* what the boot loader reads as the menu is never written to. The next menu is written
  beside it and takes its place in one step, :func:`commit_staged`, the moment from which
  the machine boots otherwise;
* everything here can be interrupted anywhere and done again. Committing twice is
  committing once, although exchanging directories twice would be nothing;
* what is not ours in a menu comes along, as it is at the moment of the commit.

Other implementations write the same menus and exchange them too, so that nothing in a
menu can say how far its writer came. The two menus are told apart by what they boot:
whoever commits says which deployment the live one shall boot by default. That a staged
menu is complete is known from the announcement in ``/run`` (:mod:`bootc.deploy.finalize`),
or by having just written it. GRUB's ``user.cfg`` is a file, which a rename replaces here
and an exchange does elsewhere.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable

from bootc.boot import scheme as schemes
from bootc.boot.foreign_entries import carry_foreign
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

_log = logging.getLogger(__name__)


class NotStaged(Error):
    """The staged menu is not there, or does not boot what it should."""


def whole_file(dirs: BootDirs, entries: Iterable[MenuEntry]) -> bytes:
    """Return GRUB's menu of these entries and what others have put into the live one.

    Raises:
        OSError: the live one cannot be read.
    """
    try:
        data = dirs.menu.read_bytes(dirs.scheme.entries, MAX_MENU_BYTES)
        foreign = [entry for entry in grubcfg.parse_menu(data) if is_foreign(entry)]
        settings = grubcfg.parse_settings(data)
    except (FileNotFoundError, GrubCfgError):
        return grubcfg.serialise_menu(entries)
    return grubcfg.serialise_menu([*entries, *foreign], settings)


def write_staged(dirs: BootDirs, files: Iterable[tuple[str, bytes]]) -> None:
    """Write the staged menu, in place of an older one; it is on the disk afterwards.

    Args:
        dirs: Where.
        files: What :func:`bootc.boot.menu_compose.compose_menu` returned.

    Raises:
        OSError: writing failed. There is no staged menu then.
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
    """Put the staged menu in the place of the live one, if that has not been done yet.

    When it returns the change is on the disk. That the menu of before cannot be
    deleted does not make it fail; the next one to be staged tries again.

    Args:
        dirs: Where.
        first: The deployment that the live menu shall boot by default. The staged menu does so
            before the exchange, and the menu of before, which has its name afterwards, does not.

    Returns:
        False when the live menu boots that deployment by default already.

    Raises:
        NotStaged: neither menu does.
        OSError: reading or writing failed; the live menu is the old one then, unless it
            was the last sync that failed.
    """
    with doing(f"Replacing the boot menu {dirs.menu.path}/{dirs.scheme.entries}"):
        committing = _boots(dirs, dirs.scheme.staged, first)
        if committing and dirs.scheme.menu_is_file:
            _commit_file(dirs)
        elif committing:
            _commit_directory(dirs)
        elif not _boots(dirs, dirs.scheme.entries, first):
            raise _not_staged(dirs, first)
    try:
        _clean_up(dirs)
    except OSError as exc:
        _log.warning("the boot menu of before stays for now: %s", one_line(exc))
    return committing


def discard_staged(dirs: BootDirs) -> None:
    """Delete the staged menu, whatever state it is in; none is fine.

    The caller has withdrawn the announcement of it: a half of it would be taken for the whole.

    Raises:
        OSError: it cannot be deleted.
    """
    with doing(f"Deleting {dirs.menu.path}/{dirs.scheme.staged}"):
        _clean_up(dirs)


def remove_entry(dirs: BootDirs, item: Item) -> None:
    """Remove an entry of the live menu, and any other that boots the same deployment.

    That the rest still has one to boot by default is up to the caller.

    Raises:
        OSError: it cannot be removed.
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
                    for entry in files_of(directory, item.deployment):
                        directory.unlink(entry)
                os.fsync(directory.fileno())


def _remove_from_file(directory: Dir, name: str, deployment: Digest) -> None:
    try:
        data = directory.read_bytes(name, MAX_MENU_BYTES)
        entries = grubcfg.parse_menu(data)
    except (FileNotFoundError, GrubCfgError):
        return  # Nothing in there can be booted.
    kept = [e for e in entries if schemes.uki_artifact(e.chainloader or "") != deployment.hex]
    if len(kept) != len(entries):
        menu = grubcfg.serialise_menu(kept, grubcfg.parse_settings(data))
        write_stream(directory, name, [menu])


def _write_directory(dirs: BootDirs, files: Iterable[tuple[str, bytes]]) -> None:
    with dirs.menu.ensure_dir(dirs.scheme.staged) as staged:
        for name, data in files:
            atomic.write_file(staged, name, data, durable=True)
        _carry(dirs, staged)
        dirs.menu.sync()


def _boots(dirs: BootDirs, path: str, deployment: Digest) -> bool:
    return read_menu_at(dirs, path).deployments[:1] == (deployment,)


def _not_staged(dirs: BootDirs, first: Digest) -> NotStaged:
    path = dirs.scheme.staged
    reasons = [finding.text for finding in read_menu_at(dirs, path).findings]
    reason = f": {reasons[0]}" if reasons else ""
    return NotStaged(
        f"the staged boot menu {dirs.menu.path}/{path} does not boot deployment {first}{reason}",
        hint="stage it again: bootc upgrade",
    )


def _commit_directory(dirs: BootDirs) -> None:
    menu, live, path = dirs.menu, dirs.scheme.entries, dirs.scheme.staged
    menu.ensure_dir(live).close()
    with menu.open_dir(path) as staged:
        _carry(dirs, staged)
        if staged.exists(OLD_MARK):
            staged.unlink(OLD_MARK)
    menu.sync()
    parent, _, name = live.rpartition("/")
    with menu.open_dir(parent) as directory:
        atomic.exchange(directory, path.rpartition("/")[2], name)
    # Not fsync of the parent: FAT keeps an exchange in the two inodes until they are written.
    menu.sync()


def _clean_up(dirs: BootDirs) -> None:
    """Delete what has the name of the staged menu."""
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
            # GRUB stops at the error too, so that nothing is lost which could be booted.
            _log.warning("replacing the damaged %s: %s", dirs.scheme.entries, exc.message)
    parent, _, name = dirs.scheme.staged.rpartition("/")
    with dirs.menu.ensure_dir(parent) as directory:
        write_stream(directory, name, [whole_file(dirs, entries)])


def _commit_file(dirs: BootDirs) -> None:
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
