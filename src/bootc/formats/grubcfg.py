r"""GRUB's ``user.cfg``: the menu of systems which GRUB boots as unified kernel images.

The file begins with a guard that reads the UUID of the EFI system partition from
``efiuuid.cfg``. The order of entries is that of the menu. An entry that is read and written
again loses only blank lines and indentation: unknown commands and comments keep their
place. (Upstream bootc drops ``set`` and lines of a single word, even the ``fi`` of an
``if``.)

The parser does not know GRUB's language. An entry is the word ``menuentry``, a title in
double quotes, and commands in braces, one per line. Braces count everywhere in an entry,
also in quotes and comments, unless a backslash precedes them. The parser skips everything
between entries; :func:`parse_settings` reads plain assignments.

>>> entries = parse_menu(b'menuentry "Fedora" { chainloader /EFI/Linux/x.efi }')
>>> print(serialise_menu(entries).decode(), end="")
<BLANKLINE>
if [ -f ${config_directory}/efiuuid.cfg ]; then
        source ${config_directory}/efiuuid.cfg
fi
menuentry "Fedora" {
chainloader /EFI/Linux/x.efi
}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bootc.errors import Error
from bootc.formats.digest import Digest

_GUARD = """
if [ -f ${config_directory}/efiuuid.cfg ]; then
        source ${config_directory}/efiuuid.cfg
fi
"""
_SEARCH = '--no-floppy --set=root --fs-uuid "${EFI_PART_UUID}"'

#: A comment is matched first, so that the word means nothing inside of one.
_COMMENT_OR_ENTRY = re.compile(r"^[ \t]*#.*|(?<![^\s;{}])menuentry(?!\w)", re.MULTILINE | re.ASCII)
_TITLE = re.compile(r'\s+"((?:[^"\\]|\\.)*+)"\s*\{', re.DOTALL | re.ASCII)
_BRACE = re.compile(r"[{}]|\\.", re.DOTALL)
_BLANKS = " \t\r"
_BLANK = re.compile(r"[ \t]+")
_ASSIGNMENT = re.compile(r"(?:(?:set|export)[ \t]+)?\w+=[^\s;{}]*\Z", re.ASCII)
#: What GRUB gives a meaning within double quotes.
_SPECIAL_IN_TITLE = re.compile(r'["\\$]')


class GrubCfgError(Error):
    """A menu of GRUB is malformed, or a value cannot be written into one."""


@dataclass(frozen=True, slots=True)
class MenuEntry:
    """One menu item.

    Attributes:
        title: As it stands between the quotes: a backslash still escapes what follows it.
        commands: Names and arguments, in order, comments among them; no arguments are "".
    """

    title: str
    commands: tuple[tuple[str, str], ...] = ()

    @property
    def chainloader(self) -> str | None:
        """Path of the EFI program the entry starts."""
        found = [arguments for name, arguments in self.commands if name == "chainloader"]
        return found[-1] if found else None


def uki_entry(boot_label: str, deployment: Digest, uki_path: str) -> MenuEntry:
    """Return the entry that boots a deployment by its UKI, a path on the EFI system partition."""
    label = _SPECIAL_IN_TITLE.sub(r"\\\g<0>", boot_label)
    return MenuEntry(
        title=f"{label}: ({deployment.hex})",
        commands=(
            ("insmod", "fat"),
            ("insmod", "chain"),
            ("search", _SEARCH),
            ("chainloader", uki_path),
        ),
    )


def parse_menu(data: bytes) -> tuple[MenuEntry, ...]:
    """Parse a menu; a file without entries has an empty one.

    Raises:
        GrubCfgError: not UTF-8, or an entry is malformed; the message says which line.
    """
    return tuple(entry for entry, _, _ in _entries(_text(data)))


def parse_settings(data: bytes) -> tuple[str, ...]:
    r"""Return the plain assignments that stand between the entries of a menu, one a line.

    ``user.cfg`` is the file, too, in which grub2-setpassword keeps the boot password.

    >>> parse_settings(b"GRUB2_PASSWORD=grub.pbkdf2.1\nif true; then\nfi\nset timeout=3\n")
    ('GRUB2_PASSWORD=grub.pbkdf2.1', 'set timeout=3')

    Raises:
        GrubCfgError: as from :func:`parse_menu`.
    """
    text = _text(data)
    between = []
    at = 0
    for _, start, end in _entries(text):
        between.append(text[at:start])
        at = end
    lines = (line.strip(_BLANKS) for part in (*between, text[at:]) for line in part.split("\n"))
    return tuple(line for line in lines if _ASSIGNMENT.match(line))


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise GrubCfgError(f"GRUB menu is not UTF-8 at offset {exc.start}") from None


def _entries(text: str) -> Iterator[tuple[MenuEntry, int, int]]:
    """Yield every entry, and where it starts and ends."""
    at = 0
    while (found := _COMMENT_OR_ENTRY.search(text, at)) is not None:
        at = found.end()
        if not found.group().startswith("menuentry"):
            continue
        title = _TITLE.match(text, at)
        if title is None:
            raise _wrong(text, found.start(), "menuentry without a title in double quotes and '{'")
        if not title[1]:
            raise _wrong(text, found.start(), "menuentry with empty title")
        end = _end_of_body(text, title.end())
        if end is None:
            raise _wrong(text, found.start(), "menuentry without its '}'")
        at = end + 1
        yield MenuEntry(title[1], _commands(text[title.end() : end])), found.start(), at


def serialise_menu(entries: Iterable[MenuEntry], settings: Iterable[str] = ()) -> bytes:
    """Write a menu, with what :func:`parse_settings` returned in front of it.

    Raises:
        GrubCfgError: a title, command or setting cannot be written, it would end its line or entry.
    """
    text = []
    for line in settings:
        if not _ASSIGNMENT.match(line):
            raise GrubCfgError(f"GRUB menu cannot hold the setting {line!r}")
        text.append(f"{line}\n")
    text.append(_GUARD)
    for entry in entries:
        commands = "".join(f"{' '.join(command).rstrip(' ')}\n" for command in entry.commands)
        block = f'menuentry "{entry.title}" {{\n{commands}}}\n'
        if not _comes_back(block, entry):
            raise GrubCfgError(f"GRUB menu cannot hold the entry {entry.title!r}")
        text.append(block)
    return "".join(text).encode()


def _comes_back(block: str, entry: MenuEntry) -> bool:
    try:
        return parse_menu(block.encode()) == (entry,)
    except (GrubCfgError, UnicodeEncodeError):
        return False


def _end_of_body(text: str, at: int) -> int | None:
    """Return where the brace is that closes the one just before ``at``."""
    depth = 1
    for match in _BRACE.finditer(text, at):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if not depth:
            return match.start()
    return None


def _commands(body: str) -> tuple[tuple[str, str], ...]:
    commands = []
    for line in body.split("\n"):
        name, *arguments = _BLANK.split(line.strip(_BLANKS), maxsplit=1)
        if name:
            commands.append((name, "".join(arguments)))
    return tuple(commands)


def _wrong(text: str, at: int, what: str) -> GrubCfgError:
    return GrubCfgError(f"GRUB menu line {text.count(chr(10), 0, at) + 1}: {what}")
