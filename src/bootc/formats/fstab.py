r"""Reads ``fstab``: the sources of mounts and their mount points.

Source: fstab(5), getmntent(3) for the escapes.

>>> parse_fstab(b"UUID=1 / ext4 rw 0 1\n/dev/sdb /srv/a\\040b ext4\n")
[('UUID=1', '/'), ('/dev/sdb', '/srv/a b')]
"""

from __future__ import annotations

import os
import re

_ESCAPE = re.compile(r"\\(040|011|012|134)")


def parse_fstab(data: bytes) -> list[tuple[str, str]]:
    """Return source and mount point of every line, in order."""
    mounts = []
    for line in os.fsdecode(data).split("\n"):
        fields = line.split()
        if len(fields) >= 2 and not fields[0].startswith("#"):
            mounts.append((_unescaped(fields[0]), _unescaped(fields[1])))
    return mounts


def _unescaped(field: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), field)
