"""Encodes extended attributes as an image stores them.

An entry is two lengths, the number of a common prefix, the rest of the name, and the
value. Entries that several inodes have are stored once in a table, and inodes refer to
them by number. A 32-bit filter before an inode's entries rules out most absent names.

Source: Linux fs/erofs/xattr.c.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bootc.formats.erofs.structs import (
    MAX_NAME_BYTES,
    MAX_XATTR_AREA_BYTES,
    MAX_XATTR_VALUE_BYTES,
    MAX_XATTRS,
    XATTR_ACL_INDEXES,
    XATTR_ENTRY,
    XATTR_FILTER_SEED,
    XATTR_HEADER,
    XATTR_PREFIXES,
)
from bootc.formats.xxh32 import xxh32
from bootc.printable import printable

#: An entry is padded to 4 bytes: what to append, by the length modulo 4.
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


class ImpossibleXattr(Exception):
    """A name, a value, or their number is too large for an image."""


class XattrEncoder:
    """Encodes the xattrs of one image. It computes the form of each name once.

    Args:
        prefixes: The numbered prefixes this image may use.
    """

    def __init__(self, prefixes: Mapping[int, bytes]) -> None:
        self._prefixes = prefixes
        self._names: dict[bytes, tuple[bytes, bytes, int]] = {}
        #: Whether an access control list was among the xattrs.
        self.has_acl = False

    def encode(self, pairs: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[bytes, ...], int]:
        """Return the entries in the given order, and the bits their names take in the filter.

        Raises:
            ImpossibleXattr: a name, a value, or their number is too large.
        """
        entries = []
        taken = 0
        known = self._names
        for name, value in pairs:
            head, suffix, bit = known.get(name) or self._name(name)
            if len(value) > MAX_XATTR_VALUE_BYTES:
                raise ImpossibleXattr(f"xattr {printable(name)} has a value of {len(value)} bytes")
            taken |= bit
            entry = head + len(value).to_bytes(2, "little") + suffix + value
            entries.append(entry + _PADDING[len(entry) & 3])
        area = XATTR_HEADER.size + sum(map(len, entries))
        if len(entries) > MAX_XATTRS or area > MAX_XATTR_AREA_BYTES:
            raise ImpossibleXattr(f"{len(entries)} xattrs of together {area} bytes are too many")
        return tuple(entries), taken

    def _name(self, name: bytes) -> tuple[bytes, bytes, int]:
        """Return the first two bytes of its entries, the stored name, and the filter bit."""
        if not 0 < len(name) <= MAX_NAME_BYTES or b"\0" in name:
            raise ImpossibleXattr(f"impossible xattr name {printable(name, 300)}")
        index, suffix = 0, name
        for number, prefix in self._prefixes.items():
            if name.startswith(prefix):
                index, suffix = number, name[len(prefix) :]
                break
        self.has_acl |= index in XATTR_ACL_INDEXES
        head = bytes([len(suffix), index])
        bit = 1 << xxh32(suffix, XATTR_FILTER_SEED + index) % 32
        self._names[name] = head, suffix, bit
        return head, suffix, bit


def split_entry(entry: bytes) -> tuple[int, bytes, bytes]:
    """Return index, stored name and value of an entry that :class:`XattrEncoder` made."""
    name_bytes, index, value_bytes = XATTR_ENTRY.unpack_from(entry)
    value_at = XATTR_ENTRY.size + name_bytes
    return index, entry[XATTR_ENTRY.size : value_at], entry[value_at : value_at + value_bytes]


def full_name(index: int, suffix: bytes) -> bytes:
    """Return the whole name of an entry."""
    return XATTR_PREFIXES.get(index, b"") + suffix
