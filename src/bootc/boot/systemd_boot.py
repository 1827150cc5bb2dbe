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


def installed_version(esp: Dir) -> int:
    """Return the major version of the systemd-boot on an ESP, or 0 if it is unknown.

    Of several versions the lowest counts, because newer ones understand the same menu. An
    unreadable program is no failure: version 0 gives a menu that every version understands.
    """
    try:
        with doing(f"Reading {esp.path}/{_PROGRAMS}"), esp.open_dir(_PROGRAMS) as directory:
            return min(
                (
                    program_version(directory.read_bytes(name, _PROGRAM_MAX_BYTES))
                    for name in directory.names()
                    # FAT ignores the case of letters.
                    if fnmatch.fnmatchcase(name.lower(), _PROGRAM)
                ),
                default=0,
            )
    except OSError as exc:
        _log.debug("the version of systemd-boot is unknown: %s", one_line(exc))
        return 0
