"""The disk as upstream's program reads and writes it, at any age, and its installation.

Written from the specification of bootc 1.16.9 (its sections stand in brackets) and not from
:mod:`bootc.boot` or :mod:`bootc.deploy`, with which it shares no code: both must agree on the
disk. It reads menus with parsers of :mod:`bootc.formats`, and leaves streams and objects to
:mod:`bootc.oci` and :mod:`bootc.repository`, which other tests compare with upstream's.
What differs between versions is said by :mod:`support.ages`.
"""

from __future__ import annotations

import configparser
import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bootc.formats import bls, grubcfg
from bootc.formats.bls import BlsError
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.grubcfg import GrubCfgError, MenuEntry
from bootc.formats.ocispec import Manifest
from bootc.formats.osrelease import parse_os_release
from bootc.fs.dir import Dir
from bootc.oci.pull import Pulled, pull
from bootc.oci.source import open_source
from bootc.repository.repository import Repository
from support.ages import META_V1, META_V2, V1_16_9, Age
from support.machine import KARGS, FakeMachine
from support.osimages import Channel, Etc, OsImage

PREFIX = "bootc_composefs-"
UKIS = "EFI/Linux/bootc"
TAGS = "oci/localhost%2Fbootc-"
_ENTRIES = "loader/entries"
_USER_CFG = "boot/grub2/user.cfg"
_BARE = re.compile(r"(?:^|\s)composefs=(\??)([0-9a-f]{128})(?=\s|$)")
_V1 = re.compile(r"(?:^|\s)composefs\.digest=(\??)v1-sha512-12:([0-9a-f]{128})(?=\s|$)")


class UpstreamError(Exception):
    """It ended with an error, or a panic."""


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


class UpstreamDisk:
    """The disk of a machine, as upstream's program of an age reads and writes it.

    Attributes:
        killed_at: Before which step it is killed, counted from 1; 0 for never.
    """

    def __init__(self, machine: FakeMachine, age: Age = V1_16_9) -> None:
        self.machine = machine
        self.age = age
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
        self._ukis = machine.esp / UKIS
        self._marker = machine.run / "composefs/staged-deployment"
        self._states = machine.physical / "state/deploy"
        self._meta = machine.physical / "composefs/meta.json"

    # -- menus

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
        first, opposite = active[0], False
        if not self.age.mended:
            # [11.1 #3] The last one with GRUB, the opposite with unified kernel images.
            first = active[-1] if self._grub and not self._uki else active[0]
            opposite = self._uki and not self._grub
        queued = (first.image_id != booted) is not opposite
        return Slots(
            booted=booted,
            staged=announced,
            rollback=candidates[0] if candidates else None,
            others=tuple(candidates[1:]),
            rollback_queued=queued,
            locked=bool(marker and marker[1]),
        )

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
            artifact = stem.removeprefix(PREFIX)
            if f"{stem}.efi" != Path(program).name or not _is_id(artifact):
                raise UpstreamError("efi does not start with custom prefix")
            return Listed(name, artifact, artifact, stem != artifact, entry)
        if isinstance(entry, MenuEntry) or entry.linux is None or entry.options is None:
            raise UpstreamError("No options")
        image_id, _ = self._named_image(entry.options)
        above = Path(entry.linux).parent.name
        artifact = above.removeprefix(PREFIX)
        return Listed(name, image_id, artifact, above != artifact, entry)

    def _named_image(self, options: str) -> tuple[str, bool]:
        """Return the image that arguments name, and whether it may lack fs-verity [3.1, H1]."""
        found = (self.age.knows_digests and _V1.search(options)) or _BARE.search(options)
        if not found:
            raise UpstreamError("No composefs= param")
        return found[2], bool(found[1])

    def _write_entry(self, directory: Path, os_id: str, entry: bls.Entry, rank: int) -> None:
        """Write an entry under its name [2.4.1]."""
        entry = dataclasses.replace(entry, sort_key=f"bootc-{os_id}-{rank}")
        name = f"bootc_{os_id.replace('-', '_')}-{entry.version}-{1 - rank}.conf"
        replace(directory / name, bls.serialise_entry(entry))

    def _kernel_path(self, artifact: str) -> str:
        return f"{'/boot' if self._grub else '/EFI/Linux'}/{self._prefix}{artifact}"

    @property
    def _prefix(self) -> str:
        return PREFIX if self.age.prefixed else ""

    # -- state

    def _write_state(self, image_id: str, channel: Channel, pulled: Pulled) -> None:
        """Write the state directory [2.2]. Doing that twice fails."""
        image, state = channel.offered, self._states / image_id
        self._change(lambda: state.mkdir(exist_ok=True))
        self._change(lambda: write_etc(state / "etc", image.etc))
        try:
            self._change(lambda: (state / "var").symlink_to("../../os/default/var"))
        except FileExistsError as exc:
            raise UpstreamError("File exists") from exc
        origin = self._origin_text(channel, pulled)
        if not self.age.names_manifest:
            manifest, config = self._documents(channel)
            text = json.dumps({"config": json.loads(config), "manifest": json.loads(manifest)})
            (state / f"{image_id}.imginfo").write_text(text)
        self._change(lambda: (state / f"{image_id}.origin").write_text(origin))

    def _origin_text(self, channel: Channel, pulled: Pulled) -> str:
        image = channel.offered
        boot_digest = hashlib.sha256(image.vmlinuz + image.initramfs).hexdigest()
        text = (
            "[origin]\n"
            f"container-image-reference = ostree-unverified-image:{channel.reference}\n"
            f"[boot]\nboot_type = {'uki' if self._uki else 'bls'}\n"
        )
        if self.age.names_manifest or not self._uki:
            text += f"digest = {boot_digest}\n"
        if self.age.names_manifest:
            text += f"[image]\nmanifest_digest = {pulled.manifest_digest}\n"
        return text

    def _has_origin(self, image_id: str) -> bool:
        return (self._states / image_id / f"{image_id}.origin").exists()

    def _origin(self, image_id: str) -> configparser.ConfigParser:
        origin = configparser.ConfigParser(interpolation=None)
        origin.read(self._states / image_id / f"{image_id}.origin")
        return origin

    def _etc_of(self, image_id: str) -> Etc:
        return self.machine.images.image(image_id).etc

    def _current_etc(self) -> Etc:
        return read_etc(self._states / self.machine.booted_id / "etc")

    # -- the repository

    def _format(self) -> int:
        """Return the EROFS format of images that are added [A.1; composefs, "meta.json"]."""
        if not self._meta.exists():
            # The initramfs writes it at the boot [9.2-4].
            self._change(lambda: self._meta.write_bytes(self.age.meta or META_V1))
        meta = json.loads(self._meta.read_bytes())
        formats = meta.get("erofs_formats")
        if formats not in (None, {"default": 2}):
            return int(formats["default"])
        return 1 if "v1_erofs" in meta["features"]["read-only-compatible"] else 2

    def _extra_formats(self) -> tuple[int, ...]:
        """Return the EROFS formats of further images that are added."""
        return tuple(json.loads(self._meta.read_bytes()).get("erofs_formats", {}).get("extra", ()))

    def _documents(self, channel: Channel) -> tuple[bytes, bytes]:
        """Return manifest and configuration of what is offered."""
        blobs = channel.path / "blobs"
        digest = str(channel.images.entry(channel.offered)["digest"])
        manifest = (blobs / digest.replace(":", "/")).read_bytes()
        config = Manifest.parse(manifest).config.digest
        return manifest, (blobs / str(config).replace(":", "/")).read_bytes()

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


class Installation(UpstreamDisk):
    """The installation of an age, up to the first boot [4.4]."""

    def run(self, channel: Channel) -> str:
        """Install what a channel offers; return the id of its image."""
        pulled = self._pull(channel)
        image, image_id = channel.offered, pulled.image_id.hex
        physical = self.machine.physical
        (physical / "ostree").mkdir()
        (physical / "ostree/bootc").symlink_to("../composefs/bootc")
        (physical / "state/os/default/var").mkdir(parents=True)
        self._states.mkdir()
        self._write_state(image_id, channel, pulled)
        if self._uki:
            self._install_uki(image, image_id)
        else:
            self._install_kernel(image, image_id)
        return image_id

    def _pull(self, channel: Channel) -> Pulled:
        """Make the repository and pull the image [5.3; composefs, "meta.json"]."""
        for directory in (self.machine.physical / "boot", self.machine.esp):
            directory.mkdir(parents=True, exist_ok=True)
        self._meta.parent.mkdir(mode=0o700)
        self._meta.write_bytes(META_V2 if self.age.meta is None else self.age.meta)
        with (
            Dir.open(self.machine.physical) as physical,
            Repository.open(physical, require_verity=False, writable=True) as repository,
            open_source(channel.reference) as source,
        ):
            # Before origins had the manifest, tags were the reference of the image.
            tag = None if self.age.names_manifest else str(channel.reference)
            versions = (self.age.installed_format,)
            pulled = pull(repository, source, tag=tag, erofs_formats=versions)
        if self.age.meta is None:
            self._meta.unlink()
        return pulled

    def _install_kernel(self, image: OsImage, image_id: str) -> None:
        directory = self._kernels / f"{self._prefix}{image_id}"
        directory.mkdir(parents=True)
        (directory / "vmlinuz").write_bytes(image.vmlinuz)
        (directory / "initrd").write_bytes(image.initramfs)
        argument = self.age.argument(image_id, self.age.installed_format, optional=True)
        path, release = self._kernel_path(image_id), parse_os_release(image.os_release)
        entry = bls.Entry(
            title=release.title or image_id,
            version=release.version or image_id,
            linux=f"{path}/vmlinuz",
            initrd=(f"{path}/initrd",),
            options=f"{KARGS} {argument} {image.kargs}".strip(),
        )
        self._live.mkdir(parents=True)
        self._write_entry(self._live, os_id_of(image), entry, 0)

    def _install_uki(self, image: OsImage, image_id: str) -> None:
        (uki,) = self.machine.images.kernels[image_id]
        name = f"{self._prefix}{image_id}.efi"
        self._ukis.mkdir(parents=True)
        (self._ukis / name).write_bytes(uki)
        release = parse_os_release(image.os_release)
        label, path = release.boot_label or image_id, f"/{UKIS}/{name}"
        if self._grub_file:
            self._live.parent.mkdir(parents=True)
            entry = grubcfg.uki_entry(label, Digest.from_hex(image_id), path)
            self._live.write_bytes(grubcfg.serialise_menu([entry]))
            text = 'set EFI_PART_UUID="1234-ABCD"'
            (self._live.parent / "efiuuid.cfg").write_text(text)
            return
        self._live.mkdir(parents=True)
        (self._live.parent / "loader.conf").write_text("timeout 5")
        entry = bls.Entry(title=label, version=release.version or image_id, efi=path)
        self._write_entry(self._live, os_id_of(image), entry, 0)


def install(machine: FakeMachine, channel: Channel, age: Age = V1_16_9) -> None:
    """Install what a channel offers as an age of upstream's program does, and start it."""
    Installation(machine, age).run(channel)
    machine.start()


def renamed(entry: bls.Entry | MenuEntry) -> bls.Entry | MenuEntry:
    """Return an entry whose kernel has the name that new versions give it [6.11]."""

    def path(text: str) -> str:
        directory, name = os.path.split(text)
        if name.endswith(".efi"):
            return f"{directory}/{PREFIX}{name.removeprefix(PREFIX)}"
        above, kernel = os.path.split(directory)
        return f"{above}/{PREFIX}{kernel.removeprefix(PREFIX)}/{name}"

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


def os_id_of(image: OsImage) -> str:
    return parse_os_release(image.os_release).id or "bootc"


def tag_of(manifest: OciDigest) -> tuple[str, str]:
    """Return the tag of a deployed image, and what it refers to [5.3]."""
    return f"{TAGS}{manifest}", f"oci-manifest-{manifest}"


def read_etc(top: Path) -> Etc:
    return {str(p.relative_to(top)): p.read_text() for p in top.rglob("*") if p.is_file()}


def write_etc(top: Path, etc: Etc) -> None:
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


def replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.rename(path)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def _is_id(text: str) -> bool:
    return len(text) == 128 and not set(text) - set("0123456789abcdef")
