"""The TPM of a machine: swtpm, which has it in software.

It runs beside QEMU and ends with it. What the TPM remembers is in a directory, as on its chip: the
next run of the machine gets the same directory.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from testbed.qemu import BUILD, QemuMissingError

_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_START_TIMEOUT_S = 60.0
#: The flag of a listening socket in /proc/net/unix (__SO_ACCEPTCON).
_LISTENS = "00010000"


class TpmError(Exception):
    """swtpm did not start."""


def swtpm_argv() -> list[str]:
    """Return the words that start swtpm: of ``$BOOTC_QEMU_ROOT``, the system, or ``build/qemu``.

    Raises:
        QemuMissingError: none of them has it.
    """
    chosen, system = os.environ.get("BOOTC_QEMU_ROOT"), shutil.which("swtpm")
    if system and not chosen:
        return [system]
    root = Path(chosen).resolve() if chosen else BUILD / "qemu"
    program = root / "usr/bin/swtpm"
    if not program.exists():
        raise QemuMissingError(f"{program}: not found (hint: run tools/qemu-chroot)")
    libraries = root / _LIBRARIES
    loader = str(root / "lib64/ld-linux-x86-64.so.2")
    return [loader, "--library-path", f"{libraries}:{libraries / 'swtpm'}", str(program)]


def start(state: Path, control: Path, errors: Path) -> subprocess.Popen[bytes]:
    """Start a TPM for QEMU, and return its process when it listens.

    Args:
        state: The directory of what the TPM remembers.
        control: The Unix socket that QEMU connects to.
        errors: Where the program's messages go.

    Raises:
        TpmError: it did not start.
        QemuMissingError: there is no swtpm.
    """
    state.mkdir(exist_ok=True)
    control.unlink(missing_ok=True)
    argv = [*swtpm_argv(), "socket", "--tpm2", "--terminate", "--tpmstate", f"dir={state}"]
    argv += ["--ctrl", f"type=unixio,path={control}"]
    with errors.open("wb") as said:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    end = time.monotonic() + _START_TIMEOUT_S
    while not _listens(control):
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            process.wait()
            raise TpmError(f"swtpm ended: {errors.read_text(errors='replace')}")
        time.sleep(0.02)
    return process


def _listens(path: Path) -> bool:
    """Tell whether a Unix socket accepts connections; a connection would end swtpm."""
    sockets = Path("/proc/net/unix").read_text(errors="replace").splitlines()
    return any(line.split()[3:4] == [_LISTENS] and line.endswith(f" {path}") for line in sockets)
