"""Upstream's program, for its half of the promise: what it does to a machine's disks.

Written from the specification of bootc 1.16.9 (its sections stand in brackets) and not
from :mod:`bootc.boot` or :mod:`bootc.deploy`, with which it shares no code: both must agree
on the disk. It reads with parsers of :mod:`bootc.formats`, and leaves the store to
:mod:`bootc.oci` and :mod:`bootc.repository`, which other tests compare with upstream's.

What upstream does wrong it does wrong here, too: it stages unified kernel images without
clearing the staged menu, keeps the first entry of GRUB's ``user.cfg`` whichever that is,
forgets the announcement, fails on any entry that it does not know. Where that would make a
machine unbootable :meth:`Upstream.finalize` and others refuse with :class:`Avoided`; what
the laws of a test cannot ask of upstream is said there.

Each change is a step, at any of which it can be killed (:attr:`Upstream.killed_at`).
"""

from __future__ import annotations

import configparser
import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bootc.formats import bls, cmdline, grubcfg
from bootc.formats.bls import BlsError
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.grubcfg import GrubCfgError, MenuEntry
from bootc.formats.ocispec import Manifest
from bootc.formats.osrelease import parse_os_release
from bootc.kernel.files import RENAME_EXCHANGE, renameat2
from bootc.oci.pull import pull
from bootc.oci.source import open_source
from bootc.repository import gc
from support.machine import FakeMachine
from support.osimages import Channel, Etc, OsImage

_PREFIX = "bootc_composefs-"
_UKIS = "EFI/Linux/bootc"
_ENTRIES = "loader/entries"
_USER_CFG = "boot/grub2/user.cfg"
_TAGS = "oci/localhost%2Fbootc-"


class UpstreamError(Exception):
    """It ended with an error, or a panic."""


class Avoided(Exception):
    """It would do what it is known to do wrong, and a machine would not survive that."""


class Killed(BaseException):
    """It was killed."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An entry of a menu [2.6].

    Attributes:
        name: File name, or title.
        image_id: What it boots.
        artifact: What its kernel is called by, without prefix.
        prefixed: Whether that has the prefix.
        entry: All that it says.
    """

    name: str
    image_id: str
    artifact: str
    prefixed: bool
    entry: bls.Entry | MenuEntry

    @property
    def of_type_1(self) -> bls.Entry:
        assert isinstance(self.entry, bls.Entry)
        return self.entry


@dataclass(frozen=True, slots=True)
class Slots:
    """Which deployment is what [1.5]."""

    booted: str
    staged: str | None
    rollback: str | None
    others: tuple[str, ...]
    rollback_queued: bool
    locked: bool

    @property
    def all(self) -> set[str]:
        return {self.booted, *self.others, *filter(None, (self.staged, self.rollback))}


class Upstream:
    """Upstream's commands on a machine.

    Attributes:
        killed_at: Before which step it is killed, counted from 1; 0 for never.
    """

    def __init__(self, machine: FakeMachine) -> None:
        self.machine = machine
        self.killed_at = 0
        self._steps = 0
        self._uki = machine.scheme.boot_type.value == "uki"
        self._grub = machine.scheme.bootloader.value == "grub"
        self._systemd = machine.scheme.bootloader.value == "systemd"
        self._grub_file = self._grub and self._uki
        top = machine.physical / "boot" if self._grub else machine.esp
        self._live = machine.physical / _USER_CFG if self._grub_file else top / _ENTRIES
        self._staged = self._live.with_name(f"{self._live.name}.staged")
        #: Directories of kernels and initramfs.
        self._kernels = top if self._grub else machine.esp / "EFI/Linux"
        self._ukis = machine.esp / _UKIS
        self._marker = machine.run / "composefs/staged-deployment"
        self._states = machine.physical / "state/deploy"

    # -- commands

    def install_menu(self, *, prefixed: bool = True) -> None:
        """Make the one entry of an installation upstream's, or an old version's [6.11]."""
        (only,) = self._list()
        image = self.machine.images.image(only.image_id)
        if not prefixed and self._uki:
            (self._ukis / f"{_PREFIX}{only.image_id}.efi").rename(
                self._ukis / f"{only.image_id}.efi"
            )
        elif not prefixed:
            (self._kernels / f"{_PREFIX}{only.artifact}").rename(self._kernels / only.artifact)
        entry = _renamed(only.entry, prefixed=prefixed)
        if self._grub_file:
            assert isinstance(entry, MenuEntry)
            self._live.write_bytes(grubcfg.serialise_menu([entry]))
            return
        assert isinstance(entry, bls.Entry)
        (self._live / only.name).unlink()
        self._write_entry(self._live, _os_id(image), dataclasses.replace(entry, sort_key=None), 0)

    def slots(self) -> Slots:
        """Return which deployment is what.

        Raises:
            UpstreamError: it cannot tell.
        """
        active, staged = self._list(), self._list(staged=True)
        booted, marker = self.machine.booted_id, self.machine.announced()
        known = [found.image_id for found in (*active, *staged) if self._has_origin(found.image_id)]
        announced = marker[0] if marker and marker[0] in known and marker[0] != booted else None
        candidates = [
            found.image_id
            for found in active
            if found.image_id in known and found.image_id not in (booted, announced)
        ]
        if not known:
            raise UpstreamError("Could not determine boot type")
        # [11.1 #3] The last one with GRUB, the opposite with unified kernel images.
        first = active[-1] if self._grub and not self._uki else active[0]
        queued = (first.image_id != booted) is not (self._uki and not self._grub)
        return Slots(
            booted=booted,
            staged=announced,
            rollback=candidates[0] if candidates else None,
            others=tuple(candidates[1:]),
            rollback_queued=queued,
            locked=bool(marker and marker[1]),
        )

    def upgrade(self, channel: Channel, *, locked: bool = False, switches: bool = False) -> bool:
        """Stage what a channel offers [6.2, 6.3]; return whether there was anything to do."""
        slots = self._open()
        new = channel.image_id
        if os.path.lexists(self._stream(f"oci-config-{self._manifest(channel).config.digest}")):
            if new in slots.all:
                if switches:
                    raise UpstreamError("Target image has the same fs-verity digest")
                return False
            # [6.2] The announcement of what was staged before stays.
            if self._grub_file:
                self._change(lambda: self._staged.unlink(missing_ok=True))
            else:
                self._change(lambda: shutil.rmtree(self._staged, ignore_errors=True))
            self._change(lambda: shutil.rmtree(self._states / new, ignore_errors=True))
        self._stage(channel, slots, locked=locked)
        return True

    def rollback(self) -> None:
        """Change the order of the two entries there are [6.6]."""
        if self._open().rollback is None:
            raise UpstreamError("No rollback available")
        self._swap()

    def delete(self, image_id: str) -> None:
        """Delete a deployment, and collect garbage [6.7]."""
        slots = self._open()
        if image_id == slots.booted:
            raise UpstreamError("Cannot delete currently booted deployment")
        if image_id not in slots.all:
            raise UpstreamError("Deployment ID not found")
        if image_id == slots.rollback and slots.rollback_queued:
            self._swap()
        if image_id == slots.staged and any(
            found.image_id == image_id for found in self._list(staged=True)
        ):
            if self._grub_file:
                self._change(self._staged.unlink)
            else:
                for found in self._list(staged=True):
                    if found.image_id == image_id:
                        self._change((self._staged / found.name).unlink)
                self._change(lambda: shutil.rmtree(self._staged))
        else:
            self._delete_active(image_id)
        self._collect(prune=True)

    def collect(self, *, prune: bool = True) -> None:
        """Collect garbage [8]."""
        self._open()
        self._collect(prune=prune)

    def finalize(self) -> str | None:
        """Make what is staged the default, as the shutdown does [6.5]; return it.

        Raises:
            Avoided: the menu it would exchange does not boot by default what is announced and
                beside that what runs.
        """
        slots = self._open()
        if slots.staged is None or slots.locked:
            return None
        staged = [found.image_id for found in self._list(staged=True)]
        if slots.staged not in staged:
            # [6.5] It has been finalized: it fails, or exchanges the menu of before back.
            raise Avoided("not idempotent")
        if len(set(staged)) != len(staged) or set(staged) != {slots.staged, slots.booted}:
            # [11.1 #8] What is left of earlier stagings is promoted, and with GRUB what runs is
            # left out.
            raise Avoided("stale entries")
        self._merge_etc(slots)
        self._exchange()
        self._collect(prune=False)
        return slots.staged

    # -- staging

    def _stage(self, channel: Channel, slots: Slots, *, locked: bool) -> None:
        new, image = channel.image_id, channel.offered
        self._change(self.machine.start_finalizer)
        with self.machine.open() as system, open_source(channel.reference) as source:
            self._step()
            pulled = pull(system.repository, source)
            assert pulled.image_id.hex == new
            self._step()
            system.repository.streams.set_ref(*_tag(pulled.manifest_digest))
        if new in slots.all:
            raise UpstreamError("Target image has the same fs-verity digest")
        merge_etc(self._etc_of(slots.booted), self._current_etc(), image.etc)
        if self._uki:
            self._stage_uki(new, image)
        else:
            self._stage_kernel(new, image)
        self._write_state(channel, pulled.manifest_digest)
        text = json.dumps(
            {"depl_id": new, "finalization_locked": locked}, separators=(",", ":"), sort_keys=True
        )
        self._change(lambda: _replace(self._marker, text.encode()))
        self._collect(prune=True)

    def _stage_kernel(self, new: str, image: OsImage) -> None:
        """Write kernel and menu [6.3.1-6, 6.10]."""
        booted = next((e for e in self._list() if e.image_id == self.machine.booted_id), None)
        if booted is None or booted.of_type_1.options is None:
            raise UpstreamError("No 'options' found in BLS Config")
        artifact = self._shared(image)
        if artifact is None:
            artifact, directory = new, self._kernels / f"{_PREFIX}{new}"
            self._change(lambda: directory.mkdir(exist_ok=True))
            self._change(lambda: _replace(directory / "vmlinuz", image.vmlinuz))
            self._change(lambda: _replace(directory / "initrd", image.initramfs))
        path = f"{'/boot' if self._grub else '/EFI/Linux'}/{_PREFIX}{artifact}"
        release = parse_os_release(image.os_release)
        entry = bls.Entry(
            title=release.title or new,
            version=release.version or new,
            linux=f"{path}/vmlinuz",
            initrd=(f"{path}/initrd",),
            options=self._options(booted.of_type_1.options, new, image),
        )
        self._change(lambda: shutil.rmtree(self._staged, ignore_errors=True))
        self._stage_entries(image, entry, booted.of_type_1)

    def _stage_uki(self, new: str, image: OsImage) -> None:
        (uki,) = self.machine.images.kernels[new]
        self._ukis.mkdir(parents=True, exist_ok=True)
        self._change(lambda: _replace(self._ukis / f"{_PREFIX}{new}.efi", uki))
        path, release = f"/{_UKIS}/{_PREFIX}{new}.efi", parse_os_release(image.os_release)
        label, version = release.boot_label or new, release.version or new
        if self._grub_file:
            # [11.1 #8] The first one, which need not be the booted one.
            entries = [
                grubcfg.uki_entry(label, Digest.from_hex(new), path),
                *(found.entry for found in self._list()[:1] if isinstance(found.entry, MenuEntry)),
            ]
            menu = grubcfg.serialise_menu(entries)
            self._change(lambda: _replace(self._staged, menu))
            return
        booted = next((e for e in self._list() if e.image_id == self.machine.booted_id), None)
        if booted is None:
            raise UpstreamError("the booted entry is not there")
        # [11.1 #8] The staged menu is not cleared.
        self._stage_entries(
            image, bls.Entry(title=label, version=version, efi=path), booted.of_type_1
        )

    def _stage_entries(self, image: OsImage, first: bls.Entry, second: bls.Entry) -> None:
        self._change(lambda: self._staged.mkdir(parents=True, exist_ok=True))
        for rank, entry in enumerate((first, second)):
            self._step()
            self._write_entry(self._staged, _os_id(image), entry, rank)

    def _write_entry(self, directory: Path, os_id: str, entry: bls.Entry, rank: int) -> None:
        """Write an entry under its name [2.4.1]."""
        entry = dataclasses.replace(entry, sort_key=f"bootc-{os_id}-{rank}")
        name = f"bootc_{os_id.replace('-', '_')}-{entry.version}-{1 - rank}.conf"
        _replace(directory / name, bls.serialise_entry(entry))

    def _options(self, booted: str, new: str, image: OsImage) -> str:
        """Return the kernel arguments of the new deployment [3.5]."""
        old = self.machine.images.image(self.machine.booted_id).kargs.split()
        wanted = image.kargs.split()
        optional = "?" if cmdline.composefs_images(booted).optional else ""
        arguments = cmdline.add_or_modify(cmdline.parse(booted), f"composefs={optional}{new}")
        for argument in old:
            if argument not in wanted:
                arguments = cmdline.remove_exact(arguments, argument)
        return cmdline.join(cmdline.extend(arguments, [k for k in wanted if k not in old]))

    def _shared(self, image: OsImage) -> str | None:
        """Return what the same kernel is there under [6.10]."""
        for name in os.listdir(self._kernels):
            if name.startswith(_PREFIX):
                files = [self._kernels / name / part for part in ("vmlinuz", "initrd")]
                if not all(file.exists() for file in files):
                    raise UpstreamError(f"{name} is not whole")
                if [file.read_bytes() for file in files] == [image.vmlinuz, image.initramfs]:
                    return name.removeprefix(_PREFIX)
        return None

    def _write_state(self, channel: Channel, manifest: OciDigest) -> None:
        """Write the state directory [2.2]. Doing that twice fails."""
        new, image = channel.image_id, channel.offered
        state = self._states / new
        self._change(lambda: state.mkdir(exist_ok=True))
        self._change(lambda: _write_etc(state / "etc", image.etc))
        try:
            self._change(lambda: (state / "var").symlink_to("../../os/default/var"))
        except FileExistsError as exc:
            raise UpstreamError("File exists") from exc
        boot_digest = hashlib.sha256(image.vmlinuz + image.initramfs).hexdigest()
        origin = (
            "[origin]\n"
            f"container-image-reference = ostree-unverified-image:{channel.reference}\n"
            f"[boot]\nboot_type = {'uki' if self._uki else 'bls'}\ndigest = {boot_digest}\n"
            f"[image]\nmanifest_digest = {manifest}\n"
        )
        self._change(lambda: (state / f"{new}.origin").write_text(origin))

    # -- finalizing, and changing the order

    def _merge_etc(self, slots: Slots) -> None:
        """Merge into the ``/etc`` of what is staged, file by file [7.5]."""
        assert slots.staged is not None
        target = self._states / slots.staged / "etc"
        merged = merge_etc(
            self._etc_of(slots.booted),
            self._current_etc(),
            self.machine.images.image(slots.staged).etc,
        )
        for path in sorted(_read_etc(target).keys() - merged.keys()):
            self._change((target / path).unlink)
        for path, text in merged.items():
            self._step()
            _write_etc(target, {path: text})

    def _exchange(self) -> None:
        """Put the staged menu in place, and delete the other one [2.4]."""
        self._step()
        with _opened(self._live.parent) as fd:
            renameat2(fd, self._staged.name, fd, self._live.name, RENAME_EXCHANGE)
        if self._staged.is_dir():
            for path in sorted(self._staged.iterdir()):
                self._change(path.unlink)
            self._change(self._staged.rmdir)
        else:
            self._change(self._staged.unlink)

    def _swap(self) -> None:
        active = self._list()
        if len(active) != 2:
            # [11.1 #5]
            raise UpstreamError("assertion failed: len == 2")
        first, second = active[::-1]
        if self._grub_file:
            entries = [found.entry for found in (first, second)]
            menu = grubcfg.serialise_menu(e for e in entries if isinstance(e, MenuEntry))
            self._change(lambda: _replace(self._staged, menu))
            # [6.6] The announcement stays, though what it announces was in the staged menu.
            self._exchange()
            return
        self._change(lambda: shutil.rmtree(self._staged, ignore_errors=True))
        self._change(lambda: self._marker.unlink(missing_ok=True))
        self._change(self._staged.mkdir)
        for rank, found in enumerate((first, second)):
            self._step()
            self._write_entry(self._staged, "bootc", found.of_type_1, rank)
        self._exchange()

    def _delete_active(self, image_id: str) -> None:
        active = self._list()
        if self._grub_file:
            entries = [
                found.entry
                for found in active
                if found.image_id != image_id and isinstance(found.entry, MenuEntry)
            ]
            menu = grubcfg.serialise_menu(entries)
            self._change(lambda: _replace(self._staged, menu))
            self._exchange()
            return
        name = next(found.name for found in active if found.image_id == image_id)
        self._change((self._live / name).unlink)

    # -- garbage

    def _collect(self, *, prune: bool) -> None:
        """Collect garbage [8]."""
        slots, listed = self.slots(), [*self._list(), *self._list(staged=True)]
        needed = {found.artifact for found in listed}
        for path in (*self._named(self._ukis, ".efi"), *self._named(self._kernels, "")):
            artifact = path.name.removeprefix(_PREFIX).removesuffix(".efi")
            if artifact in needed:
                continue
            if artifact == slots.booted:
                raise UpstreamError(f"Booted binaries '{artifact}' found for cleanup")
            self._change(lambda path=path: _remove(path))  # type: ignore[misc]
        if prune:
            self._prune(slots, {found.image_id for found in listed})

    def _prune(self, slots: Slots, listed: set[str]) -> None:
        orphans = sorted(path for path in self._states.iterdir() if path.name not in listed)
        if any(path.name == slots.booted for path in orphans):
            raise UpstreamError(f"Booted entry '{slots.booted}' found for cleanup")
        marker = self.machine.announced()
        for path in orphans:
            if marker and marker[0] == path.name:
                self._change(lambda: self._marker.unlink(missing_ok=True))
            self._change(lambda path=path: _remove(path))  # type: ignore[misc]
        live = {image_id for image_id in slots.all if (self._states / image_id).exists()}
        manifests = {self._origin(image_id)["image"]["manifest_digest"] for image_id in live}
        with self.machine.open() as system:
            streams = system.repository.streams
            tags = [name for name in streams.refs("oci") if name.startswith(_TAGS)]
            for manifest in manifests:
                name, content = _tag(OciDigest.parse(manifest))
                if name not in tags:
                    self._step()
                    streams.set_ref(name, content)
            for name in tags:
                if name.removeprefix(_TAGS) not in manifests:
                    self._step()
                    streams.remove_ref(name)
            self._step()
            present = [name for name in live if (self._images / name).exists()]
            gc.collect(system.repository, roots=sorted(present))

    # -- reading

    def _open(self) -> Slots:
        """Open the storage, and bring old names up to date [0.5, 6.11]."""
        self._steps = 0
        slots = self.slots()
        active = self._list()
        if all(found.prefixed for found in active):
            return slots
        if any(found.prefixed for found in active) or self._list(staged=True):
            # [11.1 #12] Entries that have the prefix are lost, and so is what is staged.
            raise Avoided("a mixed menu")
        if self._grub_file:
            menu = grubcfg.serialise_menu(
                entry
                for found in active
                if isinstance(entry := _renamed(found.entry, prefixed=True), MenuEntry)
            )
            self._change(lambda: _replace(self._staged, menu))
        else:
            self._change(lambda: self._staged.mkdir(exist_ok=True))
            image = self.machine.images.image(slots.booted)
            for found in active:
                self._step()
                entry = _renamed(found.entry, prefixed=True)
                assert isinstance(entry, bls.Entry)
                prio = int(found.artifact == slots.booted)
                name = f"bootc_{_os_id(image).replace('-', '_')}-{entry.version}-{prio}.conf"
                _replace(self._staged / name, bls.serialise_entry(entry))
        # It renames and exchanges at once, as far as the machine can tell: interrupted between
        # the two it would leave entries of what is not there.
        self._step()
        for found in active:
            name = f"{found.artifact}.efi" if self._uki else found.artifact
            above = self._ukis if self._uki else self._kernels
            (above / name).rename(above / f"{_PREFIX}{name}")
        killed, self.killed_at = self.killed_at, 0
        self._exchange()
        self.killed_at = killed
        return self.slots()

    def _list(self, *, staged: bool = False) -> list[Listed]:
        """Return the entries of a menu in its order [2.4.3, 2.6]."""
        path = self._staged if staged else self._live
        try:
            if self._grub_file:
                menu = grubcfg.parse_menu(path.read_bytes())
                return [self._listed(entry.title, entry) for entry in menu]
            files = {file.name: file.read_bytes() for file in path.iterdir()}
            pairs = [
                (name, bls.parse_entry(data))
                for name, data in files.items()
                if name.endswith(".conf")
            ]
        except FileNotFoundError:
            return []
        except (BlsError, GrubCfgError) as exc:
            raise UpstreamError(str(exc)) from exc
        if self._systemd:
            pairs = bls.menu_order(pairs)
        else:
            pairs.sort(key=lambda pair: pair[0].encode(), reverse=True)
        return [self._listed(name, entry) for name, entry in pairs]

    def _listed(self, name: str, entry: bls.Entry | MenuEntry) -> Listed:
        program = entry.chainloader if isinstance(entry, MenuEntry) else entry.uki or entry.efi
        if program is not None:
            stem = Path(program).name.removesuffix(".efi")
            artifact = stem.removeprefix(_PREFIX)
            if f"{stem}.efi" != Path(program).name or not _is_id(artifact):
                raise UpstreamError("efi does not start with custom prefix")
            return Listed(name, artifact, artifact, stem != artifact, entry)
        if isinstance(entry, MenuEntry) or entry.linux is None or entry.options is None:
            raise UpstreamError("No options")
        image_id = cmdline.composefs_images(entry.options).deployment
        above = Path(entry.linux).parent.name
        artifact = above.removeprefix(_PREFIX)
        return Listed(name, image_id, artifact, above != artifact, entry)

    def _named(self, directory: Path, suffix: str) -> Iterator[Path]:
        if directory.exists():
            for path in sorted(directory.iterdir()):
                fits = path.name.startswith(_PREFIX) and path.name.endswith(suffix)
                if fits and path.is_dir() is (suffix == ""):
                    yield path

    def _has_origin(self, image_id: str) -> bool:
        return (self._states / image_id / f"{image_id}.origin").exists()

    def _origin(self, image_id: str) -> configparser.ConfigParser:
        origin = configparser.ConfigParser(interpolation=None)
        origin.read(self._states / image_id / f"{image_id}.origin")
        return origin

    def _etc_of(self, image_id: str) -> Etc:
        return self.machine.images.image(image_id).etc

    def _current_etc(self) -> Etc:
        return _read_etc(self._states / self.machine.booted_id / "etc")

    def _manifest(self, channel: Channel) -> Manifest:
        digest = str(channel.images.entry(channel.offered)["digest"])
        path = channel.path / "blobs" / digest.replace(":", "/")
        return Manifest.parse(path.read_bytes())

    def _stream(self, name: str) -> Path:
        return self.machine.physical / "composefs/streams" / name

    @property
    def _images(self) -> Path:
        return self.machine.physical / "composefs/images"

    # -- steps

    def _step(self) -> None:
        self._steps += 1
        if self._steps == self.killed_at:
            raise Killed

    def _change(self, change: Callable[[], object]) -> None:
        self._step()
        change()


def merge_etc(pristine: Etc, current: Etc, new: Etc) -> dict[str, str]:
    """Merge files by their paths [7.3 to 7.5]: a local change wins, a change of kind is an error.

    Raises:
        UpstreamError: it is one.
    """
    changed = {path for path, text in current.items() if pristine.get(path) != text}
    for path, other in itertools.product(changed, new):
        if _is_above(path, other) or _is_above(other, path):
            raise UpstreamError("Merge conflicts found in etc")
    removed = pristine.keys() - current.keys()
    kept = {p: t for p, t in new.items() if not any(p == r or _is_above(r, p) for r in removed)}
    return kept | {path: current[path] for path in changed}


def _is_above(path: str, other: str) -> bool:
    return other.startswith(f"{path}/")


def _renamed(entry: bls.Entry | MenuEntry, *, prefixed: bool) -> bls.Entry | MenuEntry:
    """Return an entry with the name of its kernel as it is, or as it was in old versions."""
    prefix = _PREFIX if prefixed else ""

    def path(text: str) -> str:
        directory, name = os.path.split(text)
        if name.endswith(".efi"):
            stem = name.removesuffix(".efi").removeprefix(_PREFIX)
            return f"{directory}/{prefix}{stem}.efi"
        above, kernel = os.path.split(directory)
        return f"{above}/{prefix}{kernel.removeprefix(_PREFIX)}/{name}"

    if isinstance(entry, MenuEntry):
        return MenuEntry(
            entry.title,
            tuple((k, path(v) if k == "chainloader" else v) for k, v in entry.commands),
        )
    return dataclasses.replace(
        entry,
        linux=entry.linux and path(entry.linux),
        initrd=tuple(map(path, entry.initrd)),
        efi=entry.efi and path(entry.efi),
        uki=entry.uki and path(entry.uki),
    )


def _os_id(image: OsImage) -> str:
    return parse_os_release(image.os_release).id or "bootc"


def _tag(manifest: OciDigest) -> tuple[str, str]:
    return f"{_TAGS}{manifest}", f"oci-manifest-{manifest}"


def _is_id(text: str) -> bool:
    return len(text) == 128 and not set(text) - set("0123456789abcdef")


def _read_etc(top: Path) -> Etc:
    return {str(p.relative_to(top)): p.read_text() for p in top.rglob("*") if p.is_file()}


def _write_etc(top: Path, etc: Etc) -> None:
    top.mkdir(exist_ok=True)
    for path, text in etc.items():
        target = top / path
        for above in reversed(target.relative_to(top).parents[:-1]):
            if (top / above).is_file():
                (top / above).unlink()
        if target.is_dir():
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.rename(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)
