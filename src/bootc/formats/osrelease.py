r"""Reads ``usr/lib/os-release``, the name and version of an operating system, for boot menus.

The parser takes any bytes, because a broken file may cost a title but never a boot.
Assignments are those of os-release(5), one per line. The last one of a name counts. A
value without closing quote counts as absent.

The properties return text that fits into a menu: one short line of printable characters. A
boot loader would take the text after a CR for another line.

>>> parse_os_release(b'ID=fedora\nPRETTY_NAME="Fedora Linux 43"\n').title
'Fedora Linux 43'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: Menus have less room, and entries must stay small.
_MAX_CHARACTERS = 512


@dataclass(frozen=True, slots=True)
class OsRelease:
    """The assignments of an os-release file. Blank values count as absent."""

    fields: Mapping[str, str]

    @property
    def id(self) -> str | None:
        """Machine-readable name (``ID``)."""
        return self._first("ID")

    @property
    def title(self) -> str | None:
        """Name for people: the first of ``PRETTY_NAME``, ``NAME``, ``ID``."""
        return self._first("PRETTY_NAME", "NAME", "ID")

    @property
    def version(self) -> str | None:
        """The first of ``VERSION_ID``, ``VERSION``."""
        return self._first("VERSION_ID", "VERSION")

    @property
    def boot_label(self) -> str | None:
        """Title of a unified kernel image in a boot menu: ``title``, then ``version`` if any."""
        return f"{self.title} {self.version}" if self.title and self.version else self.title

    def _first(self, *names: str) -> str | None:
        values = (_for_a_menu(self.fields.get(name, "")) for name in names)
        return next((value for value in values if value), None)


def parse_os_release(data: bytes) -> OsRelease:
    """Parse the file's bytes. Bytes that are not UTF-8 become the replacement character."""
    fields: dict[str, str] = {}
    for line in data.decode("utf-8", "replace").split("\n"):
        name, equals, quoted = line.strip().partition("=")
        if not equals or name.startswith("#"):
            continue
        value = _unquote(quoted)
        if value is None:
            fields.pop(name, None)
        else:
            fields[name] = value
    return OsRelease(fields)


def _for_a_menu(value: str) -> str:
    # Blanks, not escapes: a backslash has a meaning for boot loaders.
    shown = "".join(c if c.isprintable() else " " for c in value[:_MAX_CHARACTERS])
    return shown.strip()


def _unquote(text: str) -> str | None:
    """Undo shell quoting, or return None if a quote is not closed."""
    value: list[str] = []
    quote = ""
    characters = iter(text)
    for character in characters:
        if character == quote:
            quote = ""
        elif not quote and character in "\"'":
            quote = character
        elif quote == '"' and character == "\\":
            # A backslash at the very end leaves the quote open as well.
            value.append(next(characters, ""))
        else:
            value.append(character)
    return None if quote else "".join(value)
