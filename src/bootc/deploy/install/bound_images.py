"""The logically bound images of an image: container images that its services run.

An image names them by links in ``usr/lib/bootc/bound-images.d``. Upstream copies them into the
container storage of a machine with its ostree backend. With the composefs backend neither upstream
nor this program does. So a user who asks for them is refused, and any other user is told.

Source: bootc, "Logically bound images".
"""

from __future__ import annotations

from collections.abc import Collection

from bootc.deploy.install.request import BoundImages, InstallRefused
from bootc.formats.tree import Directory
from bootc.fs.imageroot import ImageRoot
from bootc.printable import listed

_DIRECTORY = "usr/lib/bootc/bound-images.d"


def names_in_tree(root: Directory) -> list[str]:
    """Return the names by which the tree of an image names bound images."""
    directory = root.lookup(_DIRECTORY)
    if not isinstance(directory, Directory):
        return []
    return [name.decode("utf-8", "surrogateescape") for name, _ in directory.sorted_entries()]


def names_in_root(root: ImageRoot) -> list[str]:
    """Return the same for an unpacked image.

    Raises:
        OSError: the directory cannot be read.
    """
    try:
        directory = root.open_dir(_DIRECTORY)
    except NotADirectoryError:
        return []
    if directory is None:
        return []
    with directory:
        return sorted(directory.names())


def check(asked: BoundImages | None, names: Collection[str]) -> str | None:
    """Return the notice for a user who did not say what happens to the bound images, or None.

    Args:
        asked: The request.
        names: The names of bound images.

    Raises:
        InstallRefused: the user asks for bound images, and there are some.
    """
    if not names or asked is BoundImages.SKIP:
        return None
    if asked is not None:
        raise InstallRefused(
            f"--bound-images {asked} does not work with the composefs backend, and the image has "
            f"bound images: {listed(names)}",
            hint="use --bound-images skip, and pull them on the installed machine with podman",
        )
    return (
        f"notice: the bound images of the image are not installed: {listed(names)} "
        "(--bound-images skip accepts that)"
    )
