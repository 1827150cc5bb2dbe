"""The mount of an image by ``cfs`` verbs, and the options that these verbs share.

Promises: in a secure repository the image is measured and compared with its name, and
overlayfs checks every file. No option turns that off. The kernel mounts the image, not FUSE,
so this needs root.

Source: composefs, "Kernel mount" and "Verity requirement".
"""

from __future__ import annotations

import argparse
import contextlib
import os
from typing import TYPE_CHECKING

from bootc.cli.options import Option
from bootc.errors import Error, UsageError, doing

if TYPE_CHECKING:
    from bootc.formats.digest import Digest
    from bootc.repository.repository import Repository

OPTIONS = (
    Option(("--upperdir",), "Store changes in this directory; needs --workdir.", metavar="DIR"),
    Option(("--workdir",), "An empty directory beside --upperdir, for overlayfs.", metavar="DIR"),
    Option(("--read-write",), "Allow changes; needs --upperdir.", default=False),
    Option(
        ("--fuse",),
        "auto and no have no effect; yes is refused.",
        metavar="WHEN",
        default="auto",
        choices=("auto", "yes", "no"),
    ),
    Option(("--foreground",), "Has no effect: the kernel mounts the image.", default=False),
)


class NoFuse(Error):
    """The user asked for a mount through FUSE."""


def check_options(args: argparse.Namespace) -> None:
    """Refuse options that contradict each other. Called before anything is opened.

    Raises:
        UsageError: an option lacks another one that it needs.
        NoFuse: the user asked for FUSE.
    """
    if (args.upperdir is None) != (args.workdir is None):
        raise UsageError("--upperdir and --workdir need each other")
    if args.read_write and args.upperdir is None:
        raise UsageError("--read-write needs --upperdir")
    if args.fuse == "yes":
        raise NoFuse("mounting through FUSE is not supported", hint="leave out --fuse")


def mount_at(
    args: argparse.Namespace, repository: Repository, image: Digest, mountpoint: str
) -> None:
    """Mount an image of the repository at a directory, as the options say.

    Raises:
        ImageNotFound: the repository does not have the image.
        ImageNotTrusted: the repository is secure, and the image does not match its name.
        OSError: EPERM without root, or another error of the kernel.
    """
    from bootc.fs.dir import Dir
    from bootc.kernel.libc import AT_FDCWD
    from bootc.kernel.mount import move_mount
    from bootc.repository import layout
    from bootc.repository.mounting import mount_composefs, open_verified_image

    with contextlib.ExitStack() as stack, doing(f"Mounting at {mountpoint}"):
        image_fd = open_verified_image(
            repository.dir.fileno(), image.hex, require_verity=repository.secure
        )
        stack.callback(os.close, image_fd)
        objects = stack.enter_context(repository.dir.open_dir(layout.OBJECTS))
        upper_fds = None
        if args.upperdir is not None:
            upper = stack.enter_context(Dir.open(args.upperdir))
            work = stack.enter_context(Dir.open(args.workdir))
            upper_fds = upper.fileno(), work.fileno()
        mount_fd = mount_composefs(
            image_fd,
            objects.fileno(),
            name=image.hex,
            verity=repository.secure,
            upper_fds=upper_fds,
            read_only=not args.read_write,
        )
        stack.callback(os.close, mount_fd)
        move_mount(mount_fd, "", AT_FDCWD, mountpoint)
