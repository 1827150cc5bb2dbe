"""What a user expects of the room on boot partitions: who gets it, and when it does not suffice.

Told from what lies there, and from what a dry run says where there is room. None of the
library's own sums is used. Between what surely suffices, by the sum in the documentation,
and what cannot suffice there is a margin of some clusters, where either may be.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bootc.boot.loader import Bootloader
from bootc.boot.scheme import GENERATED_MENU
from bootc.formats.origin import BootType
from support.machine import FakeMachine
from support.room import CLUSTER_BYTES, Volume, clusters_of, directory_clusters

#: For directories and menus beside a new kernel, in clusters, as the documentation says.
SPARE = 16
#: What a menu may take beside its files: its directory's growth, a temporary name.
MARGIN = 3


class Level(enum.Enum):
    """How much room somebody leaves."""

    NOTHING = "nothing"
    MENU = "just a menu's"
    HALF_A_SET = "half of a kernel and initramfs"
    SET = "a kernel, initramfs and menus"
    TWO_SETS_AND_A_HALF = "some kernels'"


@dataclass(frozen=True, slots=True)
class Range:
    """At least, and at most."""

    low: int
    high: int

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.high + other.high)


@dataclass(frozen=True, slots=True)
class Writes:
    """What a command writes to boot partitions.

    Attributes:
        stages: Whether it stages a deployment.
        kernel: Whether it writes a kernel.
        menu: Of how many deployments the menu is that it writes; 0 if it writes none.
        removes: Whether an entry is removed from the menu.
    """

    stages: bool
    kernel: bool
    menu: int
    removes: bool

    @classmethod
    def announced(cls, said: Sequence[str]) -> Writes:
        """Understand the lines of a dry run."""
        lines = [line[2:] for line in said]
        menus = [line for line in lines if line.startswith("write the staged menu: ")]

        def any_starts(prefix: str) -> bool:
            return any(line.startswith(prefix) for line in lines)

        return cls(
            stages=any_starts("make the state of deployment "),
            kernel=any_starts("write the kernel of deployment "),
            menu=sum(line.count(", ") + 1 for line in menus),
            removes=any_starts("remove the boot entry "),
        )


class Room:
    """The boot partitions of a machine: one, or those of GRUB's menu and of what it starts."""

    def __init__(self, machine: FakeMachine) -> None:
        self.machine = machine
        self.menus = Volume(machine.menu_root)
        self.kernels = self.menus
        if machine.binaries_root != machine.menu_root:
            self.kernels = Volume(machine.binaries_root)
        #: The staged menu, and what it was made from.
        self._staged_menu: object = None
        self._made_from: object = None

    @property
    def volumes(self) -> tuple[Volume, ...]:
        """The partitions there are."""
        return tuple(dict.fromkeys((self.menus, self.kernels)))

    def fill(self, level: Level, more: int = 0, which: Collection[int] = (0, 1)) -> None:
        """Have somebody fill them, or some of them, but for so many clusters and some more."""
        clusters = {
            Level.NOTHING: 0,
            Level.MENU: 6,
            Level.HALF_A_SET: self.set_clusters // 2,
            Level.SET: self.set_clusters + SPARE,
            Level.TWO_SETS_AND_A_HALF: 5 * self.set_clusters // 2 + SPARE,
        }[level]
        for volume in {self.volumes[index % len(self.volumes)] for index in which}:
            volume.leave(clusters + more)

    def lift(self) -> None:
        """Have somebody take away what fills them."""
        for volume in self.volumes:
            volume.lift()

    @property
    def has_end(self) -> bool:
        """Whether there is not any room one may want."""
        return any(volume.clusters is not None for volume in self.volumes)

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Have any room for once."""
        ends = [volume.clusters for volume in self.volumes]
        self.lift()
        try:
            yield
        finally:
            for volume, clusters in zip(self.volumes, ends, strict=True):
                volume.clusters = clusters

    @property
    def set_clusters(self) -> int:
        """What the kernel and initramfs of any image take, or its unified image."""
        some = next(iter(self.machine.images.kernels.values()))
        return sum(clusters_of(len(content)) for content in some)

    def suffices(self, writes: Writes) -> bool | None:
        """Tell whether there is room for what a command writes; None: it may be refused or not."""
        gained = self._removable() if writes.stages or writes.menu else Range(0, 0)
        kernel = self._kernel(writes)
        if self.kernels is not self.menus:
            on_esp = kernel + Range(0, SPARE) if writes.kernel else kernel
            answers = [
                _compare(self.kernels, on_esp, gained),
                _compare(self.menus, self._menu(writes), self._staged(writes)),
            ]
        else:
            needs = kernel + self._menu(writes)
            if writes.stages:
                needs = Range(needs.low, max(needs.high, kernel.high + SPARE))
            answers = [_compare(self.menus, needs, gained + self._staged(writes))]
        return False if False in answers else None if None in answers else True

    def surely_finalizes(self) -> bool:
        """Tell whether what is staged will be the default, however little room there is.

        What changed since the staging takes no more than a whole menu.
        """
        count = len(self.machine.menu()) + 1
        needs = self._menu(Writes(stages=False, kernel=False, menu=count, removes=False))
        return self._made_from == self._now() or _compare(self.menus, needs, Range(0, 0)) is True

    def notice(self) -> None:
        """See whether a menu has been staged, and what was there to make it from."""
        staged = _content(self.machine.menu_root / self.machine.scheme.staged)
        if staged != self._staged_menu:
            self._staged_menu, self._made_from = staged, self._now()

    def check_tidy(self) -> None:
        """Fail if there is a kernel, or a part of one, that no menu boots, nor a staged one."""
        staged = self.machine.menu_root / self.machine.scheme.staged
        files = list(staged.iterdir()) if staged.is_dir() else [staged] if staged.exists() else []
        text = "".join(file.read_bytes().decode("latin-1") for file in files)
        left = [path.name for path in self._artifacts() if path.name not in text]
        assert not left, f"this was left by a clean-up: {left}"

    def _now(self) -> object:
        return _content(self.machine.entries), self.machine.pinned()

    def _kernel(self, writes: Writes) -> Range:
        # Without a boot loader, the fallback may be replaced, and the old one is there meanwhile.
        is_copied = self.machine.scheme.bootloader is Bootloader.NONE and writes.stages
        copy = Range(0, self.set_clusters if is_copied else 0)
        if not writes.kernel:
            return copy
        # Its directory, and the growth of the one above.
        return Range(self.set_clusters, self.set_clusters + 3) + copy

    def _menu(self, writes: Writes) -> Range:
        entries = self.machine.entries
        if self.machine.scheme.menu_is_file:
            size = entries.stat().st_size
            if writes.removes:
                return Range(1, clusters_of(size) + MARGIN)
            return Range(min(writes.menu, 1), clusters_of(size + 400 * writes.menu) + MARGIN)
        generated = entries / GENERATED_MENU
        if writes.removes and not writes.menu and generated.exists():
            return Range(1, clusters_of(generated.stat().st_size) + MARGIN)
        if not writes.menu:
            return Range(0, 0)
        ours = [clusters_of(path.stat().st_size) for path in entries.glob("bootc_*-[01].conf")]
        foreign = [
            path
            for path in entries.iterdir()
            if not path.name.startswith("bootc_") and path != generated
        ]
        names = [path.name for path in foreign]
        files = sum(clusters_of(path.stat().st_size) for path in foreign)
        low = files + writes.menu * min(ours) + directory_clusters(names)
        high = files + writes.menu * max(ours)
        high += directory_clusters([*names, *["x" * 60] * writes.menu]) + MARGIN
        if self.machine.scheme.generated:
            # An entry of the generated menu names the deployment four times. There is a copy.
            low += clusters_of(4 * 128 * writes.menu)
            text = sum(2 * path.stat().st_size for path in foreign) + 1200 * (writes.menu + 1)
            high += 2 * clusters_of(text)
        return Range(low, high)

    def _staged(self, writes: Writes) -> Range:
        """What the menu that is staged now leaves to the next one."""
        staged = self.machine.menu_root / self.machine.scheme.staged
        count = 0
        if staged.is_file():
            count = clusters_of(staged.stat().st_size)
        elif staged.is_dir():
            found = list(staged.iterdir())
            count = sum(clusters_of(path.stat().st_size) for path in found)
            count += directory_clusters([path.name for path in found])
        # A new kernel is written while it is still there.
        return Range(0 if writes.stages or not writes.menu else count, count)

    def _removable(self) -> Range:
        """What kernels leave that no deployment of the menu boots with, if that can be told."""
        if any(path.name.startswith("bootc_broken") for path in self._files_of_menu()):
            return Range(0, 0)
        total = Range(0, 0)
        for path in self._artifacts():
            files = [path] if path.is_file() else list(path.iterdir())
            sizes = [file.stat().st_size for file in files]
            whole = sum(clusters_of(size) for size in sizes)
            # Records of directories may go with it.
            total += Range(sum(sizes) // CLUSTER_BYTES, whole + 2)
        return total

    def _files_of_menu(self) -> Iterator[Path]:
        if not self.machine.scheme.menu_is_file:
            yield from self.machine.entries.iterdir()

    def _artifacts(self) -> Iterator[Path]:
        scheme = self.machine.scheme
        used = {path for shown in self.machine.menu() for path in shown.files}
        if scheme.boot_type is BootType.BLS:
            used = {path.parent for path in used}
        above = self.machine.binaries_root / scheme.binaries
        for path in above.iterdir() if above.exists() else ():
            if path.name.startswith(("bootc_composefs-", ".tmp-file-")) and path not in used:
                yield path


def _content(path: Path) -> object:
    if path.is_dir():
        return {file.name: file.read_bytes() for file in path.iterdir()}
    return path.read_bytes() if path.exists() else None


def _compare(volume: Volume, needs: Range, gained: Range) -> bool | None:
    if volume.clusters is None or needs.high == 0:
        return True
    if volume.free() + gained.low >= needs.high:
        return True
    return False if volume.free() + gained.high < needs.low else None
