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


_UKIFY = CHROOT / "usr" / "bin" / "ukify"
_MODULES = CHROOT / "usr" / "lib" / "python3" / "dist-packages"


def stub_path(stub: str = "linux") -> Path:
    """Return the path of a stub: ``linux`` for kernels, ``addon`` for add-ons and profiles."""
    stubs = sorted((CHROOT / "usr" / "lib" / "systemd" / "boot" / "efi").glob(f"{stub}*.efi.stub"))
    if not (_UKIFY.exists() and stubs):
        require.lacking(f"{_UKIFY} is absent (tools/sid-chroot makes it)")
    return stubs[0]


def program(directory: Path, *, stub: bool = True) -> Path:
    """Make a directory for PATH with ``ukify``, which takes the stub of the chroot unless told."""
    option = f"--stub={stub_path()}" if stub else ""
    script = f"""#!/bin/sh
export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={_MODULES}
exec {sys.executable} {_UKIFY} "$@" {option}
"""
    directory.mkdir()
    (directory / "ukify").write_text(script)
    (directory / "ukify").chmod(0o755)
    return directory


def build(output: Path, options: Mapping[str, str], *, stub: str = "linux") -> Path:
    """Make a UKI; ``options`` are those of ``ukify build`` without their dashes."""
    given = {**options, "stub": str(stub_path(stub)), "output": str(output)}
    done = subprocess.run(
        [
            sys.executable,
            str(_UKIFY),
            "build",
            *(f"--{key}={value}" for key, value in given.items()),
        ],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(_MODULES)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="backslashreplace")
    return output
