r"""Boot Loader Specification, Type #1 entries: the small text files of a boot menu.

This module has the text format, the names of bootc's entry files, and the order in which
systemd-boot shows them. An entry that is read and written again loses only comments, blank
lines and the order of keys: known keys have a fixed order. Unknown keys, which other tools
may need, follow in their own order, as often as they occur.

Lines have the same meaning as for systemd-boot (``line_get_key_value`` and
``boot_entry_add_type1`` of its source): the lines of ``options`` add up, those of
``initrd`` make a list, of any other key the last line counts; CR ends a line as LF
does, a zero byte ends the file, and a pair of quotes around a value is not part of it.
GRUB reads only the first ``options`` line, so all arguments are written in one.

>>> entry = parse_entry(b"linux /vmlinuz\noptions rw\noptions quiet\ntries-hint 3\n")
>>> entry.extra
(('tries-hint', '3'),)
>>> print(serialise_entry(entry).decode(), end="")
linux /vmlinuz
options rw quiet
tries-hint 3
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from bootc.errors import Error

#: The size limit of the file of an entry, which has a few hundred bytes.
MAX_ENTRY_BYTES = 1 << 16

_SEPARATORS = re.compile(r"[^A-Za-z0-9~^.-]*")
_DIGITS = re.compile(r"[0-9]*")
_LETTERS = re.compile(r"[A-Za-z]*")
#: systemd-boot ends lines at either (boot.c, ``line_get_key_value``).
_LINE_END = re.compile(r"[\n\r]")
#: Around values they mean nothing.
_BLANKS = " \t"
_QUOTES = "\"'"
#: The counters of the Automatic Boot Assessment, at the end of a file name.
_COUNTER = re.compile(r"\+([0-9]{1,9})(?:-([0-9]{1,9}))?(?=(?:\.conf|\.efi)\Z)", re.IGNORECASE)
_SINGLE_KEYS = ("title", "version", "linux", "machine-id", "sort-key", "efi", "uki")

_Ordered = TypeVar("_Ordered", str, int)


class BlsError(Error):
    """Bytes that should be a boot entry are none, or a value cannot be written as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One menu item. Exactly one of ``linux``, ``efi`` and ``uki`` says what is started.

    ``options`` holds the arguments of all lines.
    """

    version: str | None = None
    title: str | None = None
    linux: str | None = None
    initrd: tuple[str, ...] = ()
    options: str | None = None
    machine_id: str | None = None
    sort_key: str | None = None
    efi: str | None = None
    uki: str | None = None
    extra: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class BootCounter:
    """How often an entry may still be tried, and how often it was tried.

    The boot loader counts in the file name of the entry (``NAME+LEFT-DONE.conf``) each time it
    starts the entry. A successful boot removes the counter.
    """

    left: int
    done: int = 0

    @property
    def is_bad(self) -> bool:
        """Whether all tries failed. The boot loader shows such an entry after all others."""
        return self.left == 0


def parse_entry(data: bytes) -> Entry:
    """Parse an entry file. A key without a value says nothing and is dropped.

    Raises:
        BlsError: not UTF-8, or not exactly one thing to start.
    """
    try:
        text = data.partition(b"\0")[0].decode("utf-8")
    except UnicodeDecodeError as exc:
        raise BlsError(f"boot entry is not UTF-8 at offset {exc.start}") from None
    single: dict[str, str] = {}
    options: list[str] = []
    initrd: list[str] = []
    extra: list[tuple[str, str]] = []
    for line in _LINE_END.split(text):
        key, *rest = re.split(r"[ \t]+", line.strip(_BLANKS), maxsplit=1)
        value = _unquoted(rest[0], key) if rest else ""
        if not value or key.startswith("#"):
            continue
        if key == "options":
            options.append(value)
        elif key == "initrd":
            initrd.append(value)
        elif key in _SINGLE_KEYS:
            single[key] = value
        else:
            extra.append((key, value))
    started = [key for key in ("linux", "efi", "uki") if key in single]
    if len(started) != 1:
        found = " and ".join(f"'{key}'" for key in started) or "none"
        raise BlsError(f"boot entry needs one of 'linux', 'efi' and 'uki', but has {found}")
    return Entry(
        version=single.get("version"),
        title=single.get("title"),
        linux=single.get("linux"),
        initrd=tuple(initrd),
        options=" ".join(options) or None,
        machine_id=single.get("machine-id"),
        sort_key=single.get("sort-key"),
        efi=single.get("efi"),
        uki=single.get("uki"),
        extra=tuple(extra),
    )


def serialise_entry(entry: Entry) -> bytes:
    """Write an entry, one ``key value`` line each, in bootc's order of keys.

    Raises:
        BlsError: a value is empty, would not come back from its line, or is no Unicode.
    """
    lines: list[tuple[str, str | None]] = [
        ("title", entry.title),
        ("version", entry.version),
        ("linux", entry.linux),
        *(("initrd", path) for path in entry.initrd),
        ("options", entry.options),
        ("uki", entry.uki),
        ("efi", entry.efi),
        ("machine-id", entry.machine_id),
        ("sort-key", entry.sort_key),
        *entry.extra,
    ]
    text: list[bytes] = []
    for key, value in lines:
        if value is None:
            continue
        try:
            text.append(f"{key} {_written(value, key)}\n".encode())
        except UnicodeEncodeError:  # options from a command line can have any bytes
            raise _cannot_hold(value, key) from None
    return b"".join(text)


def _unquoted(value: str, key: str) -> str:
    """Return what is between a pair of quotes around a value.

    systemd-boot takes the outer quotes from ``"a=b c" d="e f"``, too, and boots with nonsense;
    GRUB takes none. So arguments with quotes of their own are left as they are.
    """
    if len(value) < 2 or value[0] not in _QUOTES or value[0] != value[-1]:
        return value
    inside = value[1:-1]
    return value if key == "options" and value[0] in inside else inside.strip(_BLANKS)


def _written(value: str, key: str) -> str:
    """Return the text that :func:`parse_entry` takes for this value."""
    if not value or value != value.strip(_BLANKS) or _LINE_END.search(value) or "\0" in value:
        raise _cannot_hold(value, key)
    for text in (value, f'"{value}"', f"'{value}'"):
        if _unquoted(text, key) == value:
            return text
    raise _cannot_hold(value, key)


def _cannot_hold(value: str, key: str) -> BlsError:
    return BlsError(f"boot entry cannot hold {value!r} as {key!r}")


def entry_file_name(os_id: str, version: str, priority: int) -> str:
    """Name of an entry file: ``bootc_<os_id>-<version>-<priority>.conf``.

    Priority 1 boots by default, 0 comes second. The dashes separate the fields
    for boot loaders which split names as RPM does, so ``os_id`` may hold none. A plus would begin
    a counter (``-13+2-1.conf``), so there is none. It and characters that a FAT file name cannot
    hold become underscores.
    """
    from bootc.formats import fat  # here because most commands only read entries

    name = f"bootc_{os_id.replace('-', '_')}-{version}-{priority}.conf"
    return fat.UNFIT.sub("_", name).replace("+", "_")


def boot_counter(file_name: str) -> BootCounter | None:
    """Return the counter in the name of an entry or of a unified kernel image, or None.

    >>> boot_counter("bootc_debian-13-1+2-1.conf")
    BootCounter(left=2, done=1)
    """
    match = _COUNTER.search(file_name)
    return None if match is None else BootCounter(int(match[1]), int(match[2] or 0))


def without_counter(file_name: str) -> str:
    """Return a file name without its counter. Systems know entries by this name.

    >>> without_counter("bootc_debian-13-1+3.conf")
    'bootc_debian-13-1.conf'
    """
    return _COUNTER.sub("", file_name)


def with_counter_of(file_name: str, counted: str) -> str:
    """Return a file name with the counter that the name ``counted`` has, to the letter.

    >>> with_counter_of("bootc_debian-13-0.conf", "bootc_debian-13-1+2-1.conf")
    'bootc_debian-13-0+2-1.conf'
    """
    match = _COUNTER.search(counted)
    stem, dot, suffix = without_counter(file_name).rpartition(".")
    return f"{stem}{match[0] if match else ''}{dot}{suffix}"


def sort_key(os_id: str, rank: int) -> str:
    """Return the ``sort-key`` of the entry in place ``rank`` (0 boots by default, 1 is second).

    Keys are compared as text: from 10 on a letter for the number of digits comes first.

    >>> sort_key("fedora", 9) < sort_key("fedora", 10) < sort_key("fedora", 100)
    True
    """
    digits = str(rank)
    longer = chr(ord("a") + len(digits) - 2) if len(digits) > 1 else ""
    return f"bootc-{os_id}-{longer}{digits}"


def menu_order(entries: Iterable[tuple[str, Entry]]) -> list[tuple[str, Entry]]:
    """Sort (file name, entry) pairs as systemd-boot shows them; the first boots by default.

    Entries without tries left come last. Of the others, entries with a sort key come first: by
    that key, then machine id, then newest version. All others, and equals, follow by file name
    without counters, newest first. Of two counters of one name, the one with more tries left
    comes first. (Upstream compares keys only where both entries have one, which gives no total
    order; for the entries it writes the two rules agree.)
    """
    return sorted(entries, key=functools.cmp_to_key(_compare_items))


def _compare_items(a: tuple[str, Entry], b: tuple[str, Entry]) -> int:
    (a_name, a_entry), (b_name, b_entry) = a, b
    a_counter, b_counter = boot_counter(a_name), boot_counter(b_name)
    result = _compare(_is_bad(a_counter), _is_bad(b_counter)) or _compare(
        a_entry.sort_key is None, b_entry.sort_key is None
    )
    if not result and a_entry.sort_key is not None and b_entry.sort_key is not None:
        result = (
            _compare(a_entry.sort_key, b_entry.sort_key)
            or _compare(a_entry.machine_id or "", b_entry.machine_id or "")
            or -compare_versions(a_entry.version or "", b_entry.version or "")
        )
    # The loader reads names through FAT, which does not know their case.
    a_id, b_id = without_counter(a_name).lower(), without_counter(b_name).lower()
    result = result or -compare_versions(a_id, b_id)
    if result or a_counter is None or b_counter is None:
        return result
    return -_compare(a_counter.left, b_counter.left) or _compare(a_counter.done, b_counter.done)


def _is_bad(counter: BootCounter | None) -> bool:
    return counter is not None and counter.is_bad


def compare_versions(a: str, b: str) -> int:
    """Compare two versions by the UAPI version format: negative when ``a`` is the older one.

    >>> compare_versions("43~rc1", "43") < 0 < compare_versions("10", "9")
    True
    """
    # By offsets and not by shrinking strings, which would make long versions quadratic.
    i = j = 0
    while True:
        i += len(_leading(_SEPARATORS, a, i))
        j += len(_leading(_SEPARATORS, b, j))
        for marker in ("~", "", "-", "^", "."):
            if not marker:  # an ended string is older than all that goes on but "~"
                if i == len(a) or j == len(b):
                    return _compare(i < len(a), j < len(b))
                continue
            in_a, in_b = a.startswith(marker, i), b.startswith(marker, j)
            if in_a != in_b:
                return _compare(in_b, in_a)
            i, j = i + in_a, j + in_b
        a_head, b_head = _leading(_DIGITS, a, i), _leading(_DIGITS, b, j)
        if a_head or b_head:
            result = _compare(bool(a_head), bool(b_head)) or _compare_numbers(a_head, b_head)
        else:
            a_head, b_head = _leading(_LETTERS, a, i), _leading(_LETTERS, b, j)
            result = _compare(a_head, b_head)
        if result:
            return result
        i, j = i + len(a_head), j + len(b_head)


def _leading(pattern: re.Pattern[str], text: str, at: int) -> str:
    match = pattern.match(text, at)
    return match.group() if match else ""


def _compare_numbers(a: str, b: str) -> int:
    a, b = a.lstrip("0"), b.lstrip("0")
    return _compare(len(a), len(b)) or _compare(a, b)


def _compare(a: _Ordered, b: _Ordered) -> int:
    return (a > b) - (a < b)
