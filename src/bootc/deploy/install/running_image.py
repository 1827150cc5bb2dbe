"""The image that the installer's own container was made of, as the source of an installation.

``podman run --privileged --pid=host IMAGE bootc install to-disk /dev/vda`` names no source: podman
tells the container the id of its image in ``/run/.containerenv``, and the layers are in the host's
container storage. The container gets that storage and the host's device nodes from process 1.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass

from bootc.deploy.install.request import DEFAULT_TRANSPORT, InstallRefused
from bootc.errors import doing
from bootc.formats.containerenv import parse_containerenv
from bootc.formats.imgref import ImageReference
from bootc.fs import host_mounts, mounts
from bootc.fs.dir import Dir
from bootc.fs.imageroot import ImageRoot
from bootc.kernel import mount
from bootc.kernel.efivars import EFIVARS

CONTAINERENV = "run/.containerenv"
_MAX_CONTAINERENV_BYTES = 1 << 20
_IMAGE_ID = re.compile(r"[0-9a-f]{64}\Z")
#: podman shows and accepts ids with this many digits.
_SHORTEST_ID = 12
_STORAGE = "/var/lib/containers"
#: Directories of the host: container storage, device nodes, udev's database, and room for layers.
_HOST_DIRECTORIES = (_STORAGE, "/dev", "/run/udev", "/var/tmp")
_RUN = "podman run --privileged --pid=host"


@dataclass(frozen=True, slots=True)
class RunningImage:
    """The image of this container.

    Attributes:
        source: The image by its id, in the container storage of the host.
        name: The name that podman found it by, or None if it was run by its id.
    """

    source: ImageReference
    name: str | None

    @property
    def target(self) -> ImageReference | None:
        """The image reference for updates: the same name in a registry, as upstream decides."""
        return None if self.name is None else ImageReference.of(DEFAULT_TRANSPORT, self.name)


def find_running_image(root: ImageRoot) -> RunningImage:
    """Return the image of this container.

    Args:
        root: The root directory of this process.

    Raises:
        InstallRefused: this is no container of podman's that may install.
    """
    data = root.read(CONTAINERENV, _MAX_CONTAINERENV_BYTES)
    if data is None:
        raise InstallRefused(
            "Either --source-imgref must be defined or this command must be executed inside a "
            "podman container.",
            hint="name the image, for example --source-imgref docker://HOST/IMAGE, or run: "
            f"{_RUN} IMAGE bootc install to-disk DEVICE",
        )
    if os.geteuid() != 0:
        raise InstallRefused("This command must be executed as the root user")
    values = parse_containerenv(data)
    # Rootless podman without --privileged leaves the file empty: its user namespace shows it.
    if values.get("rootless") == "1" or _is_in_user_namespace():
        raise InstallRefused(
            "Cannot install from rootless podman; this command must be run as root"
        )
    if not data.strip():
        # podman writes into the file only for a container with all privileges.
        raise InstallRefused(
            "The container must be executed with full privileges (e.g. --privileged flag)",
            hint=f"run it with {_RUN}",
        )
    if not values.get("engine", "").startswith("podman"):
        raise InstallRefused(
            f"/{CONTAINERENV} does not say that podman runs this container",
            hint=f"run it with {_RUN}, or name an image with --source-imgref",
        )
    image_id = values.get("imageid", "").removeprefix("sha256:")
    if not _IMAGE_ID.match(image_id):
        raise InstallRefused(
            f"/{CONTAINERENV} does not say which image this container was made of",
            hint="name it with --source-imgref",
        )
    return RunningImage(
        ImageReference.of("containers-storage", image_id),
        _name_of(values.get("image", ""), image_id),
    )


def mount_host_directories(source: ImageReference) -> None:
    """Give this container the storage and the device nodes of the host.

    The process is in a mount namespace of its own.

    Args:
        source: The image of this container.

    Raises:
        InstallRefused: the container was not given the host's storage, and cannot take it; or this
            storage does not have the image.
    """
    if host_mounts.is_host_visible():
        host_mounts.attach_from_host(_HOST_DIRECTORIES)
    elif any(entry.path == _STORAGE for entry in mounts.read_mounts()):
        # The user mounted the storage.
        host_mounts.mount_devices()
    else:
        raise InstallRefused(
            "This command must be run with the podman --pid=host flag",
            hint=f"{_RUN} …, or with -v {_STORAGE}:{_STORAGE}",
        )
    _require_image(source)
    # A machine that was not started by UEFI has none.
    if os.path.isdir(EFIVARS) and not os.listdir(EFIVARS):
        with doing(f"Mounting the firmware's variables at {EFIVARS}"):
            mount.mount("efivarfs", EFIVARS, "efivarfs", 0)


def _name_of(image: str, image_id: str) -> str | None:
    # podman accepts the beginning of an id in place of a name.
    start = image.removeprefix("sha256:")
    by_id = len(start) >= _SHORTEST_ID and image_id.startswith(start)
    return None if not image or by_id else image


def _require_image(source: ImageReference) -> None:
    """Refuse a storage without the image, before skopeo says it in its own words."""
    # Each driver of the storage has a directory of its own: overlay-images, vfs-images, ….
    with contextlib.suppress(FileNotFoundError), Dir.open(f"{_STORAGE}/storage") as storage:
        for name in storage.names():
            if name.endswith("-images") and storage.exists(f"{name}/{source.name}"):
                return
    raise InstallRefused(
        f"the container storage of the host, {_STORAGE}/storage, does not have the image of this "
        f"container ({source.name[:_SHORTEST_ID]})",
        hint="name the image with --source-imgref",
    )


def _is_in_user_namespace() -> bool:
    """Tell whether root here is not root of the host."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        inside, outside, count = file.read(4096).split()[:3]
    return (inside, outside, count) != ("0", "0", "4294967295")
