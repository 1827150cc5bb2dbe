"""The writable half of a deployment, ``state/deploy/<image id>/`` in the physical root.

An image is read-only; what a machine may change lies here: ``etc``, a whole copy
of the image's; ``var``, a link to the one ``/var`` that all deployments share;
and the origin file, which says where the image came from and how it boots.

Promises: the origin is written last and everything is on the disk when
:func:`create_state` returns, so a deployment that has an origin is complete, and a
boot entry may be written next. Nothing is overwritten: state that exists belongs
to a machine's administrator. State that is removed gets another name first,
``.removed-<image id>-<number>``: no half of it can be taken for a deployment, and its
place is free whatever becomes of it.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from bootc.deploy.etc.diff import without_stamp
from bootc.errors import doing
from bootc.formats.digest import Digest
from bootc.formats.origin import Origin, serialise_origin
from bootc.formats.tree import Directory
from bootc.fs import atomic
from bootc.fs.descent import MountPoint
from bootc.fs.dir import Dir
from bootc.fs.mounts import mount_points_below
from bootc.fs.protection import clear_protection
from bootc.fs.tree_copy import copy_tree
from bootc.fs.tree_write import OpenContent, write_tree
from bootc.repository import layout


def create_state(
    root: Dir, etc: Directory, open_content: OpenContent, image_id: Digest, origin: Origin
) -> None:
    """Make the state directory of a deployment.

    Args:
        root: The physical root.
        etc: Its ``/etc``; the stamp of the last update is left out, which would hide this one.
        open_content: Opens the content of the files in it.
        image_id: What the deployment is called.
        origin: Where it came from.

    Raises:
        FileExistsError: the deployment has state already.
        ContentChanged, ContentUnknown: as :func:`~bootc.fs.tree_write.write_tree`.
        OSError: reading the content or writing failed.
    """
    with ExitStack() as stack:
        stack.enter_context(doing(f"Creating the state of deployment {image_id}"))
        deployments = stack.enter_context(root.ensure_dir(layout.STATE_DEPLOY))
        deployments.mkdir(image_id.hex)
        state = stack.enter_context(deployments.open_dir(image_id.hex))
        state.mkdir("etc", 0o700)
        with state.open_dir("etc") as target:
            write_tree(without_stamp(etc), target, open_content)
        state.symlink(layout.VAR_LINK, "var")
        # All else is on the disk before the origin says that the deployment is complete.
        state.sync()
        name = layout.origin_name(image_id.hex)
        atomic.write_file(state, name, serialise_origin(origin), durable=True)


def create_var(root: Dir, image: Dir) -> None:
    """Make the ``/var`` of all deployments from the image's, as the first installation does.

    Raises:
        OSError: reading the image or writing failed.
    """
    with ExitStack() as stack:
        stack.enter_context(doing("Creating /var"))
        var = stack.enter_context(root.ensure_dir(layout.OS_VAR))
        pristine = stack.enter_context(image.open_dir("var"))
        copy_tree(pristine, var)
        var.sync()


def remove_state(root: Dir, image_id: Digest) -> None:
    """Remove the state directory of a deployment. Nothing there is fine.

    Raises:
        MountPoint: something is mounted in it. It stays as it is.
        OSError: something in it cannot be removed. It is no deployment's state any more.
    """
    with (
        doing(f"Removing the state of deployment {image_id}"),
        root.open_dir(layout.STATE_DEPLOY) as deployments,
    ):
        if deployments.exists(image_id.hex):
            mounted = mount_points_below(deployments, image_id.hex)
            if mounted:
                raise MountPoint(mounted[0])
            deployments.remove_tree(_set_aside(deployments, image_id))


def set_state_aside(root: Dir, image_id: Digest) -> None:
    """Make the place of a deployment's state free; :func:`remove_leftover` does the rest.

    What is mounted in the state stays mounted, below the new name. Nothing there is fine.

    Raises:
        MountPoint: something is mounted on the directory itself.
        OSError: it cannot be renamed.
    """
    with (
        doing(f"Moving the state of deployment {image_id} aside"),
        root.open_dir(layout.STATE_DEPLOY) as deployments,
    ):
        if deployments.exists(image_id.hex):
            _set_aside(deployments, image_id)


def remove_leftover(root: Dir, name: str) -> None:
    """Remove what is left of a deployment's state.

    Raises:
        MountPoint: something is mounted in it. All else is gone.
        OSError: something in it cannot be removed. All else is gone.
    """
    with (
        doing("Removing what is left of a deployment's state"),
        root.open_dir(layout.STATE_DEPLOY) as deployments,
    ):
        deployments.remove_tree(name)


def _set_aside(deployments: Dir, image_id: Digest) -> str:
    """Rename the state of a deployment, and return the new name."""
    # Nothing can be renamed that is immutable, or that something is mounted on.
    try:
        with deployments.open_same_mount(image_id.hex) as state:
            clear_protection(state.fileno())
    except MountPoint:
        raise
    except OSError:
        pass  # no directory, or a damaged one: renaming tells whether that matters
    name = f"{layout.REMOVED_PREFIX}{image_id.hex}-{os.urandom(6).hex()}"
    deployments.rename(image_id.hex, name)
    os.fsync(deployments.fileno())
    return name
