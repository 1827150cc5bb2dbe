"""Sent into the machine: runs a Python program and cuts the power at a given moment of it.

    guest_cut.py TEXT PROGRAM [ARGUMENT...]

Moments are the program's changes to file systems and its calls of other programs, as
the interpreter's audit hooks see them: the name of the event and its arguments, in
Python's notation. The machine is reset just before the first change whose description
has TEXT in it, without a word to the disks: what was not synchronised may be lost. What
goes around the interpreter (ctypes) is no moment of its own, but lies between two.

With an empty TEXT nothing is cut, and /var/moments gets the descriptions, a line each.
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
    text = sys.argv[1]
    sysrq = os.open("/proc/sysrq-trigger", os.O_WRONLY)
    log = None if text else os.open("/var/moments", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if not is_change(event, arguments):
            return
        moment = f"{event} {arguments!r}"
        if log is not None:
            os.write(log, f"{moment}\n".encode("utf-8", "backslashreplace"))
        elif text in moment:
            os.write(sysrq, b"b")
            time.sleep(60)

    sys.dont_write_bytecode = True
    sys.argv = sys.argv[2:]
    sys.addaudithook(hook)
    runpy.run_path(sys.argv[0], run_name="__main__")


main()
