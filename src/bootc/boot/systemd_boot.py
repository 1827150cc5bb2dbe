"""Which systemd-boot is installed.

What starts next time is the program on the ESP, whatever started this time and
whatever ``bootctl`` there is. systemd's EFI programs say what they are in bytes that
``bootctl`` itself goes by: ``#### LoaderInfo: systemd-boot 257.9 ####``.
"""

from __future__ import annotations

import fnmatch
import logging
import re

from bootc.errors import doing, one_line
from bootc.fs.dir import Dir

_log = logging.getLogger(__name__)

#: Where bootctl puts systemd-boot, one program for each kind of machine.
_PROGRAMS = "EFI/systemd"
_PROGRAM = "systemd-boot*.efi"
_PROGRAM_MAX_BYTES = 16 << 20
_LOADER_INFO = re.compile(rb"#### LoaderInfo: systemd-boot (\d{1,9})[^#]{0,256}####")


def program_version(program: bytes) -> int:
    """Return the major version of a systemd-boot, 0 for a program that does not say it is one."""
    match = _LOADER_INFO.search(program)
    return int(match[1]) if match else 0


def installed_version(esp: Dir) -> int:
    """Return the major version of the systemd-boot on an ESP, 0 where that is unknown.

    Of several the lowest counts: what it understands the others do too. Not knowing is no
    failure, since what the oldest understands all do.
    """
    try:
        with doing(f"Reading {esp.path}/{_PROGRAMS}"), esp.open_dir(_PROGRAMS) as directory:
            return min(
                (
                    program_version(directory.read_bytes(name, _PROGRAM_MAX_BYTES))
                    for name in directory.names()
                    # FAT does not know the case of letters.
                    if fnmatch.fnmatchcase(name.lower(), _PROGRAM)
                ),
                default=0,
            )
    except OSError as exc:
        _log.debug("the version of systemd-boot is unknown: %s", one_line(exc))
        return 0
