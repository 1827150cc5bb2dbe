"""Stores and names many objects in two calls, by the C extension or in Python.

:mod:`bootc.repository.objects` is the only user, and owns the order: content, ``syncfs``, names.
The functions here decide only what is plainly right. They leave an object alone
(:data:`UNDECIDED`) if the object of its name is damaged or has another content, if the file
system cannot do what is asked, or if anything fails. The caller then stores it alone and gets
the fault.

The Python functions are the specification of ``_store.c``. ``BOOTC_SPEED=pure`` chooses them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from bootc.formats._speed import SpeedChoiceError
from bootc.fs.atomic import write_all
from bootc.kernel import files, fsverity
from bootc.repository import sealing

#: States of an object that got no descriptor: it is there, or the caller has to store it.
PRESENT, UNDECIDED = -1, -2
_MODE = 0o644
_BENEATH = files.RESOLVE_BENEATH | files.RESOLVE_NO_SYMLINKS
_COMPARE_BYTES = 1 << 16
_BUCKET = 2


def store_batch_pure(
    objects_fd: int,
    contents: tuple[bytes, ...],
    paths: tuple[bytes, ...],
    digests: tuple[bytes, ...],
    algorithm: int,
    enable: bool,
    secure: bool,
    /,
) -> list[int]:
    """Write files for the contents that are not stored yet.

    Args:
        objects_fd: The directory of objects.
        contents: The contents, no two alike.
        paths: The paths of their objects below the directory.
        digests: Their fs-verity digests.
        algorithm: The number of the algorithm of fs-verity.
        enable: Enable fs-verity on new files.
        secure: Demand fs-verity of objects that are there.

    Returns:
        For each content the descriptor of a new file without a name, open for reading if
        ``enable`` is set; or :data:`PRESENT` if an object with this content is there; or
        :data:`UNDECIDED`. The caller closes the descriptors.
    """
    states = []
    failed = False
    for content, path, digest in zip(contents, paths, digests, strict=True):
        state: int | None = UNDECIDED
        # After a failure, of a full disk for example, the rest is left to the caller.
        if not failed:
            state = _look_up(objects_fd, path, content, (algorithm, digest), secure=secure)
            if state is None:
                state = _create(objects_fd, content, (algorithm, digest), enable=enable)
                failed = state == UNDECIDED
        states.append(UNDECIDED if state is None else state)
    return states


def name_batch_pure(
    objects_fd: int, fds: tuple[int, ...], paths: tuple[bytes, ...], /
) -> list[int]:
    """Give files their names below the directory of objects.

    Args:
        objects_fd: The directory of objects.
        fds: Descriptors of files without a name.
        paths: The path of each: a directory that exists, and a name.

    Returns:
        For each 0, or the errno of the failure, for example EEXIST or ENOENT.
    """
    return [_name(objects_fd, fd, path) for fd, path in zip(fds, paths, strict=True)]


def _look_up(
    objects_fd: int, path: bytes, content: bytes, digest: tuple[int, bytes], *, secure: bool
) -> int | None:
    """Return PRESENT, UNDECIDED, or None if there is no such object."""
    # O_NONBLOCK: a FIFO in an object's place must not hang us.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        fd = files.openat2(objects_fd, path, flags, 0, _BENEATH)
    except OSError as exc:
        return None if exc.errno == errno.ENOENT else UNDECIDED
    try:
        found = os.fstat(fd)
        right = stat.S_ISREG(found.st_mode) and found.st_size == len(content)
        measured = sealing.measure(fd, fsverity) if right else None
        right = right and (measured == digest or (measured is None and not secure))
        return PRESENT if right and _same_content(fd, content) else UNDECIDED
    except OSError:
        return UNDECIDED
    finally:
        os.close(fd)


def _same_content(fd: int, content: bytes) -> bool:
    at = 0
    while data := os.read(fd, _COMPARE_BYTES):
        if data != content[at : at + len(data)]:
            return False
        at += len(data)
    return at == len(content)


def _create(objects_fd: int, content: bytes, digest: tuple[int, bytes], *, enable: bool) -> int:
    """Return the descriptor of a new file, or UNDECIDED."""
    try:
        flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
        fd = os.open(".", flags, _MODE, dir_fd=objects_fd)
    except OSError:
        return UNDECIDED
    with contextlib.ExitStack() as made:
        made.callback(os.close, fd)
        try:
            os.fchmod(fd, _MODE)
            write_all(fd, content)
            if not enable:
                made.pop_all()
                return fd
            # fs-verity can be enabled only on files that nobody has open for writing.
            reading = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return UNDECIDED
    try:
        fsverity.enable(reading, digest[0])
        if fsverity.measure(reading) == digest:
            return reading
    except OSError:
        pass
    os.close(reading)
    return UNDECIDED


def _name(objects_fd: int, fd: int, path: bytes) -> int:
    bucket, _, name = path.partition(b"/")
    if len(bucket) != _BUCKET or not name or b"/" in name:
        return errno.EINVAL
    try:
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
        bucket_fd = files.openat2(objects_fd, bucket, flags, 0, _BENEATH)
        try:
            # With a directory descriptor CPython calls linkat(2) and follows the magic link.
            os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=bucket_fd, follow_symlinks=True)
        finally:
            os.close(bucket_fd)
    except OSError as exc:
        return exc.errno or errno.EIO
    return 0


#: Who makes the system calls: ``extension`` or ``python``.
USED = "python"
store_batch, name_batch = store_batch_pure, name_batch_pure
_demand = os.environ.get("BOOTC_SPEED", "")
if _demand != "pure":
    try:
        from bootc.repository import _store
    except ImportError:
        if _demand == "c":
            raise SpeedChoiceError(
                "BOOTC_SPEED=c demands the compiled extension, and the object store has none",
                hint="without BOOTC_SPEED Python is used instead",
            ) from None
    else:
        USED = "extension"
        store_batch, name_batch = _store.store_batch, _store.name_batch
