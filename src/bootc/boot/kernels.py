"""Writes the kernel of a deployment, or its unified kernel image, to the boot partition.

The menu entry for it comes later (:mod:`bootc.boot.menu_write`), and
:mod:`bootc.boot.artifacts` removes it again. Promises, also on FAT, which has no journal:

* A file with its final name is complete. It is on the disk when the call returns.
* Each call can be interrupted at any point and repeated.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator

from bootc.boot import scheme as schemes
from bootc.boot.image_content import ObjectSource, checked_chunks, open_content
from bootc.boot.image_kernel import Kernel, UkiFile
from bootc.boot.scheme import (
    DEVICETREE,
    GLOBAL_ADDONS,
    INITRD,
    MICROCODE,
    UKIS,
    VMLINUZ,
    BootDirs,
    addons_dir,
    global_addon_file,
    uki_file,
)
from bootc.boot.slots import payload_path
from bootc.boot.uki import UkiFacts, check_names, inspect_uki
from bootc.boot.uki_parts import UkiParts
from bootc.errors import doing
from bootc.formats.digest import Digest
from bootc.formats.pe import Uki
from bootc.fs import atomic, rawdevice
from bootc.fs.atomic import write_stream

#: What a deployment boots with: two files of the image, a unified kernel image, or its parts.
BootResource = Kernel | UkiFile | UkiParts

#: Files that not every kernel has.
_MORE_FILES = (DEVICETREE, MICROCODE)


def publish_resource(
    dirs: BootDirs, deployment: Digest, resource: BootResource, objects: ObjectSource
) -> str:
    """Write the kernel or the unified kernel image of a deployment, and return its boot digest.

    Raises:
        Error, OSError: as :func:`publish_kernel` and :func:`publish_uki`.
    """
    if dirs.slots is not None:
        assert isinstance(resource, UkiFile), "ukiboot starts only unified kernel images"
        return _publish_payload(dirs, deployment, resource, objects)
    if isinstance(resource, UkiFile):
        return publish_uki(dirs, deployment, resource, objects)
    return publish_kernel(dirs, deployment, resource, objects)


def publish_kernel(
    dirs: BootDirs, deployment: Digest, kernel: Kernel | UkiParts, objects: ObjectSource
) -> str:
    """Write the kernel and the initramfs of a deployment, and return their boot digest.

    The boot digest is the SHA-256 of both files, one after the other, in hex. A device tree and
    microcode follow, if there are any. Deployments with the same boot digest boot the same kernel.

    Raises:
        PeError: the unified kernel image with the kernel is malformed.
        DamagedKernel: the stored content is not the content that the image names.
        OSError: reading or writing failed.
    """
    name = schemes.kernel_dir(deployment.hex)
    path = dirs.scheme.kernel_path(name)
    with doing(f"Writing the kernel to {dirs.menu.path}/{path}"):
        if dirs.menu.exists(path):
            return _write_kernel(dirs, path, kernel, objects)
        # The directory gets its name when both files are in it: the upstream program looks into
        # every directory of a kernel, and fails if one of the files is missing.
        temporary = dirs.scheme.kernel_path(f"{atomic.FILE_PREFIX}{name}")
        try:
            boot_digest = _write_kernel(dirs, temporary, kernel, objects)
            dirs.menu.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                dirs.menu.remove_tree(temporary)
            raise
        dirs.menu.sync()
    return boot_digest


def publish_uki(dirs: BootDirs, deployment: Digest, uki: UkiFile, objects: ObjectSource) -> str:
    """Write the unified kernel image and the add-ons of a deployment, and return its boot digest.

    The deployment has only the add-ons in ``uki`` afterwards. Other global add-ons remain.

    Raises:
        WrongUki: it boots another deployment. Nothing was written.
        PeError: it is not a unified kernel image.
        DamagedKernel: the stored content is not the content that the image names.
        NotOnDisk: the boot partition has another content than the one just written.
        OSError: reading or writing failed.
    """
    facts = _inspected(deployment, uki, objects)
    name = uki_file(deployment.hex)
    with (
        doing(f"Writing the kernel to {dirs.binaries.path}/{UKIS}"),
        dirs.binaries.ensure_dir(UKIS) as directory,
    ):
        _write_addons(dirs, deployment, uki, objects)
        write_stream(directory, name, checked_chunks(uki.leaf, objects, uki.path))
        dirs.binaries.sync()
    return facts.boot_digest


def write_to_slot(node: str, deployment: Digest, uki: UkiFile, objects: ObjectSource) -> str:
    """Write a unified kernel image to a partition of ukiboot, and return its boot digest.

    Raises:
        WrongUki, PeError, DamagedKernel: as :func:`publish_uki`.
        NotOnDisk, OSError: writing failed.
    """
    facts = _inspected(deployment, uki, objects)
    with doing(f"Writing the kernel to {node}"):
        rawdevice.write_content(node, checked_chunks(uki.leaf, objects, uki.path))
    return facts.boot_digest


def _inspected(deployment: Digest, uki: UkiFile, objects: ObjectSource) -> UkiFacts:
    facts = inspect_uki(uki, objects)
    with doing(f"Reading {uki.path} of the image"):
        check_names(facts.images, deployment)
    return facts


def _publish_payload(
    dirs: BootDirs, deployment: Digest, uki: UkiFile, objects: ObjectSource
) -> str:
    """Write a unified kernel image beside the state of its deployment, for the next shutdown."""
    facts = _inspected(deployment, uki, objects)
    parent, _, name = payload_path(deployment).rpartition("/")
    with (
        doing(f"Writing the kernel to {dirs.binaries.path}/{parent}"),
        dirs.binaries.ensure_dir(parent) as directory,
    ):
        write_stream(directory, name, checked_chunks(uki.leaf, objects, uki.path))
        dirs.binaries.sync()
    return facts.boot_digest


def boot_digest_of(resource: BootResource, objects: ObjectSource) -> str:
    """Return the boot digest of a kernel in the repository, without writing it.

    Raises:
        DamagedKernel: as :func:`publish_kernel`.
        PeError: it is not a unified kernel image.
        OSError: reading failed.
    """
    with doing("Reading the kernel of the image"):
        if isinstance(resource, UkiFile):
            with open_content(resource.leaf, objects) as file:
                return Uki.read(file).boot_digest()
        boot_digest = hashlib.sha256()
        for _, chunks in _kernel_chunks(resource, objects, boot_digest):
            for _ in chunks:
                pass
        return boot_digest.hexdigest()


def find_shared_kernel(dirs: BootDirs, boot_digest: str, candidates: Iterable[str]) -> str | None:
    """Return the first of these artifacts whose kernel has this boot digest, or None.

    This reads and hashes the files. It skips missing, damaged and half-written kernels, and
    directories with old names, because bootc writes no entries for these.
    """
    for artifact in candidates:
        path = dirs.scheme.kernel_path(schemes.kernel_dir(artifact))
        digest = hashlib.sha256()
        try:
            for name in (VMLINUZ, INITRD, *more_files(dirs, artifact)):
                for chunk in dirs.menu.read_chunks(f"{path}/{name}"):
                    digest.update(chunk)
        except OSError:
            continue
        if digest.hexdigest() == boot_digest:
            return artifact
    return None


def more_files(dirs: BootDirs, artifact: str) -> tuple[str, ...]:
    """Return the names of the files that a kernel on the boot partition has besides its initramfs.

    Raises:
        OSError: its directory cannot be read.
    """
    path = dirs.scheme.kernel_path(schemes.kernel_dir(artifact))
    return tuple(name for name in _MORE_FILES if dirs.menu.exists(f"{path}/{name}"))


def _write_kernel(
    dirs: BootDirs, path: str, kernel: Kernel | UkiParts, objects: ObjectSource
) -> str:
    boot_digest = hashlib.sha256()
    with dirs.menu.ensure_dir(path) as directory:
        # The name of the directory must be on the disk before its files, as the beginning of a
        # file in bootc.fs.atomic.write_stream.
        dirs.menu.sync()
        # An image with the same id may have another kernel.
        for stale in set(_MORE_FILES).difference(kernel.sizes):
            with contextlib.suppress(FileNotFoundError):
                directory.unlink(stale)
        for name, chunks in _kernel_chunks(kernel, objects, boot_digest):
            write_stream(directory, name, chunks)
    dirs.menu.sync()
    return boot_digest.hexdigest()


def _kernel_chunks(
    kernel: Kernel | UkiParts, objects: ObjectSource, boot_digest: hashlib._Hash
) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield the name and the content of each file; reading them updates the hash."""
    if isinstance(kernel, UkiParts):
        for name, chunks in kernel.contents(objects):
            yield name, _hashed(chunks, boot_digest)
        return
    for name, leaf in ((VMLINUZ, kernel.vmlinuz), (INITRD, kernel.initramfs)):
        yield name, _hashed(checked_chunks(leaf, objects, name), boot_digest)


def _hashed(chunks: Iterator[bytes], digest: hashlib._Hash) -> Iterator[bytes]:
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


def _write_addons(dirs: BootDirs, deployment: Digest, uki: UkiFile, objects: ObjectSource) -> None:
    if uki.global_addons:
        with dirs.binaries.ensure_dir(GLOBAL_ADDONS) as directory:
            for name, leaf in uki.global_addons.items():
                chunks = checked_chunks(leaf, objects, name)
                write_stream(directory, global_addon_file(name), chunks)
    path = f"{UKIS}/{addons_dir(uki_file(deployment.hex))}"
    if not uki.addons:
        with contextlib.suppress(FileNotFoundError):
            dirs.binaries.remove_tree(path)
        return
    with dirs.binaries.ensure_dir(path) as directory:
        for stale in set(directory.names()).difference(uki.addons):
            directory.remove_tree(stale)
        for name, leaf in uki.addons.items():
            write_stream(directory, name, checked_chunks(leaf, objects, name))
