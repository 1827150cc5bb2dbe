"""Upstream's program, for its half of the promise: what it does to a machine's disks.

Written from the specification of bootc (sections of that of 1.16.9 stand in brackets, H is the
section of the boot matrix about 1.16.10 to 1.17.5) and not from :mod:`bootc.boot` or
:mod:`bootc.deploy`. :mod:`support.upstreamdisk` reads and writes the disk, and
:mod:`support.ages` says how the versions differ.

What upstream does wrong it does wrong here, too: it stages unified kernel images without
clearing the staged menu, keeps the first entry of GRUB's ``user.cfg`` whichever that is,
forgets the announcement, fails on any entry that it does not know. Where that would make a
machine unbootable :meth:`Upstream.finalize` and others refuse with :class:`Avoided`; what
the laws of a test cannot ask of upstream is said there.

Each change is a step, at any of which it can be killed (:attr:`Upstream.killed_at`).
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from bootc.formats import bls, cmdline, grubcfg
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.grubcfg import MenuEntry
from bootc.formats.ocispec import Manifest
from bootc.formats.osrelease import parse_os_release
from bootc.kernel.files import RENAME_EXCHANGE, renameat2
from bootc.oci.documents import write_documents
from bootc.oci.names import image_name
from bootc.oci.pull import pull
from bootc.oci.source import open_source
from bootc.oci.stored import list_images, read_image
from bootc.oci.trees import stored_tree
from bootc.repository import gc
from bootc.repository.repository import Repository
from support.osimages import Channel, Etc, OsImage
from support.upstreamdisk import (
    PREFIX,
    TAGS,
    UKIS,
    Killed,
    Slots,
    UpstreamDisk,
    UpstreamError,
    opened,
    os_id_of,
    read_etc,
    remove,
    renamed,
    replace,
    tag_of,
    write_etc,
)

__all__ = ["Avoided", "Killed", "Slots", "Upstream", "UpstreamError", "merge_etc"]


class Avoided(Exception):
    """It would do what it is known to do wrong, and a machine would not survive that."""


class Upstream(UpstreamDisk):
    """Upstream's commands on a machine."""

    # -- commands

    def upgrade(self, channel: Channel, *, locked: bool = False, switches: bool = False) -> bool:
        """Stage what a channel offers [6.2, 6.3]; return whether there was anything to do."""
        slots = self._open()
        new = self._id_of(channel)
        config = Manifest.parse(self._documents(channel)[0]).config.digest
        if os.path.lexists(self._stream(f"oci-config-{config}")):
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

    def _id_of(self, channel: Channel) -> str:
        """Return the id of the deployment of what is offered [5.4, 5.7, H1].

        Raises:
            UpstreamError: its unified kernel image boots another image.
        """
        image, images = channel.offered, channel.images
        new = images.id_in(image, self._format())
        if not self._uki:
            return new
        (uki,) = images.kernels[new]
        v1 = re.findall(rb"composefs\.digest=\??v1-sha512-12:([0-9a-f]{128})", uki)
        bare = re.findall(rb"composefs=\??([0-9a-f]{128})", uki)
        named = [found.decode() for found in (*(v1 if self.age.knows_digests else ()), *bare)]
        known = {images.id_in(image, version) for version in (1, 2)}
        if not self.age.knows_digests:
            known = {new}
        if not named or set(named) - known:
            raise UpstreamError("The UKI has the wrong composefs= parameter")
        return named[0]

    def _stage(self, channel: Channel, slots: Slots, *, locked: bool) -> None:
        new, image = self._id_of(channel), channel.offered
        version = next(v for v in (1, 2) if channel.images.id_in(image, v) == new)
        self._change(self.machine.start_finalizer)
        with self.machine.open() as system, open_source(channel.reference) as source:
            self._upgrade_images(system.repository)
            self._step()
            # Of a unified kernel image with two names both images are made [H1].
            both = self._uki and self.age.knows_digests
            versions = (1, 2) if both else (version, *self._extra_formats())
            pulled = pull(system.repository, source, erofs_formats=versions)
            assert (self._images / new).exists()
            self._step()
            system.repository.streams.set_ref(*tag_of(pulled.manifest_digest))
        if new in slots.all:
            raise UpstreamError("Target image has the same fs-verity digest")
        merge_etc(self._etc_of(slots.booted), self._current_etc(), image.etc)
        if self._uki:
            self._stage_uki(new, image)
        else:
            self._stage_kernel(new, version, image)
        self._write_state(new, channel, pulled)
        text = json.dumps(
            {"depl_id": new, "finalization_locked": locked}, separators=(",", ":"), sort_keys=True
        )
        self._change(lambda: replace(self._marker, text.encode()))
        self._collect(prune=True)

    def _stage_kernel(self, new: str, version: int, image: OsImage) -> None:
        """Write kernel and menu [6.3.1-6, 6.10]."""
        booted = next((e for e in self._list() if e.image_id == self.machine.booted_id), None)
        if booted is None or booted.of_type_1.options is None:
            raise UpstreamError("No 'options' found in BLS Config")
        artifact = self._shared(image)
        if artifact is None:
            artifact, directory = new, self._kernels / f"{PREFIX}{new}"
            self._change(lambda: directory.mkdir(exist_ok=True))
            self._change(lambda: replace(directory / "vmlinuz", image.vmlinuz))
            self._change(lambda: replace(directory / "initrd", image.initramfs))
        path, release = self._kernel_path(artifact), parse_os_release(image.os_release)
        argument = self._argument(booted.of_type_1.options, new, version)
        entry = bls.Entry(
            title=release.title or new,
            version=release.version or new,
            linux=f"{path}/vmlinuz",
            initrd=(f"{path}/initrd",),
            options=self._options(booted.of_type_1.options, argument, image),
        )
        self._change(lambda: shutil.rmtree(self._staged, ignore_errors=True))
        self._stage_entries(image, entry, booted.of_type_1)

    def _stage_uki(self, new: str, image: OsImage) -> None:
        (uki,) = self.machine.images.kernels[new]
        self._ukis.mkdir(parents=True, exist_ok=True)
        self._change(lambda: replace(self._ukis / f"{PREFIX}{new}.efi", uki))
        path, release = f"/{UKIS}/{PREFIX}{new}.efi", parse_os_release(image.os_release)
        label, version = release.boot_label or new, release.version or new
        if self._grub_file:
            # [11.1 #8] The first one, which need not be the booted one.
            entries = [
                grubcfg.uki_entry(label, Digest.from_hex(new), path),
                *(found.entry for found in self._list()[:1] if isinstance(found.entry, MenuEntry)),
            ]
            menu = grubcfg.serialise_menu(entries)
            self._change(lambda: replace(self._staged, menu))
            return
        booted = next((e for e in self._list() if e.image_id == self.machine.booted_id), None)
        if booted is None:
            raise UpstreamError("the booted entry is not there")
        if self.age.mended:
            self._change(lambda: shutil.rmtree(self._staged, ignore_errors=True))
        # [11.1 #8] Older programs do not clear the staged menu.
        self._stage_entries(
            image, bls.Entry(title=label, version=version, efi=path), booted.of_type_1
        )

    def _stage_entries(self, image: OsImage, first: bls.Entry, second: bls.Entry) -> None:
        self._change(lambda: self._staged.mkdir(parents=True, exist_ok=True))
        for rank, entry in enumerate((first, second)):
            self._step()
            self._write_entry(self._staged, os_id_of(image), entry, rank)

    def _argument(self, booted: str, new: str, version: int) -> str:
        """Return the argument that names the new image, as weak as that of the booted one."""
        _, optional = self._named_image(booted)
        return self.age.argument(new, version, optional=optional)

    def _options(self, booted: str, argument: str, image: OsImage) -> str:
        """Return the kernel arguments of the new deployment [3.5]; either spelling is replaced."""
        old = self.machine.images.image(self.machine.booted_id).kargs.split()
        wanted = image.kargs.split()
        arguments = cmdline.parse(booted)
        if self.age.knows_digests:
            other = "composefs=" if argument.startswith("composefs.") else "composefs.digest="
            arguments = [a for a in arguments if not a.startswith(other)]
        arguments = cmdline.add_or_modify(arguments, argument)
        for removed in old:
            if removed not in wanted:
                arguments = cmdline.remove_exact(arguments, removed)
        return cmdline.join(cmdline.extend(arguments, [k for k in wanted if k not in old]))

    def _shared(self, image: OsImage) -> str | None:
        """Return what the same kernel is there under [6.10]."""
        for name in os.listdir(self._kernels):
            if name.startswith(PREFIX):
                files = [self._kernels / name / part for part in ("vmlinuz", "initrd")]
                if not all(file.exists() for file in files):
                    raise UpstreamError(f"{name} is not whole")
                if [file.read_bytes() for file in files] == [image.vmlinuz, image.initramfs]:
                    return name.removeprefix(PREFIX)
        return None

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
        for path in sorted(read_etc(target).keys() - merged.keys()):
            self._change((target / path).unlink)
        for path, text in merged.items():
            self._step()
            write_etc(target, {path: text})

    def _exchange(self) -> None:
        """Put the staged menu in place, and delete the other one [2.4]."""
        self._step()
        with opened(self._live.parent) as fd:
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
            self._change(lambda: replace(self._staged, menu))
            # [6.6] The announcement stays, though what it announces was in the staged menu.
            self._exchange()
            return
        self._change(lambda: shutil.rmtree(self._staged, ignore_errors=True))
        self._change(lambda: self._marker.unlink(missing_ok=True))
        self._change(self._staged.mkdir)
        for rank, found in enumerate((first, second)):
            self._step()
            key = found.of_type_1.sort_key
            kept = re.fullmatch("bootc-(.*)-[01]", key or "") if self.age.mended else None
            os_id = kept[1] if kept else "bootc"
            self._write_entry(self._staged, os_id, found.of_type_1, rank)
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
            self._change(lambda: replace(self._staged, menu))
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
            artifact = path.name.removeprefix(PREFIX).removesuffix(".efi")
            if artifact in needed:
                continue
            if artifact == slots.booted:
                raise UpstreamError(f"Booted binaries '{artifact}' found for cleanup")
            self._change(lambda path=path: remove(path))  # type: ignore[misc]
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
            self._change(lambda path=path: remove(path))  # type: ignore[misc]
        live = {image_id for image_id in slots.all if (self._states / image_id).exists()}
        with self.machine.open() as system:
            self._upgrade_images(system.repository)
            streams = system.repository.streams
            manifests = set(filter(None, (self._manifest_of(i, system.repository) for i in live)))
            tags = [name for name in streams.refs("oci") if name.startswith(TAGS)]
            for manifest in manifests:
                name, content = tag_of(OciDigest.parse(manifest))
                if name not in tags:
                    self._step()
                    streams.set_ref(name, content)
            for name in tags:
                if name.removeprefix(TAGS) not in manifests:
                    self._step()
                    streams.remove_ref(name)
            self._step()
            present = [name for name in live if (self._images / name).exists()]
            gc.collect(system.repository, roots=sorted(present))

    def _upgrade_images(self, repository: Repository) -> None:
        """Give every tagged image an EROFS image of the format of the repository [5.3]."""
        version = self._format()
        for _, image in list_images(repository):
            if image.made(version, bootable=False) is None:
                root = stored_tree(repository, image.documents.diff_ids)
                made = repository.images.add(mkfs_erofs(root, version=version))
                self._step()
                named = {image_name(version, bootable=False): made}
                write_documents(repository, image.documents, named)

    def _manifest_of(self, image_id: str, repository: Repository) -> str | None:
        """Return the manifest of a deployment; of an old one by the image that it boots [8-8]."""
        origin = self._origin(image_id)
        if "image" in origin:
            return origin["image"]["manifest_digest"]
        for content_id in repository.streams.refs("oci").values():
            manifest = content_id.removeprefix("oci-manifest-")
            images = read_image(repository, OciDigest.parse(manifest)).images.values()
            if image_id in {image.hex for image in images}:
                return manifest
        return None

    # -- opening

    def _open(self) -> Slots:
        """Open the storage, and bring old names up to date [0.5, 6.11]."""
        self._steps = 0
        self._format()
        slots = self.slots()
        active = self._list()
        if all(found.prefixed for found in active):
            return slots
        if any(found.prefixed for found in active) or self._list(staged=True):
            # [11.1 #12] Entries that have the prefix are lost, and so is what is staged.
            raise Avoided("a mixed menu")
        if self._grub_file:
            menu = grubcfg.serialise_menu(
                entry for found in active if isinstance(entry := renamed(found.entry), MenuEntry)
            )
            self._change(lambda: replace(self._staged, menu))
        else:
            self._change(lambda: self._staged.mkdir(exist_ok=True))
            image = self.machine.images.image(slots.booted)
            for found in active:
                self._step()
                entry = renamed(found.entry)
                assert isinstance(entry, bls.Entry)
                prio = int(found.artifact == slots.booted)
                name = f"bootc_{os_id_of(image).replace('-', '_')}-{entry.version}-{prio}.conf"
                replace(self._staged / name, bls.serialise_entry(entry))
        # It renames and exchanges at once, as far as the machine can tell: interrupted between
        # the two it would leave entries of what is not there.
        self._step()
        for found in active:
            name = f"{found.artifact}.efi" if self._uki else found.artifact
            above = self._ukis if self._uki else self._kernels
            (above / name).rename(above / f"{PREFIX}{name}")
        killed, self.killed_at = self.killed_at, 0
        self._exchange()
        self.killed_at = killed
        return self.slots()

    def _named(self, directory: Path, suffix: str) -> Iterator[Path]:
        if directory.exists():
            for path in sorted(directory.iterdir()):
                fits = path.name.startswith(PREFIX) and path.name.endswith(suffix)
                if fits and path.is_dir() is (suffix == ""):
                    yield path


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
