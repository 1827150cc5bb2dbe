"""A machine that updates itself: real commands on directories, between simulated boots.

Repository, state, menus and kernels are written by the code under test. What is made up is
around it: a loader that reads the menu by a model of its own and demands that what it
starts is whole, ``/run`` which is empty after every start, and a service manager that only
remembers to finalize.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bootc.boot.image_kernel import UkiFile, find_boot_resource
from bootc.boot.kernels import BootResource, boot_digest_of, publish_resource, write_to_slot
from bootc.boot.loader import Bootloader, LoaderTraces
from bootc.boot.menu import open_menu
from bootc.boot.menu_compose import new_item
from bootc.boot.scheme import BootDirs, Mirror, Scheme
from bootc.boot.uki_parts import take_apart
from bootc.deploy.etc.apply import image_etc
from bootc.deploy.finalize import finalize_staged
from bootc.deploy.host.boot_state import BootedState
from bootc.deploy.host.facts import Facts
from bootc.deploy.host.gather import gather
from bootc.deploy.host.session import HostSession, HostView
from bootc.deploy.host.statedir_lifecycle import create_state
from bootc.deploy.host.status import compose_host
from bootc.deploy.journal import Event as JournalEvent
from bootc.deploy.journal import JournalMessage
from bootc.deploy.refresh import refresh_menu
from bootc.errors import Error
from bootc.events import Message
from bootc.formats import cmdline
from bootc.formats.cmdline import composefs_karg
from bootc.formats.digest import Digest
from bootc.formats.erofs.reader import read_erofs
from bootc.formats.origin import Origin, TakesApart, UkiRecord
from bootc.formats.osrelease import parse_os_release
from bootc.formats.pe import CMDLINE, Uki
from bootc.formats.tree import External, Leaf
from bootc.fs.dir import Dir
from bootc.oci.pull import pull
from bootc.oci.source import open_source
from bootc.repository import legacy
from bootc.repository.repository import Repository
from support import firmware, menureader, slots
from support.failing import dies, killed
from support.firmware import firmware_of
from support.osimages import Channel, Images

#: Kernel arguments of the installation.
KARGS = "root=UUID=1 rw"
_MARKER = "staged-deployment"
_IMAGE_ID = re.compile(
    r"(?:^|\s)(?:composefs=\??|composefs\.digest=\??v[12]-sha512-12:)([0-9a-f]{128})(?=\s|$)"
)

#: The same in the command line inside a unified kernel image.
_PROGRAM_ID = re.compile(rb"composefs(?:=|\.digest=)\??(?:v[12]-sha512-12:)?([0-9a-f]{128})")
#: A command line that tolerates missing fs-verity.
_OPTIONAL = re.compile(r"composefs(?:\.digest)?=\?")

Command = Callable[[HostSession, "Journal"], object]


def view_of(system: HostSession) -> HostView:
    """Return what a command that only looks has of an open system."""
    return HostView(system.physical, system.repository, system.boot, system.run, system.booted)


class Journal(list[str]):
    """A sink that keeps the messages."""

    def __call__(self, event: object) -> None:
        if isinstance(event, Message):
            self.append(event.text)


@dataclass(frozen=True, slots=True)
class Shown:
    """An entry of ours as a loader shows it.

    Attributes:
        name: File name, or title.
        image_id: What it boots, in hex.
        files: What the loader reads, as paths of this machine.
        options: The kernel command line; empty for a unified image.
    """

    name: str
    image_id: str
    files: tuple[Path, ...]
    options: str


@dataclass(frozen=True, slots=True)
class _Services:
    """Remembers, as long as the machine is up, that the finalizer runs."""

    flag: Path

    def start_finalizer(self) -> None:
        self.flag.touch()


class Told(list[JournalMessage]):
    """A journal that keeps the messages."""

    def send(self, message: JournalMessage) -> bool:
        self.append(message)
        return True

    def events(self) -> list[JournalEvent]:
        """Return what has happened since the last call."""
        events = [message.event for message in self]
        self.clear()
        return events


class FakeMachine:
    """A machine below ``path``, which may be a copy of another machine's."""

    def __init__(
        self, path: Path, scheme: Scheme, images: Images, esps: tuple[str, ...] = ("esp",)
    ) -> None:
        self.path = path
        #: The names of its ESPs, the main one first.
        self.esps = esps
        self.scheme = scheme
        self.images = images
        self.physical = path / "sysroot"
        self.esp = path / esps[0]
        self.run = path / "run"
        self.menu_root = self.esp if scheme.menu_on_esp else self.physical / "boot"
        if scheme.in_slots:
            self.menu_root = self.physical
        self.binaries_root = (
            self.menu_root
            if scheme.in_slots
            else self.esp
            if scheme.binaries_on_esp
            else self.menu_root
        )
        self.entries = self.menu_root / scheme.entries
        #: The slot that ukiboot started.
        self.slot: str | None = None
        #: What the journal was told.
        self.told = Told()

    # -- its life

    def copy(self, path: Path) -> FakeMachine:
        """Return a copy, which is up as this one is."""
        shutil.copytree(self.path, path, symlinks=True)
        copy = FakeMachine(path, self.scheme, self.images, self.esps)
        copy.booted = self.booted
        copy.slot = self.slot
        return copy

    def started_from(self, esp: str) -> FakeMachine:
        """Return the same machine as if the firmware started this ESP of it."""
        others = (name for name in self.esps if name != esp)
        same = FakeMachine(self.path, self.scheme, self.images, (esp, *others))
        same.booted = self.booted
        return same

    def install(self, channel: Channel) -> None:
        """Bring the first image onto it and start it."""
        for directory in (self.physical / "boot", *(self.path / name for name in self.esps)):
            directory.mkdir(parents=True, exist_ok=True)
        with Dir.open(self.physical) as root:
            Repository.create(root, secure=False).close()
        with self._disks() as (physical, repository, boot):
            with open_source(channel.reference) as source:
                pulled = pull(repository, source)
            objects, image_id = repository.objects, pulled.image_id
            resource: BootResource = find_boot_resource(pulled.root)
            if isinstance(resource, UkiFile):
                resource = resource.with_addons(())  # as without --uki-addon
            record = None
            if self.images.in_parts:
                assert isinstance(resource, UkiFile)
                resource = take_apart(resource, objects, TakesApart.UNSEALED, sealed=False)
                arguments = cmdline.join(resource.arguments)
                record = UkiRecord(TakesApart.UNSEALED, arguments=arguments)
            uki = self.scheme.boot_type.is_unified
            if boot.slots is None:
                publish_resource(boot, image_id, resource, objects)
            else:
                assert isinstance(resource, UkiFile)
                write_to_slot(boot.slots.a, image_id, resource, objects)
            composefs = composefs_karg(image_id.hex, optional=True)
            options = f"{KARGS} {composefs} {channel.offered.kargs}".strip()
            item = new_item(
                self.scheme,
                image_id,
                parse_os_release(channel.offered.os_release),
                options=None if uki else options,
                files=resource.sizes,
            )
            origin = Origin(
                image=channel.reference,
                boot_type=self.scheme.boot_type,
                boot_digest=boot_digest_of(resource, objects),
                manifest_digest=pulled.manifest_digest,
                uki=record,
            )
            etc = image_etc(objects, image_id)
            create_state(physical, etc, lambda c: objects.open(c.digest), image_id, origin)
            if boot.slots is None:
                open_menu(boot).write_staged([item])
                open_menu(boot).commit(image_id)
            else:
                slots.put(self.path, (15, 7, 0), (0, 0, 0))
        self.start()

    def start(self) -> str:
        """Boot, and return the image id of what runs then, in hex."""
        shutil.rmtree(self.run, ignore_errors=True)
        (self.run / "composefs").mkdir(parents=True)
        default = self.menu()[0]
        self._count_boot(default.name)
        self.check_bootable(default)
        if self.scheme.in_slots:
            self.slot = slots.start(self.path)
        given = self._cmdline(default)
        self.booted = BootedState(
            image_id=Digest.from_hex(default.image_id),
            missing_verity_allowed=_OPTIONAL.search(given) is not None,
            loader=LoaderTraces(self.scheme.bootloader),
            cmdline=given,
        )
        if self.scheme.in_slots:
            self.command(refresh_menu)
        return default.image_id

    def _cmdline(self, shown: Shown) -> str:
        """Return what the kernel gets from an entry, or from its program."""
        if shown.options:
            return shown.options
        with open(shown.files[0], "rb") as file:
            return Uki.read(file).text(CMDLINE)

    def shut_down(self) -> None:
        """Go down in order, finalizing what is staged.

        Raises:
            Error: it could not be finalized.
        """
        if self.finalizer_runs:
            self.command(finalize_staged)

    def reboot(self) -> Error | None:
        """Go down and start again; return what kept the finalizer from doing its work."""
        failure = None
        try:
            self.shut_down()
        except Error as exc:
            failure = exc
        self.start()
        return failure

    def power_cut(self, at: int, command: Command) -> bool:
        """Run a command, cut the power at its ``at``-th change, and start again.

        Returns:
            Whether it came to that; the power is cut after the command else.
        """
        cut = dies(at, self.unattended(command))
        self.start()
        return cut

    def killed(self, at: int, command: Command) -> bool:
        """Run a command that is killed at its ``at``-th change; the machine stays up."""
        return killed(at, self.unattended(command))

    def unattended(self, command: Command) -> Callable[[], None]:
        """Return a call that runs a command, and that nobody tells of a failure."""

        def work() -> None:
            with contextlib.suppress(Error, OSError):
                self.command(command)

        return work

    def command(self, command: Command) -> Journal:
        """Run a command and return what it said."""
        journal = Journal()
        with self.open() as system:
            command(system, journal)
        return journal

    @contextlib.contextmanager
    def open(self) -> Iterator[HostSession]:
        """Open it as commands do."""
        with (
            self._disks() as (physical, repository, boot),
            Dir.open(self.run / "composefs") as run,
        ):
            services = _Services(self._flag)
            yield HostSession(physical, repository, boot, run, self.booted, services, self.told)

    # -- what can be seen of it

    @property
    def _flag(self) -> Path:
        return self.run / "finalizer"

    def start_finalizer(self) -> None:
        """Start the service, as another implementation does."""
        self._flag.touch()

    def stop_finalizer(self) -> None:
        """Stop the service, as an administrator may."""
        self._flag.unlink()

    @property
    def finalizer_runs(self) -> bool:
        """Whether the shutdown will finalize what is announced."""
        return self._flag.exists()

    @property
    def booted_id(self) -> str:
        """The image id of what runs, in hex."""
        return self.booted.image_id.hex

    def announced(self) -> tuple[str, bool] | None:
        """Return what is announced for the next boot, and whether it is held back."""
        try:
            marker = json.loads((self.run / "composefs" / _MARKER).read_text())
        except FileNotFoundError:
            return None
        return marker["depl_id"], marker["finalization_locked"]

    def status(self) -> dict[str, Any]:
        """Return what ``bootc status --json`` would say; it must always say something."""
        return compose_host(self.facts()).to_json()

    def facts(self) -> Facts:
        """Read all there is to know."""
        with self.open() as system:
            return gather(system)

    def state(self, image_id: str) -> Path:
        """Return the state directory of a deployment."""
        return self.physical / "state/deploy" / image_id

    def states(self) -> list[str]:
        """Return the image ids of all state directories."""
        return sorted(os.listdir(self.physical / "state/deploy"))

    def etc(self, image_id: str) -> dict[str, str]:
        """Return the files of a deployment's ``/etc``."""
        return _read_files(self.state(image_id) / "etc")

    def pinned(self) -> set[str]:
        """Return the deployments that are marked as pinned."""
        return {name for name in self.states() if (self.state(name) / "pinned").exists()}

    def contents(self, *, repository: bool) -> dict[str, str]:
        """Return all there is on the disks and in ``/run``: the content of files, where links lead.

        Args:
            repository: Objects and streams, too.
        """
        found = {}
        for above, directories, names in os.walk(self.path):
            if not repository and "composefs" in directories and above == str(self.physical):
                directories.remove("composefs")
            for name in (*directories, *names):
                path = Path(above, name)
                if path.is_symlink():
                    text = f"-> {os.readlink(path)}"
                elif path.is_dir():
                    text = "directory"
                else:
                    text = path.read_bytes().decode("latin-1")
                found[str(path.relative_to(self.path))] = text
        return found

    # -- the loader

    def menu(self) -> list[Shown]:
        """Return the entries of ours as the loader shows them; the first is started."""
        if self.scheme.bootloader is Bootloader.NONE:
            return self._started()
        if self.scheme.in_slots:
            return self._in_slots()
        shown = self._shown(self.entries)
        if self.scheme.menu_on_esp and self.scheme.bootloader.value == "systemd":
            keys = [menureader.keys(self.entries / entry.name) for entry in shown]
            sorted_by = [key["sort-key"] for key in keys if "sort-key" in key]
            assert len(set(sorted_by)) == len(sorted_by), (
                f"the order is left to chance: {sorted_by}"
            )
        return shown

    def staged_menu(self) -> list[Shown]:
        """Return the entries of ours in the menu that is staged, or is no more; in some order."""
        path = self.entries.with_name(f"{self.entries.name}.staged")
        return self._shown(path) if path.exists() else []

    def _started(self) -> list[Shown]:
        """Return what the firmware starts: the fallback last, unless it is a second time there."""
        found = []
        for title, path in firmware.started(self.path / "efivars", self.esp):
            ids = [text.decode() for text in _PROGRAM_ID.findall(path.read_bytes())]
            if ids and not any(shown.image_id == ids[0] for shown in found):
                found.append(Shown(title, ids[0], (path,), ""))
        return found

    def _in_slots(self) -> list[Shown]:
        """Return what ukiboot would start."""
        found = []
        for name in slots.order(self.path):
            path = self.path / "parts" / name
            ids = [text.decode() for text in _PROGRAM_ID.findall(path.read_bytes())]
            if ids:
                found.append(Shown(f"slot {name}", ids[0], (path,), ""))
        return found

    def _shown(self, menu: Path) -> list[Shown]:
        if self.scheme.menu_is_file:
            programs = menureader.grub_programs(menu)
            return [
                Shown(title, image_id, (self.binaries_root / path[1:],), "")
                for title, path, image_id in programs
            ]
        paths = [path for path in menu.iterdir() if path.name.endswith(".conf")]
        found = [(path.name, menureader.keys(path)) for path in paths]
        if self.scheme.bootloader in (Bootloader.SYSTEMD, Bootloader.NONE):
            # Those without a key come after all that have one.
            order = sorted(
                found,
                key=lambda entry: (
                    menureader.tries(entry[0])[:1] == (0,),
                    "sort-key" not in entry[1],
                    entry[1].get("sort-key", ""),
                ),
            )
        else:
            order = sorted(found, key=lambda entry: entry[0].encode(), reverse=True)
        return [shown for name, keys in order for shown in self._entry(name, keys)]

    def check_bootable(self, shown: Shown) -> None:
        """Fail unless all is there that an entry needs to start a deployment."""
        image_id = shown.image_id
        whole = self.images.kernels[image_id]
        kernels = tuple(path.read_bytes() for path in shown.files)
        if self.scheme.in_slots:
            # The rest of a partition may have anything.
            kernels = tuple(
                data[: len(kernel)] for data, kernel in zip(kernels, whole, strict=True)
            )
        assert kernels == whole, "the kernel is not whole"
        link = self.physical / "composefs/images" / image_id
        assert link.exists(), "the image is not there"
        with (
            Dir.open(self.physical) as root,
            Repository.open(root, require_verity=False, infer=legacy.infer) as opened,
        ):
            image = read_erofs(opened.objects.read(Digest.from_hex(image_id)))
            for _, node in image.walk():
                if isinstance(node, Leaf) and isinstance(node.content, External):
                    opened.objects.read(node.content.digest)
        state = self.state(image_id)
        assert (state / f"{image_id}.origin").read_text().startswith("["), "no origin"
        assert (state / "etc").is_dir(), "no /etc"
        assert os.readlink(state / "var") == "../../os/default/var", "no /var"

    def set_counter(self, image_id: str, counter: str) -> str:
        """Give the live entry of a deployment a boot counter, or none; return its new name."""
        name = next(shown.name for shown in self.menu() if shown.image_id == image_id)
        counted = menureader.COUNTER.sub(".conf", name).removesuffix(".conf") + f"{counter}.conf"
        (self.entries / name).rename(self.entries / counted)
        return counted

    def counter(self, image_id: str) -> tuple[int, ...]:
        """Return the boot counter of the live entry of a deployment; empty if it has none."""
        return next(
            menureader.tries(shown.name) for shown in self.menu() if shown.image_id == image_id
        )

    def lose_entry(self, image_id: str) -> None:
        """Destroy the entry of a deployment in the live menu."""
        shown = next(shown for shown in self.menu() if shown.image_id == image_id)
        if self.scheme.bootloader is Bootloader.NONE:
            self._lose_firmware_entry(image_id)
            shown = next(s for s in self._shown(self.entries) if s.image_id == image_id)
        if self.scheme.menu_is_file:
            text = self.entries.read_text()
            pattern = rf'^menuentry "{re.escape(shown.name)}".*?^\}}\n?'
            self.entries.write_text(re.sub(pattern, "", text, flags=re.M | re.S))
        else:
            (self.entries / shown.name).unlink()

    def _lose_firmware_entry(self, image_id: str) -> None:
        variables = self.path / "efivars"
        for number in firmware.order(variables):
            option = firmware.get(variables, f"Boot{number:04X}")
            if option is not None and image_id in firmware.program_of(option)[1]:
                rest = [other for other in firmware.order(variables) if other != number]
                firmware.put_order(variables, *rest)

    def _count_boot(self, name: str) -> None:
        """Count a start in the name of an entry, as systemd-boot does."""
        left, done = (*menureader.tries(name), 0, 0)[:2]
        if self.scheme.bootloader.value == "systemd" and left:
            counted = menureader.COUNTER.sub(f"+{left - 1}-{done + 1}.conf", name)
            (self.entries / name).rename(self.entries / counted)

    def _entry(self, name: str, keys: dict[str, str]) -> Iterator[Shown]:
        options = keys.get("options", "")
        named = set(_IMAGE_ID.findall(options))
        assert len(named) < 2, f"the entry boots one of two images: {options}"
        uki = menureader.UKI.match(keys.get("efi", keys.get("uki", "")))
        if uki is not None:
            yield Shown(name, uki[2], (self.binaries_root / uki[1][1:],), "")
        elif named and {"linux", "initrd"} <= keys.keys():
            # The loader looks from the root of the file system that has the menu.
            prefix = "" if self.scheme.menu_on_esp or self.scheme.separate_boot else "/boot"
            read = (keys["linux"], *keys["initrd"].split())
            paths = [path.removeprefix(prefix)[1:] for path in read]
            files = tuple(self.menu_root / path for path in paths)
            yield Shown(name, *named, files, options)

    # -- details

    @contextlib.contextmanager
    def _disks(self) -> Iterator[tuple[Dir, Repository, BootDirs]]:
        with Dir.open(self.physical) as physical:
            if legacy.needs_upgrade(physical):
                legacy.upgrade(physical, secure=False)
        with (
            Dir.open(self.physical) as physical,
            Repository.open(physical, require_verity=False, writable=True) as repository,
            Dir.open(self.menu_root) as menu,
            contextlib.ExitStack() as stack,
        ):
            binaries = menu
            if self.binaries_root != self.menu_root:
                binaries = stack.enter_context(Dir.open(self.binaries_root))
            entries = firmware_of(self.path, self.scheme)
            parts = slots.slots_of(self.path, self.scheme, self.slot)
            boot = BootDirs(self.scheme, menu, binaries, firmware=entries, slots=parts)
            if self.esps[1:] and binaries is menu and not self.scheme.menu_on_esp:
                esp = stack.enter_context(Dir.open(self.esp))
                boot = dataclasses.replace(boot, programs=esp)
            found = [self._mirror(stack, name, boot) for name in self.esps[1:]]
            yield physical, repository, dataclasses.replace(boot, mirrors=tuple(found))

    def _mirror(self, stack: contextlib.ExitStack, name: str, main: BootDirs) -> Mirror:
        """Open a mirror of the main ESP, unless its directory is missing."""
        path = self.path / name
        if not path.exists():
            return Mirror(name, None, "No such device")
        esp = stack.enter_context(Dir.open(path))
        if self.scheme.menu_on_esp:
            return Mirror(name, BootDirs(self.scheme, esp, esp))
        binaries = esp if self.scheme.binaries_on_esp else main.binaries
        return Mirror(name, BootDirs(self.scheme, main.menu, binaries, esp))


def _read_files(top: Path) -> dict[str, str]:
    return {
        str(path.relative_to(top)): path.read_text() for path in top.rglob("*") if path.is_file()
    }
