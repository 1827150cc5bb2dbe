"""What bootc asks the service manager for: finalizing at shutdown, and a reboot.

A unit of its own orders the reboot: the process that runs bootc may belong to a session that the
shutdown ends first. A command must close the host before it waits for the reboot, because
finalizing at shutdown opens it.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from typing import Protocol

from bootc.errors import doing
from bootc.fs import process

FINALIZER = "bootc-finalize-staged.service"
_REBOOT = (
    *("systemd-run", "--quiet", "--"),
    *("systemctl", "reboot", "--message=Initiated by bootc"),
)


class Services(Protocol):
    """The service manager, as far as bootc needs it."""

    def start_finalizer(self) -> None:
        """Start the service that finalizes the staged deployment at shutdown."""


class Systemd:
    """The service manager of a booted machine."""

    def start_finalizer(self) -> None:
        """Start the unit whose stopping finalizes.

        Raises:
            CommandFailed, ToolMissing: it cannot be started.
        """
        with doing(f"Starting {FINALIZER}"):
            process.run(["systemctl", "start", "--quiet", FINALIZER])


def reboot(*, pause: Callable[[], object] = signal.pause) -> None:
    """Have the machine rebooted, and wait for that.

    Args:
        pause: Returns, or raises KeyboardInterrupt, when the waiting is over.

    Raises:
        ToolMissing, CommandFailed: there is no service manager that would do it.
    """
    with doing("Rebooting"):
        process.run(_REBOOT)
    # The shutdown's SIGTERM, or somebody's Ctrl-C: the reboot comes in any case.
    with contextlib.suppress(KeyboardInterrupt):
        pause()
