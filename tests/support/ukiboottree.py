"""Debian's ukiboot, out of the tree that ``tools/ukiboot-tree`` makes."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support import require
from support.images import Member, directory, file

TREE = Path(__file__).parents[2] / "build" / "ukiboot"
PROGRAMS = "usr/libexec/ukiboot/efi"


def find() -> Path:
    """Return the root of the tree."""
    if not (TREE / "usr/bin/ukibootctl").exists():
        require.lacking(f"{TREE} is not built (tools/ukiboot-tree)")
    return TREE


def ukibootctl(partition: Path, *arguments: str) -> str:
    """Run Debian's program on a file with a control block, and return what it prints."""
    tree = find()
    loader = tree / "lib64/ld-linux-x86-64.so.2"
    libraries = tree / "usr/lib/x86_64-linux-gnu"
    program = tree / "usr/bin/ukibootctl"
    argv = [loader, "--library-path", libraries, program, f"--partition={partition}", *arguments]
    done = subprocess.run(
        [str(word) for word in argv], check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def members() -> tuple[Member, ...]:
    """Return the files of ukiboot that an image needs to install it, with their directories."""
    paths = sorted((find() / PROGRAMS).iterdir())
    directories = [directory(name) for name in ("usr/libexec/ukiboot", PROGRAMS)]
    return (*directories, *(file(f"{PROGRAMS}/{path.name}", path.read_bytes()) for path in paths))
