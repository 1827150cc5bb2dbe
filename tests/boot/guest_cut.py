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
    "fcntl.ioctl", "os.chmod", "os.chown", "os.link", "os.mkdir", "os.posix_spawn", "os.remove",
    "os.removexattr", "os.rename", "os.rmdir", "os.setxattr", "os.symlink", "os.truncate",
    "os.utime", "subprocess.Popen",
}  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def main() -> None:
    moment, log = int(sys.argv[1]), sys.argv[2]
    count = 0
    reset = os.open("/proc/sysrq-trigger", os.O_WRONLY)
    record = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if moment == 0 else -1

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event == "open":
            flags = arguments[2]
            if not (isinstance(flags, int) and flags & WRITING):
                return
        elif event not in CHANGES:
            return
        count += 1
        if moment == 0:
            os.write(record, f"{event} {arguments!r}\n".encode("utf-8", "backslashreplace"))
        elif count == moment:
            os.write(reset, b"b")
            time.sleep(60)

    sys.dont_write_bytecode = True
    sys.argv = sys.argv[3:]
    sys.addaudithook(hook)
    runpy.run_path(sys.argv[0], run_name="__main__")


main()
