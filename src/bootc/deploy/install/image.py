"""Brings an image onto a mounted root file system and makes the machine boot it.

The order is the promise. Everything the boot entry depends on (objects and image,
boot loader, kernel, state) is on the disk before the entry is written; the entry
comes last and is the commit point. An interruption before it leaves a disk that
boots nothing, one after it leaves a whole installation.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bootc.boot import bootctl, publish
from bootc.boot.budget import plan_space
from bootc.boot.discover import ImageNotBootable, Kernel, UkiFile, find_boot_resource
from bootc.boot.entries import compose_menu, new_item
from bootc.boot.kargs import read_kargs_d
from bootc.boot.scheme import BootDirs, Scheme
from bootc.boot.systemd_boot import Bootloader
from bootc.deploy import state
from bootc.deploy.etc.apply import image_etc
from bootc.deploy.install.preflight import Decisions
from bootc.deploy.install.request import InstallRequest
from bootc.deploy.install.secureboot import write_keys
from bootc.errors import Error, doing
from bootc.events import Message, Sink, stage
from bootc.formats import cmdline
from bootc.formats.digest import Digest
from bootc.formats.origin import BootType, Origin
from bootc.formats.osrelease import OsRelease, parse_os_release
from bootc.formats.tree import Directory, External, Inline, Leaf
from bootc.fs import atomic, mounts
from bootc.fs.dir import Dir
from bootc.kernel import mount
from bootc.kernel.libc import AT_EMPTY_PATH
from bootc.oci.pull import Pulled, pull, required_bytes
from bootc.oci.source import Source
from bootc.repository import layout
from bootc.repository.mounting import mount_composefs, open_verified_image
from bootc.repository.repository import Repository

_OS_RELEASE = "usr/lib/os-release"
_OS_RELEASE_MAX_BYTES = 1 << 20
#: Where container storage will be, and the link by which images find it.
_BOUND_IMAGES = "bootc"
_BOUND_IMAGES_LINK = ("ostree", "bootc", "../composefs/bootc")
#: Mount point for the ESP of a running machine.
_ESP_MOUNT_POINT = "boot/efi"


class InsufficientSpace(Error):
    """The root file system cannot take the image."""


def deploy_image(
    request: InstallRequest,
    decisions: Decisions,
    source: Source,
    *,
    root: Dir,
    root_uuid: uuid.UUID,
    esp: Dir,
    sink: Sink,
) -> Pulled:
    """Install the image of ``source``; when this returns, the machine boots it.

    Raises:
        InsufficientSpace: the image does not fit.
        ImageNotBootable: it has no kernel that could be started.
        Error, OSError: whatever pulling, mounting and writing raise.
    """
    secure = not decisions.allow_missing_verity
    boot = BootDirs(Scheme(Bootloader.SYSTEMD, BootType.BLS), menu=esp, binaries=esp)
    with Repository.create(root, secure=secure) as repository:
        check_space(repository, source)
        pulled = pull(repository, source, sink)
        kernel = _find_kernel(pulled.root)
        options = kernel_arguments(
            decisions,
            root_uuid,
            pulled.image_id,
            read_kargs_d(pulled.root, repository.objects.read_content, decisions.machine),
        )
        with _mounted_image(repository, pulled.image_id) as image:
            sink(Message("Bootloader: systemd"))
            with stage(sink, "bootloader", "Installing bootloader via systemd-boot"):
                _install_bootloader(image, esp, generic=request.generic_image)
                for path in write_keys(pulled.root, repository.objects.read_content, esp):
                    sink(Message(f"Wrote Secure Boot key: {path}"))
            with stage(sink, "kernel", "Writing the kernel to the EFI system partition"):
                check_boot_space(boot, kernel)
                boot_digest = publish.publish_kernel(
                    boot, pulled.image_id, kernel, repository.objects
                )
            origin = Origin(
                image=request.target,
                boot_type=BootType.BLS,
                boot_digest=boot_digest,
                manifest_digest=pulled.manifest_digest,
            )
            with stage(sink, "state", "Writing the deployment's state"):
                _lay_out_root(root)
                state.create_var(root, image)
                _create_state(root, repository, pulled.image_id, origin)
        repository.sync()
        with stage(sink, "entry", "Writing the boot entry"):
            _write_entry(boot, pulled.image_id, _os_release(repository, pulled), options)
    return pulled


def kernel_arguments(
    decisions: Decisions, root_uuid: uuid.UUID, image_id: Digest, kargs_d: list[str]
) -> list[str]:
    """Put the kernel's arguments together; of identical ones the first stays.

    Where the root is found, what configuration and user add, the deployment, and
    last what the image itself asks for.
    """
    arguments = ["rw"] if decisions.discoverable else [f"root=UUID={root_uuid}", "rw"]
    for text in decisions.kargs:
        arguments = cmdline.extend(arguments, cmdline.parse(text))
    composefs = cmdline.composefs_karg(image_id.hex, optional=decisions.allow_missing_verity)
    return cmdline.extend(arguments, [composefs, *kargs_d])


def check_space(repository: Repository, source: Source) -> None:
    """Make sure that the layers fit into the file system of the repository.

    Raises:
        InsufficientSpace: they do not, with both sizes.
    """
    volume = os.statvfs(repository.dir.fileno())
    available = volume.f_frsize * volume.f_bavail
    required = required_bytes(source)
    if available < required:
        raise InsufficientSpace(
            f"Insufficient free space for {source.imgref} "
            f"(available: {available} required: {required})"
        )


def _write_entry(
    boot: BootDirs, image_id: Digest, os_release: OsRelease, options: list[str]
) -> None:
    item = new_item(boot.scheme, image_id, os_release, options=cmdline.join(options))
    publish.write_staged(boot, compose_menu(boot.scheme, [item]))
    publish.commit_staged(boot)


def _find_kernel(root: Directory) -> Kernel:
    resource = find_boot_resource(root)
    if isinstance(resource, UkiFile):
        raise ImageNotBootable(
            f"the image boots a unified kernel image, {resource.path}, which is not supported"
        )
    return resource


def check_boot_space(boot: BootDirs, kernel: Kernel) -> None:
    """Make sure that the kernel fits into the file system it will be written to.

    Raises:
        NoSpaceOnBoot: it does not.
    """
    plan_space((), frozenset(), kernel.sizes, *publish.free_space(boot))


@contextmanager
def _mounted_image(repository: Repository, image_id: Digest) -> Iterator[Dir]:
    with ExitStack() as stack:
        image_fd = open_verified_image(
            repository.dir.fileno(), image_id.hex, require_verity=repository.secure
        )
        stack.callback(os.close, image_fd)
        objects = stack.enter_context(repository.dir.open_dir(layout.OBJECTS))
        mount_fd = mount_composefs(
            image_fd, objects.fileno(), name=image_id.hex, verity=repository.secure
        )
        stack.callback(os.close, mount_fd)
        path = stack.enter_context(mounts.attach(mount_fd))
        yield stack.enter_context(Dir.open(path))


def _install_bootloader(image: Dir, esp: Dir, *, generic: bool) -> None:
    """Run bootctl on the image, with the ESP at its ``/boot`` and a ``/tmp`` to write to.

    Both are put on directory descriptors: a link of the image's making cannot lead
    them elsewhere. They go when the image is unmounted.
    """
    with doing("Mounting the EFI system partition into the image"):
        esp_fd = mount.open_tree(esp.fileno(), "", mount.OPEN_TREE_CLONE | AT_EMPTY_PATH)
        _mount_over(esp_fd, image, "boot")
    if image.exists("tmp"):
        with doing("Mounting a temporary directory into the image"):
            _mount_over(_tmpfs(), image, "tmp")
    bootctl.install(root=image.path, esp_path="/boot", generic=generic)


def _mount_over(mount_fd: int, image: Dir, name: str) -> None:
    try:
        with image.open_dir(name) as target:
            mount.move_mount(mount_fd, "", target.fileno(), "")
    finally:
        os.close(mount_fd)


def _tmpfs() -> int:
    fs_fd = mount.fsopen("tmpfs")
    try:
        mount.fsconfig_create(fs_fd)
        attrs = mount.MOUNT_ATTR_NOEXEC | mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV
        return mount.fsmount(fs_fd, attrs=attrs)
    finally:
        os.close(fs_fd)


def _lay_out_root(root: Dir) -> None:
    """Make the fixed directories of a physical root besides repository and state."""
    with doing("Laying out the root file system"):
        root.ensure_dir(f"{layout.REPOSITORY}/{_BOUND_IMAGES}").close()
        root.ensure_dir(_ESP_MOUNT_POINT).close()
        directory, name, target = _BOUND_IMAGES_LINK
        with root.ensure_dir(directory) as ostree:
            atomic.replace_symlink(ostree, name, target)


def _create_state(root: Dir, repository: Repository, image_id: Digest, origin: Origin) -> None:
    objects = repository.objects
    # Of the image itself: the labels of its files are not in the tree that was pulled.
    etc = image_etc(objects, image_id)
    state.create_state(root, etc, lambda content: objects.open(content.digest), image_id, origin)


def _os_release(repository: Repository, pulled: Pulled) -> OsRelease:
    node = pulled.root.lookup(_OS_RELEASE)
    if not isinstance(node, Leaf) or not isinstance(node.content, Inline | External):
        return OsRelease({})
    with doing(f"Reading {_OS_RELEASE} of the image"):
        data = repository.objects.read_content(node.content, limit=_OS_RELEASE_MAX_BYTES)
    return parse_os_release(data)
