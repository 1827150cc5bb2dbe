"""Sent into the machine: runs a Python program and cuts the power at a given moment of it.

    guest_cut.py MOMENT LOG PROGRAM [ARGUMENT...]

Moments are the program's changes to file systems and its calls of other programs, as
the interpreter's audit hooks see them, counted from 1. The machine is reset just before
the change, without a word to the disks: what was not synchronised may be lost. With
moment 0 nothing is cut, and LOG gets a line a moment.

What goes around the interpreter (ctypes) is no moment of its own, but lies between two.
"""

from __future__ import annotations

import os
import runpy
import sys
import time

CHANGES = {
    "os.chmod", "os.chown", "os.link", "os.mkdir", "os.posix_spawn", "os.remove",
    "os.removexattr", "os.rename", "os.rmdir", "os.setxattr", "os.symlink", "os.truncate",
    "os.utime", "subprocess.Popen",
}  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
FS_IOC_ENABLE_VERITY = 0x40806685


def is_change(event: str, arguments: tuple[object, ...]) -> bool:
    match event:
        case "open":
            path, _, flags = arguments
            # A number is a file that has been opened already.
            return not isinstance(path, int) and isinstance(flags, int) and bool(flags & WRITING)
        case "fcntl.ioctl":
            return arguments[1] == FS_IOC_ENABLE_VERITY
        case _:
            return event in CHANGES


def main() -> None:
    moment, log = int(sys.argv[1]), sys.argv[2]
    count = 0
    target, flags = (log, os.O_CREAT | os.O_TRUNC) if moment == 0 else ("/proc/sysrq-trigger", 0)
    output = os.open(target, os.O_WRONLY | flags)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if not is_change(event, arguments):
            return
        count += 1
        if moment == 0:
            os.write(output, f"{event} {arguments!r}\n".encode("utf-8", "backslashreplace"))
        elif count == moment:
            os.write(output, b"b")
            time.sleep(60)

    sys.dont_write_bytecode = True
    sys.argv = sys.argv[3:]
    sys.addaudithook(hook)
    runpy.run_path(sys.argv[0], run_name="__main__")


main()
