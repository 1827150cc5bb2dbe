"""The boot menu as it stands: reading it, whoever wrote it.

Promises: :func:`read_menu` has an answer for anything. One entry that is damaged,
foreign or in the way costs that entry and becomes a finding, never the menu. Boot
partitions are shared with other systems and with administrators' editors, and a
machine must be able to show what it runs whatever they did there.

An entry is ours when it starts a deployment, whatever it is called, or when it is
called as ours are. All else is foreign: it is left alone, and carried along when a
menu is replaced. A deployment is told by the ``composefs=`` argument of the entry or
the name of the unified kernel image, and never by the path of the kernel, which may be
shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from bootc.boot import scheme as schemes
from bootc.boot.findings import Finding, FindingKind
from bootc.boot.loader import Bootloader
from bootc.boot.scheme import BootDirs, Scheme
from bootc.errors import Error, one_line
from bootc.formats import bls, cmdline, grubcfg
from bootc.formats.bls import BlsError
from bootc.formats.cmdline import CmdlineError
from bootc.formats.digest import Digest
from bootc.formats.grub_order import grub_order
from bootc.formats.grubcfg import GrubCfgError
from bootc.fs import atomic
from bootc.fs.dir import Dir

#: A file that earlier versions put into staged menus. It means nothing, and is not carried along.
OLD_MARK = ".bootc-staged"
MAX_MENU_BYTES = 1 << 20

_SUFFIX = ".conf"
_PREFIX = "bootc_"
#: An entry that starts a deployment says one of these, however else it is written.
_OUR_WORDS = (b"composefs", b"bootc")
_MAX_ENTRY_BYTES = 1 << 16

_T = TypeVar("_T")


class NotOurEntry(Error):
    """A boot entry that starts no deployment of composefs."""


@dataclass(frozen=True, slots=True)
class Item:
    """One deployment in the menu.

    Attributes:
        name: File name of the entry; its title in GRUB's ``user.cfg``.
        deployment: What it boots.
        artifact: Name of the kernel it boots with, which another deployment may have
            brought; None where that is at no place of ours.
        entry: All that the entry says.
    """

    name: str
    deployment: Digest
    artifact: str | None
    entry: bls.Entry | grubcfg.MenuEntry


@dataclass(frozen=True, slots=True)
class Menu:
    """A boot menu.

    Attributes:
        items: Our entries, in the order of the loader, each deployment once; the first
            boots by default as far as we have a say.
        foreign: Names of what is not ours: files, or titles in ``user.cfg``.
        findings: What is odd.
    """

    items: tuple[Item, ...] = ()
    foreign: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def deployments(self) -> tuple[Digest, ...]:
        """What the menu can boot, in its order."""
        return tuple(item.deployment for item in self.items)


def read_menu(dirs: BootDirs, *, staged: bool) -> Menu:
    """Read the menu that is shown, or the one that is prepared for the next boot.

    Of GRUB's two menus both are read. What has the name of the staged menu may be one that is
    half written, or the menu of before an exchange that was interrupted: only the announcement
    in ``/run`` says that it is complete, and of which deployment.
    """
    reading = _Reading(dirs.scheme)
    for live in dirs.scheme.menus:
        reading.any(dirs.menu, schemes.staged(live) if staged else live)
    return reading.menu()


def read_menu_at(dirs: BootDirs, path: str) -> Menu:
    """Read one menu alone; ``path`` is that of :attr:`Scheme.entries` or :attr:`Scheme.staged`."""
    reading = _Reading(dirs.scheme)
    reading.any(dirs.menu, path)
    return reading.menu()


def foreign_files(directory: Dir) -> tuple[str, ...]:
    """Return the names in a directory of entries that are not ours."""
    reading = _Reading(None)
    reading.entries(directory, directory.path)
    return reading.menu().foreign


def files_of(directory: Dir, deployment: Digest) -> tuple[str, ...]:
    """Return the names in a directory of all entries that boot a deployment."""
    reading = _Reading(None)
    reading.entries(directory, directory.path)
    return tuple(item.name for item in reading.items if item.deployment == deployment)


def is_foreign(entry: grubcfg.MenuEntry) -> bool:
    """Tell whether an entry of GRUB's ``user.cfg`` is somebody else's."""
    return schemes.uki_artifact(entry.chainloader or "") is None


def program_of(entry: bls.Entry | grubcfg.MenuEntry) -> str | None:
    """Return the path of the EFI program that an entry starts, None if it starts a kernel."""
    if isinstance(entry, grubcfg.MenuEntry):
        return entry.chainloader
    return entry.uki or entry.efi


def deployment_of(entry: bls.Entry) -> Digest:
    """Tell which deployment an entry boots.

    Raises:
        NotOurEntry: it boots something else, or something this version cannot read.
    """
    program = program_of(entry)
    if program is not None:
        artifact = schemes.uki_artifact(program)
        if artifact is None:
            raise NotOurEntry(f"it starts an EFI program that is no deployment, {program}")
        return Digest.from_hex(artifact)
    try:
        return Digest.from_hex(cmdline.composefs_argument(entry.options or "").hex)
    except CmdlineError as exc:
        raise NotOurEntry(exc.message) from None


@dataclass(slots=True)
class _Reading:
    """One run of :func:`read_menu`. Without a scheme artifacts are not told."""

    scheme: Scheme | None
    items: list[Item] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def menu(self) -> Menu:
        found: dict[Digest, Item] = {}
        for item in self.items:
            first = found.setdefault(item.deployment, item)
            if first is not item:
                text = f"starts deployment {item.deployment}, as {first.name!a} does before it"
                self.findings.append(Finding(FindingKind.DUPLICATE, item.name, text))
        return Menu(tuple(found.values()), tuple(self.foreign), tuple(self.findings))

    def any(self, menu: Dir, path: str) -> None:
        if path in (schemes.USER_CFG, schemes.staged(schemes.USER_CFG)):
            self.file(menu, path)
        else:
            self.directory(menu, path)

    def file(self, menu: Dir, path: str) -> None:
        data = self._read(path, lambda: menu.read_bytes(path, MAX_MENU_BYTES))
        if data is None:
            return
        try:
            entries = grubcfg.parse_menu(data)
        except GrubCfgError as exc:
            self.findings.append(Finding(FindingKind.MALFORMED, path, exc.message))
            return
        for entry in entries:
            artifact = schemes.uki_artifact(entry.chainloader or "")
            if artifact is None:
                self._is_foreign(entry.title, "it starts no deployment")
            else:
                deployment = Digest.from_hex(artifact)
                self.items.append(Item(entry.title, deployment, artifact, entry))

    def directory(self, menu: Dir, path: str) -> None:
        opened = self._read(path, lambda: menu.open_dir(path))
        if opened is not None:
            with opened:
                self.entries(opened, path)

    def entries(self, directory: Dir, path: str) -> None:
        names = self._read(path, directory.names)
        items = (self._entry(directory, name) for name in names or ())
        self.items += _ordered([item for item in items if item is not None], self.scheme)

    def _entry(self, directory: Dir, name: str) -> Item | None:
        """Read an entry; what is none of ours is noted down instead."""
        if name == OLD_MARK or name.startswith(atomic.FILE_PREFIX):
            return None
        # FAT does not know the case of letters, and so no foreign name may be one of ours.
        folded = name.lower()
        ours = folded.startswith(_PREFIX) and folded.endswith(_SUFFIX)
        if not folded.endswith(_SUFFIX):
            self.foreign.append(name)
            return None
        data = b""
        try:
            data = directory.read_bytes(name, _MAX_ENTRY_BYTES)
            entry = bls.parse_entry(data)
            deployment = deployment_of(entry)
        except NotOurEntry as exc:
            if not ours:
                self._is_foreign(name, exc.message)
                return None
            self.findings.append(Finding(FindingKind.MALFORMED, name, exc.message))
            return None
        except BlsError as exc:
            if not ours and not any(word in data for word in _OUR_WORDS):
                # Boot loaders read more than is understood here.
                self._is_foreign(name, exc.message)
                return None
            self.findings.append(Finding(FindingKind.MALFORMED, name, exc.message))
        except OSError as exc:
            self.findings.append(Finding(FindingKind.UNREADABLE, name, one_line(exc)))
        else:
            return Item(name, deployment, self._artifact(entry), entry)
        if not ours:
            self.foreign.append(name)
        return None

    def _artifact(self, entry: bls.Entry) -> str | None:
        if entry.linux is None:
            return schemes.uki_artifact(entry.uki or entry.efi or "")
        return self.scheme.kernel_artifact(entry.linux) if self.scheme else None

    def _is_foreign(self, name: str, why: str) -> None:
        self.foreign.append(name)
        self.findings.append(Finding(FindingKind.FOREIGN, name, why))

    def _read(self, path: str, read: Callable[[], _T]) -> _T | None:
        try:
            return read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            self.findings.append(Finding(FindingKind.UNREADABLE, path, one_line(exc)))
            return None


def _ordered(items: Iterable[Item], scheme: Scheme | None) -> list[Item]:
    by_name = {item.name: item for item in items}
    if scheme is None or scheme.bootloader is Bootloader.SYSTEMD:
        pairs = [(i.name, i.entry) for i in by_name.values() if isinstance(i.entry, bls.Entry)]
        return [by_name[name] for name, _ in bls.menu_order(pairs)]
    return [by_name[name] for name in grub_order(by_name)]
