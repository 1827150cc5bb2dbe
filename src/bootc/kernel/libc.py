"""The handle of libc, and calls that raise ``OSError`` with the errno of a failure.

Numbers and names are those of the kernel headers. The initramfs loads this file, so it imports
only ctypes and os.
"""

from __future__ import annotations

import ctypes
import os

#: An argument of a C call: a number, a string, a buffer, or a null pointer.
Argument = int | bytes | str | ctypes.Array[ctypes.c_char] | None

_LIBC = ctypes.CDLL(None, use_errno=True)
_SYSCALL = _LIBC.syscall
_SYSCALL.restype = ctypes.c_long

# System calls since Linux 5.1 have the same number on x86_64, aarch64, riscv64, s390x and ppc64le.
# Older ones are called by name through libc.
SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429
SYS_FSOPEN = 430
SYS_FSCONFIG = 431
SYS_FSMOUNT = 432
SYS_FSPICK = 433
SYS_MOUNT_SETATTR = 442

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000


def call(name: str, *args: Argument) -> int:
    """Call a libc function that returns an int and sets errno.

    Raises:
        OSError: the call failed.
    """
    return _checked(getattr(_LIBC, name)(*map(_converted, args)))


def syscall(number: int, *args: Argument) -> int:
    """Make a system call for which libc may have no function.

    Raises:
        OSError: the call failed; ENOSYS if the kernel is too old.
    """
    return _checked(_SYSCALL(ctypes.c_long(number), *map(_converted, args)))


def _converted(arg: Argument) -> object:
    # ctypes passes an int as a 32-bit C int, and the kernel reads whole registers.
    if isinstance(arg, int):
        return ctypes.c_long(arg)
    if isinstance(arg, str):
        arg = os.fsencode(arg)
    if isinstance(arg, bytes) and b"\0" in arg:
        raise ValueError("embedded null byte")
    return arg


def _checked(result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
