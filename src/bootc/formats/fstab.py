r"""Reads ``fstab``: the sources of mounts and their mount points. Makes the root read-only in it.

Source: fstab(5), getmntent(3) for the escapes.

>>> parse_fstab(b"UUID=1 / ext4 rw 0 1\n/dev/sdb /srv/a\\040b ext4\n")
[('UUID=1', '/'), ('/dev/sdb', '/srv/a b')]
"""

from __future__ import annotations

import os
import re

_READ_ONLY = b"ro"
#: What is in front of the options of the root file system, and the options.
_ROOT_LINE = re.compile(rb"([ \t]*[^ \t#\n][^ \t\n]*[ \t]+/[ \t]+[^ \t\n]+[ \t]+)([^ \t\n]+)")
_ESCAPE = re.compile(r"\\(040|011|012|134)")


def parse_fstab(data: bytes) -> list[tuple[str, str]]:
    """Return source and mount point of every line, in order."""
    mounts = []
    for line in os.fsdecode(data).split("\n"):
        fields = line.split()
        if len(fields) >= 2 and not fields[0].startswith("#"):
            mounts.append((_unescaped(fields[0]), _unescaped(fields[1])))
    return mounts


def with_read_only_root(data: bytes, comment: bytes) -> bytes:
    r"""Return an ``fstab`` in which the root file system has the option ``ro``.

    Other lines, blanks and further fields stay the same.

    Args:
        data: The content of the file.
        comment: What to write above a changed line.

    >>> with_read_only_root(b"UUID=1 / xfs rw,x  0 0\n", b"changed")
    b'# changed\nUUID=1 / xfs x,ro  0 0\n'
    """
    lines = []
    for line in data.splitlines(keepends=True):
        found = _ROOT_LINE.match(line)
        options = found[2].split(b",") if found else [_READ_ONLY]
        if found is None or _READ_ONLY in options:
            lines.append(line)
            continue
        kept = [option for option in options if option not in (b"rw", b"defaults")]
        changed = b",".join([*kept, _READ_ONLY])
        lines += [b"# " + comment + b"\n", found[1] + changed + line[found.end() :]]
    return b"".join(lines)


def _unescaped(field: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), field)
