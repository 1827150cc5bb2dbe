"""swtpm, the TPM in software: of this machine, or of the tree with QEMU."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from bootc.kernel.tpm import Tpm
from support import require
from support.children import DEADLINE_S, running

_BUILD = Path(__file__).parents[2] / "build"
_LIBRARIES = "usr/lib/x86_64-linux-gnu"


def _command() -> list[str]:
    chosen = os.environ.get("BOOTC_QEMU_ROOT")
    system = shutil.which("swtpm")
    if system and not chosen:
        return [system]
    root = Path(chosen).resolve() if chosen else _BUILD / "qemu"
    program = root / "usr/bin/swtpm"
    if not program.exists():
        require.lacking(f"{program} is absent (tools/qemu-chroot makes it)")
    libraries = root / _LIBRARIES
    loader = str(root / "lib64/ld-linux-x86-64.so.2")
    return [loader, "--library-path", f"{libraries}:{libraries / 'swtpm'}", str(program)]


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
