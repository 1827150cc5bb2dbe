"""swtpm, the TPM in software: of this machine, or of the tree with QEMU."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from bootc.kernel.tpm import Tpm
from support import require
from support.children import DEADLINE_S, running
from testbed.qemu import QemuMissingError
from testbed.tpm import swtpm_argv


def _command() -> list[str]:
    try:
        return swtpm_argv()
    except QemuMissingError as exc:
        require.lacking(str(exc))


@contextlib.contextmanager
def started(state: Path) -> Iterator[Tpm]:
    """Start a TPM, as at a boot, and yield it. The directory has what it keeps."""
    path = state / "socket"
    # It ends when its only connection does.
    argv = [*_command(), "socket", "--terminate", "--tpm2", "--tpmstate", f"dir={state}"]
    argv += ["--server", f"type=unixio,path={path}", "--flags", "not-need-init,startup-clear"]
    with running(argv), _connected(str(path)) as connection:
        yield Tpm(connection.fileno())


@contextlib.contextmanager
def _connected(path: str) -> Iterator[socket.socket]:
    until = time.monotonic() + DEADLINE_S
    with socket.socket(socket.AF_UNIX) as connection:
        while True:
            try:
                connection.connect(path)
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
            else:
                break
        connection.setblocking(False)
        yield connection
