"""Generates GRUB's menu from the boot entries in a directory.

Debian's signed GRUB reads no boot entries. Where the static configuration of GRUB reads a generated
menu (:attr:`bootc.boot.scheme.Scheme.generated`), the menu is a file beside the entries, so that
one exchange of the directory replaces both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bootc.boot.findings import Finding, FindingKind
from bootc.boot.menu_read import MAX_MENU_BYTES, entries_in
from bootc.boot.scheme import GENERATED_MENU, BootDirs, Scheme
from bootc.errors import one_line
from bootc.formats import bls, grubcfg, grubmenu
from bootc.formats.grubcfg import GrubCfgError
from bootc.formats.grubmenu import MenuItem
from bootc.fs.dir import Dir

_SUFFIX = ".conf"


@dataclass(frozen=True, slots=True)
class GeneratedMenu:
    """GRUB's menu, generated from boot entries.

    Attributes:
        data: The content of the file.
        entries: The entries in it, the foreign ones last.
        foreign: The foreign entries in it.
        findings: The boot entries that GRUB cannot start, and why.
    """

    data: bytes
    entries: tuple[MenuItem, ...]
    foreign: tuple[MenuItem, ...]
    findings: tuple[Finding, ...]


def generate_menu(directory: Dir, scheme: Scheme) -> GeneratedMenu:
    """Return GRUB's menu for the boot entries in a directory.

    Our entries come first, in their order, and then the foreign ones.

    Raises:
        OSError: the directory cannot be read.
    """
    items, others = entries_in(directory, scheme)
    ours = [(item.name, f"bootc-{item.deployment}", item.entry) for item in items]
    foreign = [(name, name.removesuffix(_SUFFIX), entry) for name, entry in others]
    findings: list[Finding] = []
    our_items, foreign_items = (tuple(_fitting(some, findings)) for some in (ours, foreign))
    first = items[0].deployment.hex if items else ""
    entries = our_items + foreign_items
    data = grubmenu.serialise(first, entries)
    return GeneratedMenu(data, entries, foreign_items, tuple(findings))


def check_menu(dirs: BootDirs) -> tuple[Finding, ...]:
    """Return what is wrong with the live generated menu: that it disagrees with the entries."""
    path = f"{dirs.scheme.entries}/{GENERATED_MENU}"
    try:
        with dirs.menu.open_dir(dirs.scheme.entries) as directory:
            generated = generate_menu(directory, dirs.scheme)
            found = _read(directory)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as exc:
        return (Finding(FindingKind.UNREADABLE, path, one_line(exc)),)
    if found == generated.data or not generated.entries:
        return generated.findings
    text = (
        "it is not the menu of the boot entries beside it, so GRUB shows another menu until the "
        "next command that changes the menu"
    )
    return (*generated.findings, Finding(FindingKind.MALFORMED, path, text))


def _read(directory: Dir) -> bytes | None:
    try:
        return directory.read_bytes(GENERATED_MENU, MAX_MENU_BYTES)
    except FileNotFoundError:
        return None


def _fitting(
    found: Iterable[tuple[str, str, bls.Entry | grubcfg.MenuEntry]], findings: list[Finding]
) -> Iterator[MenuItem]:
    """Yield the entries that GRUB can start; a kernel that it cannot start becomes a finding."""
    for name, menu_id, entry in found:
        if isinstance(entry, bls.Entry) and entry.linux is not None:
            try:
                grubmenu.check_entry(entry)
            except GrubCfgError as exc:
                findings.append(Finding(FindingKind.MALFORMED, name, exc.message))
            else:
                yield MenuItem(menu_id, entry)
