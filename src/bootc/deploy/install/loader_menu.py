"""The kernel and the first menu of an installation."""

from __future__ import annotations

from collections.abc import Mapping

from bootc.boot.kernels import publish_resource
from bootc.boot.menu import open_menu
from bootc.boot.menu_compose import new_item
from bootc.boot.scheme import BootDirs
from bootc.boot.space import free_space, plan_space
from bootc.deploy.install.loader_installer import NewDeployment


def write_kernel(
    deployment: NewDeployment, boot: BootDirs, sizes: Mapping[str, int] | None = None
) -> str:
    """Write the kernel of a deployment where its menu entry will find it; return the boot digest.

    Args:
        deployment: The deployment.
        boot: The boot partition.
        sizes: What has to fit; None for the kernel alone.

    Raises:
        NoSpaceOnBoot: it does not fit.
        Error, OSError: as :func:`bootc.boot.kernels.publish_resource`.
    """
    booting = deployment.booting
    plan_space((), frozenset(), sizes or booting.resource.sizes, *free_space(boot.binaries))
    objects = deployment.repository.objects
    return publish_resource(boot, booting.image_id, booting.resource, objects)


def write_menu(deployment: NewDeployment, boot: BootDirs, *, systemd_version: int = 0) -> None:
    """Write the menu with the one entry of a deployment. It is on the disk when this returns.

    Raises:
        CmdlineError, CannotCompose: the entry cannot be written.
        OSError: writing failed.
    """
    booting = deployment.booting
    item = new_item(
        boot.scheme,
        booting.image_id,
        booting.os_release,
        options=booting.options,
        files=booting.resource.sizes,
        systemd_version=systemd_version,
    )
    menu = open_menu(boot)
    menu.write_staged([item])
    menu.commit(booting.image_id)
