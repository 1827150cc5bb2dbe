"""The mount namespace of the host, for a process in a container that shares its processes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NoReturn

from bootc.errors import UsageError, doing
from bootc.fs.process import ToolMissing
from bootc.kernel.mount import CLONE_NEWNS, setns

_HOST = "/proc/1/ns/mnt"


def exec_in_host_mounts(argv: Sequence[str]) -> NoReturn:
    """Replace this process by a program in the mount namespace of the first process, in ``/``.

    Raises:
        UsageError: no program is named.
        ToolMissing: the host does not have the program.
        OSError: the namespace cannot be entered, for example without root; or the program cannot
            be executed.
    """
    if not argv or not argv[0]:
        raise UsageError("a program is missing", hint="name the program to run")
    with doing("Entering the mount namespace of the host"):
        fd = os.open(_HOST, os.O_RDONLY | os.O_CLOEXEC)
        setns(fd, CLONE_NEWNS)
        os.close(fd)
        os.chdir("/")
    try:
        os.execvp(argv[0], list(argv))
    except FileNotFoundError:
        raise ToolMissing(argv[0]) from None
