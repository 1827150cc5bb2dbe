"""The rules for file names on FAT, the file system of the EFI system partition.

bootc checks names that come from an image by these rules before it writes to the ESP. The
file system would refuse some names half-way, and take others for the same.

Source: Microsoft, "FAT: General Overview of On-Disk Format", long file names; Linux,
``fs/fat/namei_vfat.c``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Characters that no name can hold.
UNFIT = re.compile(r'["*/:<>?\\|\x00-\x1f\x7f]')
#: In units of UTF-16.
_MAX_UNITS = 255


def is_name(text: str) -> bool:
    """Tell whether a file can have this name and is found under it again.

    >>> is_name("debug.addon.efi"), is_name("a:b"), is_name("ends in a dot.")
    (True, False, False)
    """
    try:
        units = len(text.encode("utf-16-le")) // 2
    except UnicodeEncodeError:
        return False
    return (
        0 < units <= _MAX_UNITS
        and text[-1] not in ". "
        and text[0] != " "
        and UNFIT.search(text) is None
    )


def same_names(names: Iterable[str]) -> tuple[str, str] | None:
    """Return two names that differ only in the case of letters. FAT takes them for the same."""
    known: dict[str, str] = {}
    for name in names:
        if (other := known.setdefault(name.casefold(), name)) != name:
            return other, name
    return None
