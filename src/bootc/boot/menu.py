"""The boot menu as it stands on the ESP: reading entries, whoever wrote them.

Promises: one entry that is damaged, foreign or in the way costs that entry and a
warning, never the menu. The ESP is shared with other systems and with
administrators' editors, and a machine must be able to show what it runs whatever
they did there.
"""

from __future__ import annotations

import logging

from bootc.boot.entries import NotOurEntry, deployment_of
from bootc.errors import one_line
from bootc.formats.bls import BlsError, Entry, menu_order, parse_entry
from bootc.formats.digest import Digest
from bootc.fs.dir import Dir

_log = logging.getLogger(__name__)

_SUFFIX = ".conf"
#: Our entries start with this; leaving one of them out is worth a warning.
_OUR_PREFIX = "bootc_"
_MAX_ENTRY_BYTES = 1 << 16


def read_menu(esp: Dir, relpath: str) -> list[tuple[str, Entry]]:
    """Return the (file name, entry) pairs of a directory of the ESP as the loader orders them.

    A directory that does not exist, or that cannot be read, holds no entries.
    """
    found = []
    try:
        with esp.open_dir(relpath) as directory:
            for name in directory.names():
                if name.endswith(_SUFFIX) and (entry := _read_entry(directory, name)):
                    found.append((name, entry))
    except (FileNotFoundError, NotADirectoryError):
        _log.debug("there are no boot entries in %s", relpath)
    except OSError as exc:
        _log.warning("ignoring the boot entries in %s: %s", relpath, one_line(exc))
    return menu_order(found)


def deployments(menu: list[tuple[str, Entry]]) -> list[Digest]:
    """Return the deployments that a menu starts, in its order and each once."""
    found: dict[Digest, None] = {}
    for name, entry in menu:
        try:
            found.setdefault(deployment_of(entry))
        except NotOurEntry as exc:
            level = logging.WARNING if name.startswith(_OUR_PREFIX) else logging.DEBUG
            _log.log(level, "ignoring boot entry %s: %s", ascii(name), exc)
    return list(found)


def _read_entry(directory: Dir, name: str) -> Entry | None:
    try:
        return parse_entry(directory.read_bytes(name, _MAX_ENTRY_BYTES))
    except (BlsError, OSError) as exc:
        _log.warning("ignoring boot entry %s: %s", ascii(name), one_line(exc))
        return None
