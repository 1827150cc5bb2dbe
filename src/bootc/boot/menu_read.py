"""Reads the boot menu from the boot partition.

Promises: :func:`read_files` returns a menu whatever is on the partition. A damaged or foreign
entry becomes a finding and does not affect the other entries. Other systems and
administrators write to this partition, and ``bootc status`` must work regardless.

An entry is ours if it starts a deployment, whatever its name, or if it has a name of ours.
All other entries are foreign: bootc leaves them alone and copies them to the next menu.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from bootc.boot import scheme as schemes
from bootc.boot.findings import Finding, FindingKind
from bootc.boot.scheme import BootDirs, Scheme
from bootc.errors import Error, one_line
from bootc.formats import bls, cmdline, grubcfg
from bootc.formats.bls import BlsError
from bootc.formats.cmdline import CmdlineError
from bootc.formats.digest import Digest
from bootc.formats.grubcfg import GrubCfgError
from bootc.fs import atomic
from bootc.fs.dir import Dir

#: A file that earlier versions wrote into staged menus. It means nothing and is not copied.
OLD_MARK = ".bootc-staged"
MAX_MENU_BYTES = 1 << 20

_SUFFIX = ".conf"
_PREFIX = "bootc_"
#: An entry that starts a deployment contains one of these words.
_OUR_WORDS = (b"composefs", b"bootc")

_T = TypeVar("_T")


class NotOurEntry(Error):
    """A boot entry does not start a composefs deployment."""


@dataclass(frozen=True, slots=True)
class Item:
    """One deployment in the menu.

    Attributes:
        name: The file name of the entry; in GRUB's ``user.cfg`` its title.
        deployment: The deployment that it boots.
        artifact: The name of its kernel, which may have come with another deployment; None if
            the kernel is not at a path of ours.
        entry: The whole content of the entry.
        also: Further images that its kernel arguments name: the tree of the deployment in other
            versions of the image format.
    """

    name: str
    deployment: Digest
    artifact: str | None
    entry: bls.Entry | grubcfg.MenuEntry
    also: tuple[Digest, ...] = ()

    def boots(self, deployment: Digest) -> bool:
        """Tell whether it boots a deployment, by whichever of its ids."""
        return deployment == self.deployment or deployment in self.also


@dataclass(frozen=True, slots=True)
class Menu:
    """A boot menu.

    Attributes:
        items: Our entries in the order of the boot loader, each deployment once. The first
            boots by default, unless a setting of the loader says otherwise.
        foreign: The names of foreign entries: of files, or titles in ``user.cfg``.
        recounted: Names that must be removed: the same entries, with an older boot counter.
        missing: What the firmware should have of this menu and does not have: names of entries,
            or of the program that it starts by itself.
        findings: The problems.
    """

    items: tuple[Item, ...] = ()
    foreign: tuple[str, ...] = ()
    recounted: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def deployments(self) -> tuple[Digest, ...]:
        """The deployments that the menu boots, in its order."""
        return tuple(item.deployment for item in self.items)


def read_files(dirs: BootDirs, *, staged: bool) -> Menu:
    """Read the live menu, or the staged menu, from the files of the boot partition.

    GRUB has two menus, and this reads both. A file or directory with the name of the staged menu
    may be half-written, or may be the previous menu after an interrupted exchange. Only the
    announcement in ``/run`` says that the staged menu is complete, and for which deployment.

    Args:
        dirs: The boot partition.
        staged: Read the staged menu.
    """
    reading = _Reading(dirs.scheme)
    for live in dirs.scheme.menus:
        reading.any(dirs.menu, schemes.staged(live) if staged else live)
    return reading.menu()


def read_menu_at(dirs: BootDirs, path: str) -> Menu:
    """Read one menu; ``path`` is :attr:`Scheme.entries` or :attr:`Scheme.staged`."""
    reading = _Reading(dirs.scheme)
    reading.any(dirs.menu, path)
    return reading.menu()


def foreign_files(directory: Dir) -> tuple[str, ...]:
    """Return the foreign names in a directory of entries."""
    reading = _Reading(None)
    reading.entries(directory, directory.path)
    return reading.menu().foreign


def files_of(directory: Dir, item: Item) -> tuple[str, ...]:
    """Return the names of all entries in a directory that boot the deployment of this one."""
    reading = _Reading(None)
    reading.entries(directory, directory.path)
    wanted = item.deployment
    return tuple(
        found.name
        for found in reading.items
        if found.deployment == wanted or (found.name == item.name and found.boots(wanted))
    )


def entries_in(
    directory: Dir, scheme: Scheme
) -> tuple[tuple[Item, ...], tuple[tuple[str, bls.Entry], ...]]:
    """Return the entries of a directory in their order: ours, and those of other systems.

    Raises:
        OSError: the directory cannot be read.
    """
    reading = _Reading(scheme)
    reading.entries(directory, directory.path)
    foreign = reading.foreign_entries
    return reading.menu().items, tuple((name, foreign[name]) for name in _as_grub_shows(foreign))


def is_foreign(entry: grubcfg.MenuEntry) -> bool:
    """Tell whether an entry of GRUB's ``user.cfg`` is foreign."""
    return schemes.uki_artifact(entry.chainloader or "") is None


def program_of(entry: bls.Entry | grubcfg.MenuEntry) -> str | None:
    """Return the path of the EFI program that an entry starts, or None if it starts a kernel."""
    if isinstance(entry, grubcfg.MenuEntry):
        return entry.chainloader
    return entry.uki or entry.efi


def images_of(entry: bls.Entry) -> tuple[Digest, ...]:
    """Return the images that an entry may boot: first the one that names the deployment.

    Raises:
        NotOurEntry: it boots something else, or this version cannot read its arguments.
    """
    # Never by the path of the kernel, which deployments may share.
    program = program_of(entry)
    if program is not None:
        artifact = schemes.uki_artifact(program)
        if artifact is None:
            raise NotOurEntry(f"it starts an EFI program that is not a deployment, {program}")
        return (Digest.from_hex(artifact),)
    try:
        ids = cmdline.composefs_images(entry.options or "").ids
    except CmdlineError as exc:
        raise NotOurEntry(exc.message) from None
    return tuple(map(Digest.from_hex, ids))


@dataclass(slots=True)
class _Reading:
    """One run of :func:`read_files`. Without a scheme, items have no artifact for their kernel."""

    scheme: Scheme | None
    items: list[Item] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    recounted: list[str] = field(default_factory=list)
    foreign_entries: dict[str, bls.Entry] = field(default_factory=dict)

    def menu(self) -> Menu:
        found: dict[Digest, Item] = {}
        for item in self.items:
            first = found.setdefault(item.deployment, item)
            if first is not item:
                text = f"starts deployment {item.deployment}, which {first.name!a} already starts"
                self.findings.append(Finding(FindingKind.DUPLICATE, item.name, text))
        self.findings += [_recounted(name) for name in self.recounted]
        return Menu(
            items=tuple(found.values()),
            foreign=tuple(self.foreign),
            recounted=tuple(self.recounted),
            findings=tuple(self.findings),
        )

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
        read = (self._entry(directory, name) for name in names or ())
        items = [item for item in read if item is not None]
        counts = self.scheme is not None and self.scheme.counts_boots
        left = _recounted_names(items) if counts else ()
        self.recounted += left
        self.items += _ordered([item for item in items if item.name not in left], self.scheme)

    def _entry(self, directory: Dir, name: str) -> Item | None:
        """Read an entry; note a foreign or damaged one down and return None."""
        if name in (OLD_MARK, schemes.GENERATED_MENU) or name.startswith(atomic.FILE_PREFIX):
            return None
        # FAT ignores the case of letters, so a foreign name may not differ only in case.
        folded = name.lower()
        ours = folded.startswith(_PREFIX) and folded.endswith(_SUFFIX)
        if not folded.endswith(_SUFFIX):
            self.foreign.append(name)
            return None
        data = b""
        try:
            data = directory.read_bytes(name, bls.MAX_ENTRY_BYTES)
            entry = bls.parse_entry(data)
            deployment, *also = images_of(entry)
        except NotOurEntry as exc:
            if not ours:
                self.foreign_entries[name] = entry
                self._is_foreign(name, exc.message)
                return None
            self.findings.append(Finding(FindingKind.MALFORMED, name, exc.message))
            return None
        except BlsError as exc:
            if not ours and not any(word in data for word in _OUR_WORDS):
                # Boot loaders understand more than this parser.
                self._is_foreign(name, exc.message)
                return None
            self.findings.append(Finding(FindingKind.MALFORMED, name, exc.message))
        except OSError as exc:
            self.findings.append(Finding(FindingKind.UNREADABLE, name, one_line(exc)))
        else:
            return Item(name, deployment, self._artifact(entry), entry, tuple(also))
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


def _recounted_names(items: Iterable[Item]) -> tuple[str, ...]:
    """Return the names that are left of entries whose counter was being changed.

    systemd-boot renames an entry when it counts. FAT has no journal, so a power cut can leave
    both names. The entry is the one with the fewest tries left. While the other name exists,
    systemd-boot cannot rename the entry and does not count any more.
    """
    entries: dict[tuple[str, Digest], Item] = {}
    left = []
    for item in items:
        # FAT ignores the case of letters.
        key = bls.without_counter(item.name).lower(), item.deployment
        other = entries.setdefault(key, item)
        if other is not item:
            entries[key], older = sorted((item, other), key=_tries)
            left.append(older.name)
    return tuple(left)


def _tries(item: Item) -> tuple[float, int]:
    counter = bls.boot_counter(item.name)
    # An entry without a counter has as many tries as it wants.
    return (float("inf"), 0) if counter is None else (counter.left, -counter.done)


def _recounted(name: str) -> Finding:
    text = "it repeats an entry with fewer tries left, and keeps systemd-boot from counting"
    return Finding(FindingKind.DUPLICATE, name, text)


def _ordered(items: Iterable[Item], scheme: Scheme | None) -> list[Item]:
    by_name = {item.name: item for item in items}
    if scheme is None or scheme.bootloader.sorts_by_key:
        pairs = [(i.name, i.entry) for i in by_name.values() if isinstance(i.entry, bls.Entry)]
        return [by_name[name] for name, _ in bls.menu_order(pairs)]
    return [by_name[name] for name in _as_grub_shows(by_name)]


def _as_grub_shows(names: Iterable[str]) -> list[str]:
    from bootc.formats.grub_order import grub_order  # here because most machines have no GRUB

    return grub_order(names)
