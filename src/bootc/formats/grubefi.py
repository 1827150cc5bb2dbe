"""GRUB as an EFI program: the directory in which it looks for its configuration.

The directory is a property of the program: ``grub-mkimage`` stores the prefix in it. A prefix
without a device is on the partition that the program was started from, wherever the program is.
"""

from __future__ import annotations

import re

from bootc.formats.grubembed import GrubImageError

_PREFIX = re.compile(rb"(?<=[\0-\x1f])/EFI/([A-Za-z0-9][A-Za-z0-9._-]{0,63})\0")


def configuration_directory(program: bytes) -> str:
    r"""Return the path of the directory, without a leading ``/``.

    >>> configuration_directory(b"MZ\0/EFI/debian\0")
    'EFI/debian'

    Raises:
        GrubImageError: the program names no directory, or several.
    """
    found = set(_PREFIX.findall(program))
    if len(found) != 1:
        what = "several directories" if found else "no directory"
        raise GrubImageError(f"GRUB's EFI program names {what} for its configuration")
    return f"EFI/{found.pop().decode()}"
