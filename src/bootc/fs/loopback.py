"""Loop devices that end with a block of code, also if the process is killed in it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from bootc.errors import doing
from bootc.kernel import loop


@contextlib.contextmanager
def attached(
    path: str, *, offset: int = 0, size_bytes: int = 0, read_only: bool = False
) -> Iterator[str]:
    """Make a loop device of a file, or of a part of it, and yield the path of its node.

    The kernel detaches the device when the block has ended and nothing on it is mounted.

    Args:
        path: A regular file, or a block device.
        offset: Where in the file the device begins.
        size_bytes: The size of the device; 0 for the rest of the file.
        read_only: The device refuses writes.

    Raises:
        OSError: there is no loop device, or the file cannot be one.
    """
    with doing(f"Attaching {path} to a loop device"), contextlib.ExitStack() as stack:
        # The kernel makes the device read-only if the file is open for reading only.
        file = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
        try:
            device, node = loop.attach(file, offset=offset, size_bytes=size_bytes)
        finally:
            os.close(file)
        stack.callback(os.close, device)
        keep = stack.pop_all()
    with keep:
        yield node
