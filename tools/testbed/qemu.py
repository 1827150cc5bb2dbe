"""Finds an emulator that can be trusted, and the firmware that goes with it.

QEMU 7 corrupts guests with several virtual processors under TCG, and QEMU 8.1 cannot
save a machine to a file. So the test bed takes the system's QEMU from version 9 on.
Otherwise ``tools/qemu-chroot`` makes a small Debian tree under ``build/qemu``. Its emulator
runs through its own dynamic loader, without chroot(2), and therefore sees the host's paths.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

BUILD = Path(__file__).parents[2] / "build"
OLDEST_MAJOR = 9
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_PROGRAM = "qemu-system-x86_64"


class QemuMissingError(Exception):
    """There is no emulator to run; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Qemu:
    """An emulator and its firmware files."""

    argv: tuple[str, ...]
    firmware_code: Path
    firmware_vars: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def secure_firmware_code(self) -> Path:
        """The firmware that enforces Secure Boot once its variables hold keys."""
        return self.firmware_code.with_name("OVMF_CODE_4M.secboot.fd")


def find_qemu() -> Qemu:
    """Return the emulator to use: ``$BOOTC_QEMU_ROOT``, the system's, or ``build/qemu``.

    Raises:
        QemuMissingError: None of them is there.
    """
    chosen = os.environ.get("BOOTC_QEMU_ROOT")
    if chosen:
        return in_tree(Path(chosen).resolve())
    system = shutil.which(_PROGRAM)
    firmware = Path("/usr/share/OVMF")
    if system and (firmware / "OVMF_CODE_4M.fd").exists() and _major(system) >= OLDEST_MAJOR:
        return Qemu((system,), firmware / "OVMF_CODE_4M.fd", firmware / "OVMF_VARS_4M.fd")
    return in_tree(BUILD / "qemu")


def in_tree(root: Path) -> Qemu:
    """Return the emulator of a Debian tree.

    Raises:
        QemuMissingError: The tree lacks the emulator or the firmware.
    """
    program = root / "usr/bin" / _PROGRAM
    code = root / "usr/share/OVMF/OVMF_CODE_4M.fd"
    for needed in (program, code):
        if not needed.exists():
            raise QemuMissingError(f"{needed}: not found (hint: run tools/qemu-chroot)")
    argv = (
        str(root / "lib64/ld-linux-x86-64.so.2"),
        "--library-path",
        str(root / _LIBRARIES),
        str(program),
        "-L",
        str(root / "usr/share/qemu"),
        "-L",
        str(root / "usr/share/seabios"),
    )
    environment = {"QEMU_MODULE_DIR": str(root / _LIBRARIES / "qemu")}
    return Qemu(argv, code, root / "usr/share/OVMF/OVMF_VARS_4M.fd", environment)


def _major(program: str) -> int:
    text = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"version (\d+)\.", text)
    return int(match[1]) if match else 0
