"""Mounts of the host in a container: copied from the mount namespace of the host's process 1.

A container engine gives a container its own ``/dev`` and none of the host's storage. In the
process namespace of the host (``podman run --pid=host``), process 1 is the host's, and its mounts
can be copied: the kernel copies a mount only for a process in the namespace of the mount, so a
child process goes there, copies, and passes the copies back as descriptors.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import NoReturn

from bootc.errors import Error, doing
from bootc.fs import mounts
from bootc.fs.dir import Dir
from bootc.kernel import mount
from bootc.kernel.libc import AT_FDCWD

#: In the process namespace of the host, the first process that the host started.
_HOST_PROCESS = 1
#: One answer of the child: an errno, or 0 and a descriptor.
_ANSWER = struct.Struct("=i")
_ABSENT = -1


class HostMountError(Error):
    """A mount of the host cannot be copied."""


def is_host_visible(process: int = _HOST_PROCESS) -> bool:
    """Tell whether a process is outside of this container: it has other mounts."""
    try:
        return os.readlink(_namespace(process)) != os.readlink("/proc/self/ns/mnt")
    except OSError:
        # Without the right to look at it, there is no right to copy its mounts.
        return False


def attach_from_host(paths: Sequence[str], process: int = _HOST_PROCESS) -> list[str]:
    """Mount directories of the host at the same paths here; the process has its own mounts.

    Args:
        paths: Absolute paths of directories. A path that the host does not have, or that is the
            host's directory already, stays as it is. A missing mount point is created.
        process: A process of the host.

    Returns:
        The paths that were mounted.

    Raises:
        HostMountError: the mounts of the host cannot be copied.
    """
    wanted = [path for path in paths if not _is_same(path, process)]
    copies = _copy(wanted, process) if wanted else []
    try:
        for path, copy in copies:
            with doing(f"Mounting the host's {path}"):
                os.makedirs(path, exist_ok=True)
                mount.move_mount(copy, "", AT_FDCWD, path)
    finally:
        for _, copy in copies:
            os.close(copy)
    return [path for path, _ in copies]


@contextlib.contextmanager
def attached_host_root(process: int = _HOST_PROCESS) -> Iterator[str]:
    """Mount the root of the host, with all mounts below it, at a new mount point for the block.

    Outside of a container it is the root of this process.

    Args:
        process: A process of the host.

    Raises:
        HostMountError: the mounts of the host cannot be copied.
    """
    if is_host_visible(process):
        ((_, copy),) = _copy(["/"], process)
    else:
        with doing("Copying the mounts of this system"):
            copy = mount.open_tree(AT_FDCWD, "/", mount.OPEN_TREE_CLONE | mount.AT_RECURSIVE)
    try:
        with mounts.attach(copy) as path:
            yield path
    finally:
        os.close(copy)


def mount_devices() -> None:
    """Mount the kernel's own device nodes at ``/dev``, where new partitions appear."""
    with Dir.open("/dev") as devices:
        found = mounts.mount_of(devices)
    if found is not None and found.fstype == "devtmpfs":
        return
    with doing("Mounting the device nodes of the kernel at /dev"):
        mount.mount("devtmpfs", "/dev", "devtmpfs", 0)


def _namespace(process: int) -> str:
    return f"/proc/{process}/ns/mnt"


def _is_same(path: str, process: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.stat(f"/proc/{process}/root{path}"))
    except OSError:
        return False


def _copy(paths: Sequence[str], process: int) -> list[tuple[str, int]]:
    """Return detached copies of directories of the host with all mounts below them."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            child = os.fork()
            if child == 0:
                _serve_copies(theirs, paths, process)
        copies = []
        try:
            for path in paths:
                fd = _receive(ours, path)
                if fd is not None:
                    copies.append((path, fd))
        except BaseException:
            for _, fd in copies:
                os.close(fd)
            raise
        finally:
            os.waitpid(child, 0)
    return copies


def _serve_copies(channel: socket.socket, paths: Sequence[str], process: int) -> NoReturn:
    """Run in the child: enter the namespace, copy each path, and end."""
    status = 1
    try:
        entered = _enter(channel, process)
        for path in paths if entered else ():
            try:
                flags = mount.OPEN_TREE_CLONE | mount.AT_RECURSIVE
                fd = mount.open_tree(AT_FDCWD, path, flags)
            except FileNotFoundError:
                channel.send(_ANSWER.pack(_ABSENT))
            except OSError as exc:
                channel.send(_ANSWER.pack(exc.errno or _ABSENT))
            else:
                socket.send_fds(channel, [_ANSWER.pack(0)], [fd])
        status = 0
    finally:
        # Nothing of the parent's is cleaned up here.
        os._exit(status)


def _enter(channel: socket.socket, process: int) -> bool:
    try:
        namespace = os.open(_namespace(process), os.O_RDONLY | os.O_CLOEXEC)
        mount.setns(namespace, mount.CLONE_NEWNS)
    except OSError as exc:
        channel.send(_ANSWER.pack(exc.errno or _ABSENT))
        return False
    return True


def _receive(channel: socket.socket, path: str) -> int | None:
    data, fds, _, _ = socket.recv_fds(channel, _ANSWER.size, 1)
    if len(data) != _ANSWER.size:
        raise HostMountError(f"the host's {path} cannot be mounted: the helper process ended")
    (answer,) = _ANSWER.unpack(data)
    if fds:
        return fds[0]
    if answer == _ABSENT:
        return None
    raise HostMountError(
        f"the host's {path} cannot be mounted: {os.strerror(answer)}",
        hint="run the container with podman run --privileged --pid=host",
    )
