"""Writes headers of tar archives in the pax format; :mod:`bootc.formats.tar` reads them.

A header is a ustar block. An extended header before it has the values that do not fit:
long names, names outside ASCII, large numbers, parts of a second, attributes. A whole second
before 1970 is in the block, in base-256: composefs-rs 0.9 refuses such a time in an extended
header.
Records are bytes. The standard library would mark records that are not UTF-8 with a
keyword that makes GNU tar complain.

Format: POSIX.1-2017 ``pax``, "pax Interchange Format"; ``SCHILY.xattr`` of star.
"""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass, field

from bootc.formats.tar import BLOCK_BYTES, EntryKind

#: The length of an archive is a multiple of this; zeros fill it up.
RECORD_BYTES = 20 * BLOCK_BYTES
TRAILER = bytes(2 * BLOCK_BYTES)

_TYPES = {
    EntryKind.FILE: tarfile.REGTYPE,
    EntryKind.DIRECTORY: tarfile.DIRTYPE,
    EntryKind.SYMLINK: tarfile.SYMTYPE,
    EntryKind.HARDLINK: tarfile.LNKTYPE,
    EntryKind.CHAR_DEVICE: tarfile.CHRTYPE,
    EntryKind.BLOCK_DEVICE: tarfile.BLKTYPE,
    EntryKind.FIFO: tarfile.FIFOTYPE,
}
#: A directory's name gets a slash.
_MAX_NAME_BYTES = 99
_MAX_ID = 0o7777777
_MAX_NUMBER = 0o77777777777


@dataclass(frozen=True, slots=True)
class Member:
    """The values of a header. ``rdev`` is as in ``st_rdev``."""

    path: bytes
    kind: EntryKind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime_s: int = 0
    mtime_ns: int = 0
    size_bytes: int = 0
    link_target: bytes = b""
    rdev: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


def tar_header(member: Member) -> bytes:
    """Return the header of a member; its body, filled up to whole blocks, follows."""
    info = tarfile.TarInfo()
    info.type = _TYPES[member.kind]
    info.mode = member.mode
    info.devmajor, info.devminor = os.major(member.rdev), os.minor(member.rdev)
    records: dict[bytes, bytes] = {}
    info.name = _short(member.path, b"path", records)
    info.linkname = _short(member.link_target, b"linkpath", records)
    info.uid = _small(member.uid, _MAX_ID, b"uid", records)
    info.gid = _small(member.gid, _MAX_ID, b"gid", records)
    info.size = _small(member.size_bytes, _MAX_NUMBER, b"size", records)
    info.mtime = _time(member.mtime_s, member.mtime_ns, records)
    for name, value in sorted(member.xattrs.items()):
        # The same escapes as in GNU tar, because a keyword ends at the first equals sign.
        key = name.replace(b"%", b"%25").replace(b"=", b"%3D")
        records[b"SCHILY.xattr." + key] = value
    return _extension(records) + _block(info)


def padding(size_bytes: int) -> bytes:
    """Return the zeros that fill a body up to whole blocks."""
    return bytes(-size_bytes % BLOCK_BYTES)


def _short(value: bytes, key: bytes, records: dict[bytes, bytes]) -> str:
    """Return a name for the block; one that does not fit, or is not ASCII, becomes a record."""
    if len(value) > _MAX_NAME_BYTES or not value.isascii():
        records[key] = value
        value = value[:_MAX_NAME_BYTES]
    return value.decode("utf-8", "surrogateescape")


def _small(value: int, limit: int, key: bytes, records: dict[bytes, bytes]) -> int:
    if value <= limit:
        return value
    records[key] = b"%d" % value
    return 0


def _time(seconds: int, nanoseconds: int, records: dict[bytes, bytes]) -> int:
    """Return the seconds for the block; a time that is not whole seconds becomes a record."""
    if not nanoseconds:
        return _small(seconds, _MAX_NUMBER, b"mtime", records)
    total = seconds * 10**9 + nanoseconds
    sign = b"-" if total < 0 else b""
    records[b"mtime"] = b"%s%d.%09d" % (sign, *divmod(abs(total), 10**9))
    # Who does not know the record reads the second before.
    return seconds if seconds <= _MAX_NUMBER else 0


def _extension(records: dict[bytes, bytes]) -> bytes:
    if not records:
        return b""
    body = b"".join(_record(key, value) for key, value in records.items())
    info = tarfile.TarInfo("././@PaxHeader")
    info.type = tarfile.XHDTYPE
    info.size = len(body)
    return _block(info) + body + padding(len(body))


def _record(key: bytes, value: bytes) -> bytes:
    r"""Return ``LENGTH KEY=VALUE``, in which the length counts itself.

    >>> _record(b"path", b"a")
    b'9 path=a\n'
    """
    rest = b" %s=%s\n" % (key, value)
    length = len(rest)
    while length != len(rest) + len(b"%d" % length):
        length = len(rest) + len(b"%d" % length)
    return b"%d%s" % (length, rest)


def _block(info: tarfile.TarInfo) -> bytes:
    # ustar has no negative numbers, the GNU format has them in base-256. Names fit both.
    if info.mtime < 0:
        return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")
