"""The reboot that ``--apply`` asks for.

The order comes from a unit of its own: whoever ran bootc may be a session that the
shutdown ends first. Nothing of the system may be held open while waiting for it, since
finalizing at shutdown wants it.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable

from bootc.errors import doing
from bootc.fs import process

_COMMAND = (
    *("systemd-run", "--quiet", "--"),
    *("systemctl", "reboot", "--message=Initiated by bootc"),
)


def reboot(*, pause: Callable[[], object] = signal.pause) -> None:
    """Have the machine rebooted, and wait for that.

    Args:
        pause: Returns, or raises KeyboardInterrupt, when the waiting is over.

    Raises:
        ToolMissing, CommandFailed: there is no service manager that would do it.
    """
    with doing("Rebooting"):
        process.run(_COMMAND)
    # The shutdown's SIGTERM, or somebody's Ctrl-C: the reboot comes in any case.
    with contextlib.suppress(KeyboardInterrupt):
        pause()
