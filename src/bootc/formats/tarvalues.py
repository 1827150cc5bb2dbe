"""The values in headers of tar archives: numbers, times, paths, records of pax headers.

:mod:`bootc.formats.tar` puts them together into entries. Numbers are octal text or base-256,
pax has decimal text. A time is seconds since 1970, negative before, and nanoseconds that count
forward from there: half a second before 1970 is second -1 and 500000000 nanoseconds. What pax
has beyond nanoseconds is cut off towards the past, as GNU tar does.

Format: POSIX.1-2017 ``pax``; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

from bootc.errors import Error
from bootc.printable import shown

MAX_PATH_BYTES = 4096
MAX_ID = (1 << 32) - 1
MAX_SIZE = (1 << 63) - 1
#: Seconds: what a signed number of 64 bits holds. EROFS and the kernel have such numbers.
_TIMES = range(-(1 << 63), 1 << 63)

_CHECKSUM = slice(148, 156)
_CHECKSUM_BLANK_SUM = 8 * ord(" ")
_XATTR_PREFIX = b"SCHILY.xattr."
_NS_PER_S = 1_000_000_000
#: More digits than any limit has; longer text would make int() slow, not right.
_MAX_DIGITS = 20


class TarError(Error):
    """Bytes are not a tar archive, or bootc refuses the archive."""

    def __init__(self, what: str, offset: int, *, entry: bytes | None = None) -> None:
        where = "" if entry is None else f"entry {shown(entry)}: "
        super().__init__(f"bad tar archive: {where}{what} at offset {offset}")
        self.offset = offset
        self._what = what
        self._entry = entry

    def inside(self, entry: bytes) -> TarError:
        """Return the same error with the path of the entry."""
        return TarError(self._what, self.offset, entry=entry)

    def follow(self, last: bytes | None) -> None:
        """Name the last good entry if the error does not name an entry."""
        if self._entry is None and last is not None:
            self.message += f", after entry {shown(last)}"
            self.args = (self.message,)


def check_sum(block: bytes, stored: bytes, offset: int) -> None:
    """Compare a header with its checksum.

    Raises:
        TarError: they differ.
    """
    computed = sum(block) - sum(block[_CHECKSUM]) + _CHECKSUM_BLANK_SUM
    if number(stored, "checksum", offset, MAX_SIZE) != computed:
        raise TarError("wrong header checksum", offset)


def is_header(block: bytes) -> bool:
    """Tell whether a block has the checksum that makes it a header."""
    try:
        check_sum(block, block[_CHECKSUM], 0)
    except TarError:
        return False
    return True


def number(raw: bytes, what: str, offset: int, limit: int) -> int:
    """Read a field of a header that cannot be negative.

    Raises:
        TarError: it is no number, or greater than ``limit``.
    """
    value = _signed(raw, what, offset)
    if value < 0:
        raise TarError(f"negative {what}", offset)
    if value > limit:
        raise TarError(f"{what} out of range", offset)
    return value


def _signed(raw: bytes, what: str, offset: int) -> int:
    """Read a field: octal text, or base-256 when the top bit is set."""
    if raw[0] & 0x80:
        negative = bool(raw[0] & 0x40)
        # The sign is the second bit: the first one only says that this is base-256.
        first = raw[0] if negative else raw[0] & 0x7F
        return int.from_bytes(bytes((first,)) + raw[1:], "big", signed=negative)
    text = raw.strip(b" \0").partition(b"\0")[0]
    try:
        return int(text, 8) if text.isdigit() else _empty_is_zero(text)
    except ValueError:
        raise TarError(f"{what} is no number", offset) from None


def _empty_is_zero(text: bytes) -> int:
    if text:
        raise ValueError
    return 0


def pax_or_field(pax: dict[bytes, bytes], key: bytes, raw: bytes, offset: int, limit: int) -> int:
    """Read a number from the pax header if it is there, else from the header.

    Raises:
        TarError: it is no number, or greater than ``limit``.
    """
    text = pax.get(key)
    if not text:
        return number(raw, key.decode(), offset, limit)
    return decimal(text, key.decode(), offset, limit)


def decimal(text: bytes, what: str, offset: int, limit: int) -> int:
    """Read a number of a pax header.

    Raises:
        TarError: it is no number, or greater than ``limit``.
    """
    if not text.isdigit() or len(text) > _MAX_DIGITS or (value := int(text)) > limit:
        raise TarError(f"pax {what} is no number in range", offset)
    return value


def mtime_of(pax: dict[bytes, bytes], raw: bytes, offset: int) -> tuple[int, int]:
    """Return seconds and nanoseconds; only pax knows the latter.

    Raises:
        TarError: there is no such time.
    """
    text = pax.get(b"mtime")
    if not text:
        seconds = _signed(raw, "mtime", offset)
        if seconds not in _TIMES:
            raise TarError("mtime out of range", offset)
        return seconds, 0
    whole, _, fraction = text.removeprefix(b"-").partition(b".")
    nanoseconds = int(fraction[:9].ljust(9, b"0")) if fraction.isdigit() else 0
    total = decimal(whole, "mtime", offset, 1 << 63) * _NS_PER_S + nanoseconds
    if text.startswith(b"-"):
        cut_off = fraction.isdigit() and fraction[9:].strip(b"0") != b""
        total = -total - cut_off
    seconds, nanoseconds = divmod(total, _NS_PER_S)
    if seconds not in _TIMES:
        raise TarError("pax mtime is no number in range", offset)
    return seconds, nanoseconds


def rdev_of(major_field: bytes, minor_field: bytes, offset: int) -> int:
    """Encode a device number as ``st_rdev`` has it; the kernel keeps 12 and 20 bits.

    Raises:
        TarError: there is no such device.
    """
    major = number(major_field, "device major", offset, 0xFFF)
    minor = number(minor_field, "device minor", offset, 0xFFFFF)
    return (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12


def path_of(value: bytes, what: str, offset: int) -> bytes:
    """Check a path or a target of a link.

    Raises:
        TarError: it is empty or too long, or has a zero byte.
    """
    if not value:
        raise TarError(f"empty {what}", offset)
    if len(value) > MAX_PATH_BYTES:
        raise TarError(f"{what} of {len(value)} bytes", offset)
    if b"\0" in value:
        raise TarError(f"zero byte in {what}", offset)
    return value


def xattrs_of(pax: dict[bytes, bytes], offset: int) -> dict[bytes, bytes]:
    """Return the extended attributes in the records of a pax header.

    Raises:
        TarError: one has an impossible name.
    """
    skip = len(_XATTR_PREFIX)
    xattrs = {key[skip:]: value for key, value in pax.items() if key.startswith(_XATTR_PREFIX)}
    if any(not name or b"\0" in name for name in xattrs):
        raise TarError("bad name of an extended attribute", offset)
    return xattrs


def parse_pax(
    data: bytes, offset: int, lists: tuple[bytes, dict[bytes, list[bytes]]] | None = None
) -> dict[bytes, bytes]:
    """Parse lines of ``LENGTH KEY=VALUE``; of two with one key the later wins.

    ``lists`` has a prefix, and gets all values of each key that begins with it.

    Zeros after the last line are padding that some archivers count as data.

    Raises:
        TarError: the data is something else.
    """
    records: dict[bytes, bytes] = {}
    at = 0
    data = data.rstrip(b"\0")
    while at < len(data):
        space = data.find(b" ", at, at + 8)
        length = data[at:space] if space > at else b""
        end = at + int(length) if length.isdigit() else 0
        if not at < end <= len(data) or data[end - 1] != 0x0A:
            raise TarError("bad pax record length", offset + at)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not key or not equals:
            raise TarError("bad pax record", offset + at)
        records[key] = value
        if lists is not None and key.startswith(lists[0]):
            lists[1].setdefault(key, []).append(value)
        at = end
    return records
