"""Disk images for machines: blank ones, copies, and directories to hand over."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def blank(path: Path, size_bytes: int) -> Path:
    """Make an empty disk of this size; it takes no room until written to."""
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        file.truncate(size_bytes)
    return path


def copy(source: Path, target: Path) -> Path:
    """Copy a disk, sharing or leaving out what can be shared or left out."""
    command = ["cp", "--reflink=auto", "--sparse=always", "--", str(source), str(target)]
    subprocess.run(command, check=True)
    return target


def from_directory(source: Path, target: Path) -> Path:
    """Make a disk with an ext4 file system that holds a directory's content."""
    used = sum(entry.lstat().st_size + 4096 for entry in source.rglob("*"))
    blank(target, (used + used // 8 + (32 << 20)) >> 20 << 20)
    subprocess.run(
        ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(source), str(target)],
        check=True,
        env={**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"},
    )
    return target
