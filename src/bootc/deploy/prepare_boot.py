"""Makes an image of a repository bootable without a host, for ``cfs oci prepare-boot``.

It writes an EROFS image, boot files and state directories for the initramfs step of composefs. No
origin is written, so the result is not a deployment of bootc.

Promises: the boot entry is the commit point. Everything that it needs is on the disk before it,
and a failure before it removes all boot files and new directories.

Source: composefs, "Writing entries".
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass

from bootc.boot.entry_files import write_boot_files
from bootc.boot.first_entry import (
    ENTRIES,
    BootFiles,
    NotAnEntry,
    first_boot_files,
    with_options,
)
from bootc.boot.image_content import ObjectSource
from bootc.boot.image_kernel import UkiFile
from bootc.boot.menu_read import images_of
from bootc.boot.uki import WrongUki, inspect_uki
from bootc.deploy.bootable import os_release_of
from bootc.deploy.host.statedir import has_origin
from bootc.deploy.host.statedir_lifecycle import overlay_state_created
from bootc.errors import Error, doing
from bootc.formats import bls, cmdline
from bootc.formats.digest import Digest
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.tree import Directory
from bootc.formats.verity import verity_digest
from bootc.fs.dir import Dir
from bootc.fs.parents import directories_made
from bootc.oci.documents import write_documents
from bootc.oci.mismatch import explain_mismatch
from bootc.oci.names import FORMAT_VERSIONS, image_name
from bootc.oci.stored import StoredImage
from bootc.oci.trees import boot_tree
from bootc.printable import shown
from bootc.repository.repository import Repository

_log = logging.getLogger(__name__)


class IsDeployment(Error):
    """The image is a deployment of bootc, whose state must not change."""


@dataclass(frozen=True, slots=True)
class BootRequest:
    """How an image shall boot.

    Attributes:
        version: The version of the image format. A unified kernel image chooses it itself.
        optional: Tolerate missing fs-verity.
        entry_id: The name of the boot entry; None for the name of the image or of the kernel.
        arguments: Kernel arguments to add.
    """

    version: int
    optional: bool
    entry_id: str | None = None
    arguments: Sequence[str] = ()


def prepare_boot(
    repository: Repository,
    whole: Directory,
    bootdir: str,
    request: BootRequest,
    *,
    keep_for: StoredImage | None = None,
) -> Digest:
    """Write the EROFS image of a tree, its boot files and its state directories.

    Args:
        repository: The repository; writable.
        whole: The tree, with the content of ``/boot``.
        bootdir: The directory for the boot files. It is made if it does not exist.
        request: How the image shall boot.
        keep_for: The container image that the tree is made of. Garbage collection keeps the EROFS
            image as long as it keeps this one.

    Returns:
        The digest of the EROFS image.

    Raises:
        ImageNotBootable: the image has no kernel.
        NotAnEntry: a name or an argument does not fit into a boot entry.
        WrongUki: the unified kernel image boots another image.
        IsDeployment: the image is a deployment of bootc.
        NoSpaceOnBoot: ``bootdir`` has too little room.
        Error, OSError: the image is damaged, or writing failed.
    """
    objects = repository.objects
    os_release = os_release_of(repository, whole)
    found = first_boot_files(whole, objects, os_release, entry_id=request.entry_id)
    booted = boot_tree(repository, whole)
    if found.uki is not None:
        images = _named_images(repository, whole, booted, found.uki, request)
    else:
        data = mkfs_erofs(booted, version=request.version)
        images = {request.version: data}
    ids = {version: verity_digest(data, repository.algorithm) for version, data in images.items()}
    image_id = next(iter(ids.values()))
    found = _with_entry(found, image_id, request)
    sysroot = os.path.dirname(repository.dir.path)
    for digest in ids.values():
        if has_origin(sysroot, digest):
            raise IsDeployment(
                f"{digest} has the state of a deployment",
                hint="bootc upgrade and bootc rollback write its boot entry",
            )
    for data in images.values():
        repository.images.add(data)
    if keep_for is not None:
        _keep(repository, keep_for, ids)
    repository.sync()
    with contextlib.ExitStack() as stack:
        for digest in ids.values():
            stack.enter_context(overlay_state_created(sysroot, digest))
        stack.enter_context(directories_made(bootdir))
        _write(stack.enter_context(Dir.open(bootdir)), found, objects, tuple(ids.values()))
    return image_id


def _write(boot: Dir, found: BootFiles, objects: ObjectSource, image_ids: Sequence[Digest]) -> None:
    replaces = _boots_another(boot, found, image_ids)
    write_boot_files(boot, found, objects)
    if replaces:
        _log.warning(
            "the boot entry %s booted another image before; --entry-id keeps both entries",
            shown(found.entry_name),
        )


def _boots_another(boot: Dir, found: BootFiles, ids: Sequence[Digest]) -> bool:
    """Tell whether the entry that is about to be replaced boots another image."""
    path = f"{ENTRIES}/{found.entry_name}"
    if found.entry is None or not boot.exists(path):
        return False
    try:
        images = images_of(bls.parse_entry(boot.read_bytes(path, bls.MAX_ENTRY_BYTES)))
    except (Error, OSError):
        # It may be the entry of any system.
        return True
    return not set(images) & set(ids)


def _with_entry(found: BootFiles, image_id: Digest, request: BootRequest) -> BootFiles:
    if found.entry is None:
        return found
    # Versions 0 and 1 share a layout, and the argument calls both v1.
    argument = cmdline.composefs_karg(
        image_id.hex,
        optional=request.optional,
        version="" if request.version == 2 else "v1",
    )
    entry = with_options(found.entry, argument, request.arguments)
    return dataclasses.replace(found, entry=entry)


def _named_images(
    repository: Repository, whole: Directory, booted: Directory, uki: UkiFile, request: BootRequest
) -> dict[int, bytes]:
    """Return the images that a UKI names, by version; the one that boots first."""
    if request.arguments:
        raise NotAnEntry(
            "a unified kernel image contains its kernel arguments",
            hint="leave out --cmdline, or build the unified kernel image with the arguments",
        )
    named = inspect_uki(uki, repository.objects).images
    made = {}
    for version in dict.fromkeys((request.version, *FORMAT_VERSIONS)):
        data = mkfs_erofs(booted, version=version)
        made[verity_digest(data, repository.algorithm).hex] = version, data
    with doing(f"Reading {uki.path} of the image"):
        for argument in named.arguments:
            if argument.hex not in made:
                expected = Digest.from_hex(argument.hex)
                why = explain_mismatch(repository, whole, expected, uki_path=uki.path)
                raise WrongUki(
                    "The UKI has the wrong composefs digest "
                    f"(is '{argument.hex}', should be one of [{', '.join(made)}])",
                    hint=why.text,
                )
    return dict(made[hexadecimal] for hexadecimal in named.ids)


def _keep(repository: Repository, image: StoredImage, ids: dict[int, Digest]) -> None:
    # Images of version 0 have no name there.
    named = {
        image_name(version, bootable=True): digest
        for version, digest in ids.items()
        if version in FORMAT_VERSIONS
    }
    if any(image.images.get(name) != digest for name, digest in named.items()):
        write_documents(repository, image.documents, named)
