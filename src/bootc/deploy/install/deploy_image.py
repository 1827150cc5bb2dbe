"""Installing an image to a mounted root file system, so that the machine boots it.

Promises an order: everything that the boot entry depends on (objects and image, boot loader,
kernel, state) is on the disk before the entry is written. The entry comes last and is the
commit point. An interruption before it leaves a disk that boots nothing, an interruption
after it leaves a complete installation.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from bootc.boot.scheme import BootDirs
from bootc.boot.space import NoSpaceOnBoot, free_space, plan_space
from bootc.deploy.bootable import check_space
from bootc.deploy.etc.apply import image_etc
from bootc.deploy.host.statedir_lifecycle import create_state, create_var
from bootc.deploy.install import bound_images, image_policy, root_keys
from bootc.deploy.install.aleph import aleph, write_aleph
from bootc.deploy.install.boot_choice import decide_booting
from bootc.deploy.install.checks import Decisions
from bootc.deploy.install.loader_installer import (
    Booting,
    BootTarget,
    LoaderInstaller,
    NewDeployment,
)
from bootc.deploy.install.mirror_esps import write_mirrors
from bootc.deploy.install.request import InstallRequest
from bootc.deploy.install.selinux import SelinuxState
from bootc.errors import doing
from bootc.events import Message, Sink, stage
from bootc.formats import cmdline
from bootc.formats.digest import Digest
from bootc.formats.origin import Origin, Waiver
from bootc.formats.tree import Directory
from bootc.fs import atomic, mounts
from bootc.fs.dir import Dir
from bootc.fs.interruption import undisturbed
from bootc.oci.pull import Pulled, pull
from bootc.oci.source import Source
from bootc.repository import layout
from bootc.repository.mounting import mount_composefs, open_verified_image
from bootc.repository.repository import Repository
from bootc.repository.sealing import VerityMissing

#: The directory of container storage, and the link by which images find it.
_BOUND_IMAGES = "bootc"
_BOUND_IMAGES_LINK = ("ostree", "bootc", "../composefs/bootc")
_ROOM_HINT = "make room on the partition, or make it larger"
_ESP_HINT = (
    "set esp-size in the table [install] of a file /etc/bootc/install/*.toml of the installing "
    "system, for a larger EFI system partition"
)
#: The mount point of the ESP in a running machine.
_ESP_MOUNT_POINT = "boot/efi"


def deploy_image(
    request: InstallRequest,
    decisions: Decisions,
    source: Source,
    target: BootTarget,
    sink: Sink,
    *,
    clear_boot: Callable[[], None] | None = None,
    keep: Callable[[], None] = lambda: None,
) -> Pulled:
    """Install the image of ``source``; when this returns, the machine boots it.

    Args:
        request: The user's request.
        decisions: What follows from it.
        source: The image.
        target: Where to install it.
        sink: Gets progress and messages.
        clear_boot: Empties the boot partitions. Until it is called, an older system there boots.
        keep: Called right after the commit point. No signal comes between the two, so an
            interruption does not undo an installation that boots.

    Raises:
        InsufficientSpace: the image does not fit.
        ImageNotBootable: it has no kernel to boot.
        UkiRefused: the request contradicts its unified kernel image.
        InstallRefused: the loader cannot start its kernel, or the user asks for bound images.
        NoSpaceOnBoot: its kernel does not fit on the boot partition.
        Error, OSError: pulling, mounting or writing failed.
    """
    loader, root = decisions.loader, target.root
    with _new_repository(root, decisions) as repository:
        pulled = _pull(request, repository, source, sink)
        booting = decide_booting(request, decisions, target.root_kargs, pulled, repository)
        _check_booting(loader, booting, sink)
        pulled = dataclasses.replace(pulled, image_id=booting.image_id)
        etc = _etc_of(request, repository, pulled, decisions, sink)
        boot, generic = loader.boot_dirs(target, booting.boot_type), request.generic_image
        programs = loader.program_sizes(pulled.root, generic=generic)
        kernel = loader.kernel_sizes(booting.resource)
        _make_boot_room(kernel, programs, target, boot, clear_boot, sink)
        with _mounted_image(repository, pulled.image_id) as image:
            deployment = NewDeployment(
                booting, pulled.root, image, repository, generic, decisions.skip_boot_uuid
            )
            boot_digest = _write_boot_files(loader, deployment, target, boot, sink)
            origin = _origin(request, decisions, target, pulled, booting, boot, boot_digest)
            with stage(sink, "state", "Writing the deployment's state"):
                _lay_out_root(root)
                create_var(root, image)
                _create_state(root, repository, etc, pulled.image_id, origin)
                write_aleph(root, _aleph(request, pulled, booting))
            repository.sync()
            with stage(sink, "entry", "Writing the boot entry"), undisturbed():
                loader.commit(deployment, target, boot)
                keep()
            write_mirrors(loader, target, boot, sink, generic=generic)
    return pulled


def _check_booting(loader: LoaderInstaller, booting: Booting, sink: Sink) -> None:
    """Ensure that the loader can start what the image boots, with its arguments."""
    loader.check_boot_type(booting.boot_type)
    # The image asks for arguments, too.
    loader.check_kernel_arguments(tuple(cmdline.parse(booting.options or "")))
    if booting.selinux is SelinuxState.FORCE_TARGET_DISABLED:
        sink(Message("notice: Target has SELinux enabled, overriding to disable"))


def _pull(request: InstallRequest, repository: Repository, source: Source, sink: Sink) -> Pulled:
    check_space(repository, source)
    pulled = pull(repository, source, sink)
    names = bound_images.names_in_tree(pulled.root)
    notice = bound_images.check(request.bound_images, names)
    if notice is not None:
        sink(Message(notice))
    return pulled


def _write_boot_files(
    loader: LoaderInstaller,
    deployment: NewDeployment,
    target: BootTarget,
    boot: BootDirs,
    sink: Sink,
) -> str:
    """Write the boot loader and the kernel, and return the boot digest. Nothing boots yet."""
    sink(Message(f"Bootloader: {loader.name}"))
    title = loader.title_in(deployment.mounted.exists)
    with stage(sink, "bootloader", f"Installing bootloader via {title}"):
        loader.write_programs(deployment, target, boot, sink)
    with stage(sink, "kernel", f"Writing the kernel to {loader.kernel_place}"):
        return loader.write_kernel(deployment, boot)


def _make_boot_room(
    kernel: Mapping[str, int],
    programs: Mapping[str, int],
    target: BootTarget,
    boot: BootDirs,
    clear_boot: Callable[[], None] | None,
    sink: Sink,
) -> None:
    """Check that kernel and boot loader will fit, before the loader is written; remove an old one.

    Args:
        kernel: The sizes of the files of the kernel, by name.
        programs: Those of the files of the boot loader on the ESP.
        target: The file systems.
        boot: The place of the kernel.
        clear_boot: As for :func:`deploy_image`.
        sink: Gets progress.

    Raises:
        NoSpaceOnBoot: they will not. The old boot loader is not removed.
        Error, OSError: removing failed.
    """
    sizes: list[tuple[Dir, Mapping[str, int]]] = [(boot.binaries, kernel)]
    if target.esp is boot.binaries:
        sizes = [(boot.binaries, {**kernel, **programs})]
    elif target.esp is not None and programs:
        sizes.append((target.esp, programs))
    for place, files in sizes:
        free_bytes, cluster_bytes = free_space(place)
        if clear_boot is not None:
            volume = os.statvfs(place.fileno())
            free_bytes = volume.f_frsize * volume.f_blocks
        try:
            plan_space((), frozenset(), files, free_bytes, cluster_bytes)
        except NoSpaceOnBoot as exc:
            exc.hint = _ESP_HINT if place is target.esp and target.esp_is_new else _ROOM_HINT
            raise
    if clear_boot is not None:
        with stage(sink, "clear", "Removing the old boot loader and its menu"):
            clear_boot()


def _origin(
    request: InstallRequest,
    decisions: Decisions,
    target: BootTarget,
    pulled: Pulled,
    booting: Booting,
    boot: BootDirs,
    boot_digest: str,
) -> Origin:
    mirrors = tuple(m.esp_partition.uuid for m in target.mirrors if m.esp_partition.uuid)
    return Origin(
        image=request.target,
        boot_type=boot.scheme.boot_type,
        boot_digest=boot_digest,
        manifest_digest=pulled.manifest_digest,
        signature=decisions.signature,
        record=dataclasses.replace(decisions.loader.record(target), mirrors=mirrors),
        uki=booting.uki,
        waived=(Waiver.MISSING_VERITY.value,) if request.allow_missing_verity else (),
    )


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


def _lay_out_root(root: Dir) -> None:
    """Create the fixed directories of a physical root, except repository and state."""
    with doing("Laying out the root file system"):
        root.ensure_dir(f"{layout.REPOSITORY}/{_BOUND_IMAGES}").close()
        root.ensure_dir(_ESP_MOUNT_POINT).close()
        directory, name, target = _BOUND_IMAGES_LINK
        with root.ensure_dir(directory) as ostree:
            # A system of ostree on the same disk has a directory there.
            if not ostree.exists(name):
                atomic.replace_symlink(ostree, name, target)


def _etc_of(
    request: InstallRequest,
    repository: Repository,
    pulled: Pulled,
    decisions: Decisions,
    sink: Sink,
) -> Directory:
    # From the image itself: the pulled tree has no SELinux labels.
    etc = image_etc(repository.objects, pulled.image_id)
    notice = image_policy.notice(etc, repository.objects, request.target, decisions.signature)
    if notice is not None:
        sink(Message(notice))
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
