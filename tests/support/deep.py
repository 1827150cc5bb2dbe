"""Trees deeper than Python calls functions, and than a process may open files."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.stored import IN_MEMORY

#: More than the recursion limit, and more than the file descriptors of a usual process.
DEPTH = 1500


def make_deep(top: Path, depth: int = DEPTH, name: str = "d") -> None:
    """Make directories below each other, the innermost with a file ``f``."""
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("f", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=fd))
    os.close(fd)


@contextmanager
def directory() -> Iterator[Path]:
    """Yield an empty directory, and remove it with rm: what recurses cannot."""
    path = tempfile.mkdtemp(dir=IN_MEMORY)
    try:
        yield Path(path)
    finally:
        subprocess.run(["rm", "-rf", "--", path], check=True)


@contextmanager
def cleared(path: Path) -> Iterator[None]:
    """Remove a deep tree in the end, which pytest could not."""
    try:
        yield
    finally:
        subprocess.run(["rm", "-rf", "--", path], check=True)


def depth_of(top: Path, name: str = "d") -> int:
    """Return how many directories of this name lie below each other, a file ``f`` innermost."""
    depth, fd = 0, os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    while True:
        try:
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        except FileNotFoundError:
            assert os.listdir(fd) == ["f"]
            os.close(fd)
            return depth
        os.close(fd)
        fd, depth = below, depth + 1


@contextmanager
def few_descriptors(more: int = 100) -> Iterator[None]:
    """Let this process open only a few more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
