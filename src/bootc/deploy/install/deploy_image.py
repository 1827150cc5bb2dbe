"""Installing an image to a mounted root file system, so that the machine boots it.

Promises an order: everything that the boot entry depends on (objects and image, boot loader,
kernel, state) is on the disk before the entry is written. The entry comes last and is the
commit point. An interruption before it leaves a disk that boots nothing, an interruption
after it leaves a complete installation.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from bootc.boot import bootctl, menu_write
from bootc.boot.firmware_entries import ProgramPlace, ensure_entry
from bootc.boot.kernels import publish_resource
from bootc.boot.loader import Bootloader
from bootc.boot.menu_compose import compose_menu, new_item
from bootc.boot.scheme import BootDirs, Scheme
from bootc.boot.space import free_space, plan_space
from bootc.boot.systemd_boot import installed_version, loader_programs
from bootc.deploy.bootable import check_space
from bootc.deploy.etc.apply import image_etc
from bootc.deploy.host.statedir_lifecycle import create_state, create_var
from bootc.deploy.install import root_keys
from bootc.deploy.install.aleph import aleph, write_aleph
from bootc.deploy.install.boot_choice import Booting, decide_booting
from bootc.deploy.install.checks import Decisions
from bootc.deploy.install.partition import Partition
from bootc.deploy.install.request import InstallRequest
from bootc.deploy.install.secureboot import write_keys
from bootc.deploy.install.selinux import SelinuxState
from bootc.errors import Error, doing, one_line
from bootc.events import Message, Sink, stage
from bootc.formats.digest import Digest
from bootc.formats.origin import BootRecord, BootType, Origin
from bootc.formats.tree import Directory
from bootc.fs import atomic, mounts
from bootc.fs.dir import Dir
from bootc.kernel import mount
from bootc.kernel.efivars import EFIVARS
from bootc.kernel.libc import AT_EMPTY_PATH
from bootc.oci.pull import Pulled, pull
from bootc.oci.source import Source
from bootc.repository import layout
from bootc.repository.content import read_content
from bootc.repository.mounting import mount_composefs, open_verified_image
from bootc.repository.repository import Repository
from bootc.repository.sealing import VerityMissing

_log = logging.getLogger(__name__)

#: The directory of container storage, and the link by which images find it.
_BOUND_IMAGES = "bootc"
_BOUND_IMAGES_LINK = ("ostree", "bootc", "../composefs/bootc")
#: The mount point of the ESP in a running machine.
_ESP_MOUNT_POINT = "boot/efi"
#: Upstream's configuration of systemd-boot for unified kernel images; bootctl's file wins.
_LOADER_CONF = "loader/loader.conf"
_LOADER_CONF_TEXT = b"timeout 5"


def deploy_image(
    request: InstallRequest,
    decisions: Decisions,
    source: Source,
    *,
    root: Dir,
    root_uuid: uuid.UUID,
    esp: Dir,
    esp_partition: Partition,
    sink: Sink,
) -> Pulled:
    """Install the image of ``source``; when this returns, the machine boots it.

    Raises:
        InsufficientSpace: the image does not fit.
        ImageNotBootable: it has no kernel to boot.
        UkiRefused: the request contradicts its unified kernel image.
        NoSpaceOnBoot: its kernel does not fit on the ESP.
        Error, OSError: pulling, mounting or writing failed.
    """
    with _new_repository(root, decisions) as repository:
        check_space(repository, source)
        pulled = pull(repository, source, sink)
        booting = decide_booting(request, decisions, root_uuid, pulled, repository)
        if booting.selinux is SelinuxState.FORCE_TARGET_DISABLED:
            sink(Message("notice: Target has SELinux enabled, overriding to disable"))
        pulled = dataclasses.replace(pulled, image_id=booting.image_id)
        etc = _etc_of(repository, pulled, decisions, sink)
        boot = BootDirs(Scheme(Bootloader.SYSTEMD, booting.boot_type), menu=esp, binaries=esp)
        with _mounted_image(repository, pulled.image_id) as image:
            sink(Message("Bootloader: systemd"))
            with stage(sink, "bootloader", "Installing bootloader via systemd-boot"):
                _install_bootloader(image, boot, generic=request.generic_image)
                if not request.generic_image:
                    _check_firmware(esp, esp_partition)
                for path in write_keys(pulled.root, partial(read_content, repository.objects), esp):
                    sink(Message(f"Wrote Secure Boot key: {path}"))
            with stage(sink, "kernel", "Writing the kernel to the EFI system partition"):
                plan_space((), frozenset(), booting.resource.sizes, *free_space(esp))
                boot_digest = publish_resource(
                    boot, pulled.image_id, booting.resource, repository.objects
                )
            origin = Origin(
                image=request.target,
                boot_type=booting.boot_type,
                boot_digest=boot_digest,
                manifest_digest=pulled.manifest_digest,
                signature=decisions.signature,
                record=BootRecord(Bootloader.SYSTEMD.value, "uefi", esp_partition.uuid or None),
            )
            with stage(sink, "state", "Writing the deployment's state"):
                _lay_out_root(root)
                create_var(root, image)
                _create_state(root, repository, etc, pulled.image_id, origin)
                write_aleph(root, _aleph(request, pulled, booting))
        repository.sync()
        with stage(sink, "entry", "Writing the boot entry"):
            _write_entry(boot, pulled.image_id, booting)
    return pulled


def _write_entry(boot: BootDirs, image_id: Digest, booting: Booting) -> None:
    item = new_item(
        boot.scheme,
        image_id,
        booting.os_release,
        options=booting.options,
        systemd_version=installed_version(boot.menu),
    )
    menu_write.write_staged(boot, compose_menu(boot.scheme, [item]))
    menu_write.commit_staged(boot, image_id)


def _new_repository(root: Dir, decisions: Decisions) -> Repository:
    try:
        # Even if the UKI tolerates missing fs-verity, it is enabled where possible.
        return Repository.create(root, secure=not decisions.allow_missing_verity)
    except VerityMissing as exc:
        exc.hint = f"{exc.hint}; or give --allow-missing-verity"
        raise


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


def _install_bootloader(image: Dir, boot: BootDirs, *, generic: bool) -> None:
    """Run bootctl on the image, with the ESP at its ``/boot`` and a ``/tmp`` to write to.

    Both are mounted on directory descriptors, so a link in the image cannot redirect them. They
    disappear when the image is unmounted.
    """
    with doing("Mounting the EFI system partition into the image"):
        esp_fd = mount.open_tree(boot.menu.fileno(), "", mount.OPEN_TREE_CLONE | AT_EMPTY_PATH)
        _mount_over(esp_fd, image, "boot")
    if image.exists("tmp"):
        with doing("Mounting a temporary directory into the image"):
            _mount_over(_tmpfs(), image, "tmp")
    bootctl.install(root=image.path, esp_path="/boot", generic=generic)
    if boot.scheme.boot_type is BootType.UKI and not boot.menu.exists(_LOADER_CONF):
        with doing(f"Writing {_LOADER_CONF}"), boot.menu.ensure_dir("loader") as directory:
            atomic.write_file(directory, "loader.conf", _LOADER_CONF_TEXT, durable=True)


def _check_firmware(esp: Dir, partition: Partition) -> None:
    """Make sure that the firmware of this machine starts the new systemd-boot.

    bootctl writes no entry if it takes a chroot or a container for no machine. Without an entry
    the firmware starts ``EFI/BOOT`` of the disk, unless another entry comes first.
    """
    programs = loader_programs(esp)
    number = re.search(r"[0-9]+\Z", partition.node)
    if not programs or number is None or not partition.uuid or not os.path.isdir(EFIVARS):
        return
    place = ProgramPlace(
        int(number[0]),
        partition.first_sector,
        partition.sectors,
        uuid.UUID(partition.uuid),
        programs[0],
    )
    try:
        if ensure_entry(place, "Linux Boot Manager"):
            _log.info("bootctl wrote no boot entry of the firmware; the installer did")
    except (Error, OSError) as exc:
        _log.warning(
            "the firmware has no boot entry for the new disk, and starts its EFI/BOOT: %s",
            one_line(exc),
        )


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
    """Create the fixed directories of a physical root, except repository and state."""
    with doing("Laying out the root file system"):
        root.ensure_dir(f"{layout.REPOSITORY}/{_BOUND_IMAGES}").close()
        root.ensure_dir(_ESP_MOUNT_POINT).close()
        directory, name, target = _BOUND_IMAGES_LINK
        with root.ensure_dir(directory) as ostree:
            atomic.replace_symlink(ostree, name, target)


def _etc_of(repository: Repository, pulled: Pulled, decisions: Decisions, sink: Sink) -> Directory:
    # From the image itself: the pulled tree has no SELinux labels.
    etc = image_etc(repository.objects, pulled.image_id)
    if decisions.root_keys is None:
        return etc
    sink(Message(f"Injected: etc/{root_keys.DROP_IN}"))
    return root_keys.with_keys(etc, root_keys.home_of_root(pulled.root), decisions.root_keys)


def _create_state(
    root: Dir, repository: Repository, etc: Directory, image_id: Digest, origin: Origin
) -> None:
    objects = repository.objects
    create_state(root, etc, lambda content: objects.open(content.digest), image_id, origin)


def _aleph(request: InstallRequest, pulled: Pulled, booting: Booting) -> dict[str, Any]:
    return aleph(
        request.source_name,
        request.target,
        pulled.manifest_digest,
        pulled.config,
        selinux=booting.selinux.value,
    )
