"""Reads EFI variables through efivarfs.

A variable is a file ``<name>-<vendor guid>``: four bytes of attributes before the
payload (Documentation/filesystems/efivarfs.rst).
"""

from __future__ import annotations

import os

EFIVARS = "/sys/firmware/efi/efivars"
_ATTRIBUTES_SIZE = 4


def read_variable(name: str, guid: str, *, root: str = EFIVARS) -> bytes | None:
    """Return a variable's payload, or None if it or efivarfs does not exist.

    Raises:
        OSError: the variable exists but cannot be read.
    """
    try:
        fd = os.open(os.path.join(root, f"{name}-{guid}"), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with open(fd, "rb") as file:
        content = file.read()
    # An empty file is a variable created but never set: the firmware does not have it.
    return content[_ATTRIBUTES_SIZE:] if len(content) > _ATTRIBUTES_SIZE else None
