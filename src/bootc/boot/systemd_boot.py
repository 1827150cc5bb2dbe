"""The version of the installed systemd-boot.

The version of ``bootctl`` does not matter, nor does the loader that started the machine this
time: the next boot starts the program on the ESP. EFI programs of systemd contain their name
and version, which ``bootctl`` reads as well: ``#### LoaderInfo: systemd-boot 257.9 ####``.
"""

from __future__ import annotations

import fnmatch
import logging
import re

from bootc.errors import doing, one_line
from bootc.fs.dir import Dir

_log = logging.getLogger(__name__)

#: Where bootctl installs systemd-boot, one program for each kind of machine.
_PROGRAMS = "EFI/systemd"
_PROGRAM = "systemd-boot*.efi"
_PROGRAM_MAX_BYTES = 16 << 20
_LOADER_INFO = re.compile(rb"#### LoaderInfo: systemd-boot (\d{1,9})[^#]{0,256}####")


def program_version(program: bytes) -> int:
    """Return the major version of systemd-boot, or 0 for another program."""
    match = _LOADER_INFO.search(program)
    return int(match[1]) if match else 0


def loader_programs(esp: Dir) -> tuple[str, ...]:
    """Return the paths of the systemd-boot programs on an ESP; none if it has none.

    Raises:
        OSError: the directory cannot be read.
    """
    try:
        with doing(f"Reading {esp.path}/{_PROGRAMS}"), esp.open_dir(_PROGRAMS) as directory:
            # FAT ignores the case of letters.
            return tuple(
                f"{_PROGRAMS}/{name}"
                for name in directory.names()
                if fnmatch.fnmatchcase(name.lower(), _PROGRAM)
            )
    except (FileNotFoundError, NotADirectoryError):
        return ()


def installed_version(esp: Dir) -> int:
    """Return the major version of the systemd-boot on an ESP, or 0 if it is unknown.

    Of several versions the lowest counts, because newer ones understand the same menu. An
    unreadable program is no failure: version 0 gives a menu that every version understands.
    """
    try:
        return min(
            (
                program_version(esp.read_bytes(path, _PROGRAM_MAX_BYTES))
                for path in loader_programs(esp)
            ),
            default=0,
        )
    except OSError as exc:
        _log.debug("the version of systemd-boot is unknown: %s", one_line(exc))
        return 0
