"""Putting a deployment on the ESP: the kernel, the initramfs, then the entry.

Promises, on FAT, which has no journal:

* a file under its final name is whole: each is written under a temporary name,
  flushed and renamed;
* an entry is written last, after everything it names is on the disk. The rename
  of the entry is the point from which the machine can boot the deployment; a cut
  before it leaves files that nothing refers to, and the same call again replaces
  them.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

from bootc.boot import entries
from bootc.boot.discover import Kernel
from bootc.errors import Error, doing
from bootc.formats.bls import Entry, serialise_entry
from bootc.formats.digest import Digest
from bootc.formats.tree import External, Inline, Leaf
from bootc.formats.verity import VerityHasher
from bootc.fs import atomic
from bootc.fs.dir import Dir

_CHUNK_BYTES = 1 << 20
#: Clusters for directories and the entry, on top of the files.
_SPARE_CLUSTERS = 16


class NoSpaceOnEsp(Error):
    """The EFI system partition cannot take another kernel."""


class DamagedKernel(Error):
    """The stored kernel or initramfs is not the one of the image."""


class ObjectSource(Protocol):
    """Where the content of large files comes from; a repository's ``objects`` are one."""

    def open(self, digest: Digest) -> int:
        """Return a read-only descriptor of an object."""


def publish_kernel(esp: Dir, deployment: Digest, kernel: Kernel, objects: ObjectSource) -> str:
    """Write a deployment's kernel and initramfs, and return their boot digest.

    The boot digest is the SHA-256 of both files, one after the other, in hex;
    deployments with equal ones start alike.

    Raises:
        NoSpaceOnEsp: they do not fit. Nothing was written then.
        DamagedKernel: what is stored is not what the image names. The repository
            does not notice where the file system has no fs-verity, and the firmware
            would not either.
        OSError: reading or writing failed.
    """
    files = ((entries.VMLINUZ, kernel.vmlinuz), (entries.INITRD, kernel.initramfs))
    with doing("Writing the kernel to the EFI system partition"):
        _check_space(esp, [_content(leaf).size_bytes for _, leaf in files])
        boot_digest = hashlib.sha256()
        with esp.ensure_dir(entries.artifact_dir(deployment)) as directory:
            for name, leaf in files:
                _copy(_content(leaf), objects, directory, name, boot_digest)
        esp.sync()
    return boot_digest.hexdigest()


def publish_primary_entry(esp: Dir, name: str, entry: Entry) -> None:
    """Write the only entry of a fresh installation; from here on the machine can boot it.

    Raises:
        BlsError: the entry cannot be written as text.
        OSError: writing failed.
    """
    data = serialise_entry(entry)
    with doing(f"Writing boot entry {name}"), esp.ensure_dir(entries.ENTRIES) as directory:
        # The directory itself must not be news to the disk when the entry is.
        esp.sync()
        atomic.write_file(directory, name, data, durable=True)


def _content(leaf: Leaf) -> Inline | External:
    content = leaf.content
    assert isinstance(content, Inline | External), "find_kernel returns regular files"
    return content


def _open_content(
    content: Inline | External, objects: ObjectSource
) -> AbstractContextManager[BinaryIO]:
    if isinstance(content, Inline):
        return io.BytesIO(content.data)
    return open(objects.open(content.digest), "rb")


def _check_space(esp: Dir, sizes: list[int]) -> None:
    volume = os.statvfs(esp.fileno())
    cluster = volume.f_frsize
    needed = sum(-(-size // cluster) for size in sizes) + _SPARE_CLUSTERS
    if volume.f_bavail < needed:
        raise NoSpaceOnEsp(
            f"the EFI system partition has {volume.f_bavail * cluster} bytes free, "
            f"but the kernel needs {needed * cluster}",
            hint="make the partition larger or remove files from it",
        )


def _copy(
    content: Inline | External,
    objects: ObjectSource,
    directory: Dir,
    name: str,
    boot_digest: hashlib._Hash,
) -> None:
    """Copy a file into ``directory`` under its final name in one step, hashing on the way."""
    verity = VerityHasher(content.digest.algorithm) if isinstance(content, External) else None
    temporary = f"{atomic.FILE_PREFIX}{name}"
    with contextlib.suppress(FileNotFoundError):
        directory.unlink(temporary)
    fd = directory.open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        with open(fd, "wb") as target, _open_content(content, objects) as source:
            while chunk := source.read(_CHUNK_BYTES):
                target.write(chunk)
                boot_digest.update(chunk)
                if verity is not None:
                    verity.update(chunk)
            target.flush()
            os.fsync(target.fileno())
        if isinstance(content, External) and verity and verity.digest() != content.digest:
            raise DamagedKernel(f"the {name} in the repository is not the one of the image")
        directory.rename(temporary, name)
    except BaseException:
        with contextlib.suppress(OSError):
            directory.unlink(temporary)
        raise
    os.fsync(directory.fileno())
