"""Unified kernel images from systemd's ukify.

ukify and the stub come from the chroot that ``tools/sid-chroot`` makes (Debian 12 has
neither); it is a Python program and runs in ours.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from support import require

CHROOT = Path(__file__).parents[2] / "build" / "sid-chroot"


def build(output: Path, options: Mapping[str, str]) -> Path:
    """Make a UKI; ``options`` are those of ``ukify build`` without their dashes."""
    ukify = CHROOT / "usr" / "bin" / "ukify"
    stubs = sorted((CHROOT / "usr" / "lib" / "systemd" / "boot" / "efi").glob("linux*.efi.stub"))
    if not (ukify.exists() and stubs):
        require.lacking(f"{ukify} is absent (tools/sid-chroot makes it)")
    given = {**options, "stub": str(stubs[0]), "output": str(output)}
    done = subprocess.run(
        [
            sys.executable,
            str(ukify),
            "build",
            *(f"--{key}={value}" for key, value in given.items()),
        ],
        env={
            **os.environ,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(CHROOT / "usr" / "lib" / "python3" / "dist-packages"),
        },
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="backslashreplace")
    return output
