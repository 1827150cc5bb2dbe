"""The C tools of composefs, out of the chroot that ``tools/sid-chroot`` makes.

They run by its dynamic loader rather than by chroot(2): no root, no /proc, no temporary
copies.
"""

from __future__ import annotations

from pathlib import Path

from support import require

CHROOT = Path(__file__).parents[2] / "build" / "sid-chroot"


def c_tool(name: str) -> list[str]:
    """Return the command line that runs a program of the chroot."""
    program = CHROOT / "usr" / "bin" / name
    loaders = sorted((CHROOT / "usr").glob("lib*/ld-linux-*.so.*"))
    libraries = sorted((CHROOT / "usr" / "lib").glob("*-linux-gnu"))
    if not (program.exists() and loaders and libraries):
        require.lacking(f"{program} is absent (tools/sid-chroot makes it)")
    return [str(loaders[0]), "--library-path", str(libraries[0]), str(program)]
