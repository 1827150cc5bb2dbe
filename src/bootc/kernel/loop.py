"""Loop devices: a file, or a part of a file, as a block device (loop(4), ``linux/loop.h``).

The devices here detach themselves: the kernel does it when nobody has the device open or mounted
any more. So nothing is left of a process that is killed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A
LO_FLAGS_AUTOCLEAR = 4

_CONTROL = "/dev/loop-control"
#: fd, block size; device, inode, rdevice, offset, size limit; number, encryption, size of the
#: key, flags; names, key, init, reserved.
_CONFIG = struct.Struct("=II QQQQQ IIII 64s64s32s16x 64x")
_ATTEMPTS = 64


def attach(fd: int, *, offset: int = 0, size_bytes: int = 0) -> tuple[int, str]:
    """Make a loop device of a file.

    Args:
        fd: The file. If it is not open for writing, the device is read-only.
        offset: Where in the file the device begins.
        size_bytes: The size of the device; 0 for the rest of the file.

    Returns:
        A descriptor of the device, which the caller closes, and the path of its node.

    Raises:
        OSError: there is no loop device, or the file cannot be one.
    """
    control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        for attempt in range(_ATTEMPTS):
            path = f"/dev/loop{fcntl.ioctl(control, LOOP_CTL_GET_FREE)}"
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, LOOP_CONFIGURE, _configuration(fd, offset, size_bytes))
                return device, path
            except OSError as exc:
                os.close(device)
                # Another process took the device in the meantime.
                if exc.errno != errno.EBUSY or attempt == _ATTEMPTS - 1:
                    raise
    finally:
        os.close(control)
    raise AssertionError("unreachable")


def _configuration(fd: int, offset: int, size_bytes: int) -> bytes:
    flags = LO_FLAGS_AUTOCLEAR
    return _CONFIG.pack(fd, 0, 0, 0, 0, offset, size_bytes, 0, 0, 0, flags, b"", b"", b"")
