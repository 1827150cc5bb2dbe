"""Reads the ``/etc`` of a deployment, and gives a deployment another one.

Owns: what lies under ``etc`` and ``etc.merged`` in a state directory. A deployment's files
are read past every mount that lies over them: a bind mount on ``/etc/x`` is no
configuration and never copied.

Promises: the new ``/etc`` is wholly on the disk before it gets its name, and gets it in
one step, so at every moment there is either the old one or the new one; whatever an
interruption leaves, repeating :func:`replace_etc` ends the same. The flags of chattr(1) are
set after that step, since the kernel renames nothing that has one.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from bootc.errors import Error, doing, one_line
from bootc.formats.digest import Algorithm, Digest
from bootc.formats.tree import Directory, External, Leaf
from bootc.fs import atomic
from bootc.fs.dir import Dir
from bootc.fs.protection import clear_protection
from bootc.fs.tree_read import TreeChanged, read_tree
from bootc.fs.tree_write import OpenContent, protect_tree, write_tree
from bootc.kernel import mount
from bootc.kernel.libc import AT_EMPTY_PATH
from bootc.repository.content import read_image_tree
from bootc.repository.objects import Objects
from bootc.repository.sink import DigestOnly

_log = logging.getLogger(__name__)

_ETC = "etc"
_MERGED = "etc.merged"

#: What can be read and written again within the five minutes that a shutdown has, by a slow
#: disk: some 30 MB a second.
_MAX_DATA_BYTES = 4 << 30

_ATTEMPTS = 4
_RETRY_WAIT_S = 0.1
#: Where mounts cannot be left out: no privilege, mounts that belong to another user namespace,
#: a filter of system calls.
_NO_CLONE = (errno.EPERM, errno.EINVAL, errno.ENOSYS)


class EtcBusy(Error):
    """``/etc`` changed whenever it was read."""


class EtcMissing(Error):
    """An image has no ``/etc``."""


@dataclass(frozen=True, slots=True)
class CurrentEtc:
    """An ``/etc`` as it was read, and its files."""

    tree: Directory
    _directory: Dir
    _paths: Mapping[Digest, bytes]

    def open_content(self, content: External) -> int:
        """Open a file that has this content, or had it when it was read.

        Raises:
            FileNotFoundError: none has.
            OSError: it cannot be opened.
        """
        path = self._paths.get(content.digest)
        if path is None:
            raise FileNotFoundError(
                errno.ENOENT,
                "no file has this content",
                f"{self._directory.path}: {content.digest}",
            )
        return self._directory.open_file(os.fsdecode(path), os.O_RDONLY | os.O_NONBLOCK)


@contextmanager
def read_etc(state: Dir, algorithm: Algorithm) -> Iterator[CurrentEtc]:
    """Read the ``/etc`` of a state directory; its files can be opened until the end of the block.

    Args:
        state: ``state/deploy/<id>`` of the physical root.
        algorithm: What names the content of files, as in the images to compare with.

    Raises:
        EtcBusy: something was changed meanwhile, each time it was tried.
        TreeTooLarge: its files hold more than can be carried to another deployment.
        OSError: something cannot be read; a note names it.
    """
    with ExitStack() as stack:
        with doing(f"Reading {state.path}/{_ETC}"):
            etc = _open_past_mounts(state, stack)
            tree = _read_quiet(etc, algorithm)
        paths = {
            node.content.digest: path[1:]
            for path, node in tree.walk()
            if isinstance(node, Leaf) and isinstance(node.content, External)
        }
        yield CurrentEtc(tree, etc, paths)


def image_etc(objects: Objects, image_id: Digest) -> Directory:
    """Return the ``/etc`` of an image of the repository.

    Raises:
        EtcMissing: it has none.
        FileNotFoundError: there is no such image.
        VerityMissing, ObjectCorrupt: as :meth:`Objects.read`.
        InvalidImage: it is no image.
    """
    etc = read_image_tree(objects, image_id, below=[_ETC]).lookup(_ETC)
    if not isinstance(etc, Directory):
        raise EtcMissing(
            f"image {image_id} has no directory /etc",
            hint="an image that boots brings the defaults of its configuration",
        )
    return etc


def contents(objects: Objects, current: CurrentEtc) -> OpenContent:
    """Return what opens the files of a merge: objects where there are, else local files."""

    def open_content(content: External) -> int:
        if objects.exists(content.digest):
            return objects.open(content.digest)
        return current.open_content(content)

    return open_content


def replace_etc(state: Dir, tree: Directory, open_content: OpenContent) -> None:
    """Make ``tree`` the ``/etc`` of a state directory that has one.

    Raises:
        ContentChanged, ContentUnknown, OSError: as :func:`replace_directory`.
    """
    replace_directory(state, _ETC, _MERGED, tree, open_content)


def replace_directory(
    parent: Dir, name: str, beside: str, tree: Directory, open_content: OpenContent
) -> None:
    """Make ``tree`` the content of a directory that exists. It is on the disk then.

    An exchange replaces the directory, so an interruption leaves the old or the new one.

    Args:
        parent: The directory above it.
        name: Its name.
        beside: The name under which the result is made. What has this name is removed.
        tree: The new content.
        open_content: Opens the content of a file.

    Raises:
        ContentChanged, ContentUnknown: as :func:`~bootc.fs.tree_write.write_tree`; the old
            directory is kept.
        OSError: also if there is no such directory.
    """
    with doing(f"Replacing {parent.path}/{name}"):
        parent.remove_tree(beside)
        try:
            parent.mkdir(beside, 0o700)
            with parent.open_dir(beside) as merged:
                write_tree(tree, merged, open_content)
            parent.sync()
            with parent.open_dir(name) as old:
                clear_protection(old.fileno())
            atomic.exchange(parent, beside, name)
        except BaseException:
            with suppress(OSError):
                parent.remove_tree(beside)
            raise
        with parent.open_dir(name) as replaced:
            protect_tree(tree, replaced)
        parent.sync()
    try:
        parent.remove_tree(beside)
    except OSError as exc:
        # It is removed with the state of the deployment.
        _log.warning("the previous %s is kept: %s", name, one_line(exc))


def _open_past_mounts(state: Dir, stack: ExitStack) -> Dir:
    """Open ``etc`` as its file system has it.

    What is mounted on the live ``/etc`` can show here as well: the two are one mount made
    twice, and mounts propagate between such.
    """
    try:
        clone = mount.open_tree(state.fileno(), "", mount.OPEN_TREE_CLONE | AT_EMPTY_PATH)
    except OSError as exc:
        if exc.errno not in _NO_CLONE:
            raise
        return stack.enter_context(state.open_dir(_ETC))
    stack.callback(os.close, clone)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
    return stack.enter_context(Dir(os.open(_ETC, flags, dir_fd=clone), f"{state.path}/{_ETC}"))


def _read_quiet(etc: Dir, algorithm: Algorithm) -> Directory:
    """Read a directory that others write to now and then."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return read_tree(etc, DigestOnly(algorithm), limit_bytes=_MAX_DATA_BYTES)
        # The latter two of a name that was there when its directory was listed.
        except (TreeChanged, FileNotFoundError, NotADirectoryError) as exc:
            if attempt == _ATTEMPTS:
                raise EtcBusy(
                    f"{etc.path} changed each of the {_ATTEMPTS} times it was read",
                    hint="find out what keeps writing to /etc, stop it, and repeat the command",
                ) from exc
            time.sleep(_RETRY_WAIT_S * attempt)
    raise AssertionError("unreachable")
