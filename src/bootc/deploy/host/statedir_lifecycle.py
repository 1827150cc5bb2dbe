"""Creates and removes the state directories of deployments, and creates the ``/var`` they share.

:mod:`bootc.deploy.host.statedir` says what is in a state directory, and reads and writes it.

Promises:

- :func:`create_state` writes the origin last, and everything is on the disk when it returns. So
  a deployment that has an origin is complete, and its boot entry may be written next.
- Nothing is overwritten: existing state belongs to the administrator of the machine.
- A state directory that is removed gets another name first, ``.removed-<image id>-<number>``.
  So nobody takes a half-removed one for a deployment, and its name is free even if something in
  it cannot be removed.
- Nothing below a mount point is removed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bootc.deploy.etc.diff import without_stamp
from bootc.deploy.host.statedir import StateDir
from bootc.errors import doing
from bootc.formats.digest import Digest
from bootc.formats.origin import Origin
from bootc.formats.tree import Directory
from bootc.fs.descent import MountPoint
from bootc.fs.dir import Dir
from bootc.fs.mounts import mount_points_below
from bootc.fs.parents import directories_made
from bootc.fs.protection import clear_protection
from bootc.fs.tree_copy import copy_tree
from bootc.fs.tree_write import OpenContent, write_tree
from bootc.repository import layout

#: What the initramfs step of composefs expects. Source: composefs, "composefs-setup-root".
_OVERLAY_STATE = ("var", "etc/upper", "etc/work")


def create_state(
    root: Dir, etc: Directory, open_content: OpenContent, image_id: Digest, origin: Origin
) -> None:
    """Create the state directory of a deployment.

    Args:
        root: The physical root.
        etc: Its ``/etc``. The stamp of the last update is left out: it would hide this update.
        open_content: Opens the content of the files in it.
        image_id: The id of the deployment.
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
        state = stack.enter_context(StateDir(deployments.open_dir(image_id.hex), image_id))
        state.dir.mkdir("etc", 0o700)
        with state.dir.open_dir("etc") as target:
            write_tree(without_stamp(etc), target, open_content)
        state.dir.symlink(layout.VAR_LINK, "var")
        # All else is on the disk before the origin says that the deployment is complete.
        state.dir.sync()
        state.write_origin(origin)


@contextmanager
def overlay_state_created(sysroot: str, image_id: Digest) -> Iterator[None]:
    """Create the state directory of an image that the initramfs step of composefs boots.

    That step mounts ``etc/upper`` over the ``/etc`` of the image. The directory gets no origin, so
    it is not a deployment of bootc. It is on the disk before the block begins. If the block fails,
    the new directories are removed.

    Args:
        sysroot: The directory with the ``state`` directory, which is made if it does not exist.
        image_id: The image.

    Raises:
        OSError: a directory cannot be made.
    """
    path = os.path.join(sysroot, layout.state_dir(image_id.hex))
    with ExitStack() as stack:
        for name in _OVERLAY_STATE:
            stack.enter_context(directories_made(os.path.join(path, name)))
        with Dir.open(path) as state:
            state.sync()
        yield


def create_var(root: Dir, image: Dir) -> None:
    """Create the ``/var`` of all deployments from the image's, as the first installation does.

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
    """Remove the state directory of a deployment. A missing one is fine.

    Raises:
        MountPoint: something is mounted in it. It is unchanged.
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
    """Free the name of a deployment's state; :func:`remove_leftover` does the rest.

    What is mounted in the state stays mounted, below the new name. A missing state is fine.

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
    # The kernel renames nothing that is immutable, or that something is mounted on.
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
