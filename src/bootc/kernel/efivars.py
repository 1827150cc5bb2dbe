"""Reads and writes EFI variables through efivarfs.

A variable is a file ``<name>-<vendor guid>``: four bytes of attributes before the
payload (Documentation/filesystems/efivarfs.rst). Existing files are immutable, so that nobody
removes them by accident.

The initramfs imports this module.
"""

from __future__ import annotations

import os
import struct

from bootc.kernel import files

#: The vendor of the variables that the UEFI specification defines.
GLOBAL_GUID = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
#: The vendor of the variables of the Boot Loader Interface.
LOADER_GUID = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
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


def read_flag(name: str, guid: str, *, root: str = EFIVARS) -> bool | None:
    """Tell whether the first byte of a variable is 1, or None if the firmware does not have it.

    Raises:
        OSError: the variable exists but cannot be read.
    """
    value = read_variable(name, guid, root=root)
    return None if not value else value[0] == 1


def names(guid: str, *, root: str = EFIVARS) -> list[str]:
    """Return the names of all variables of a vendor; none where efivarfs does not exist.

    Raises:
        OSError: the directory cannot be read.
    """
    try:
        found = os.listdir(root)
    except FileNotFoundError:
        return []
    suffix = f"-{guid}"
    return sorted(name.removesuffix(suffix) for name in found if name.endswith(suffix))


def write_variable(
    name: str, guid: str, attributes: int, payload: bytes, *, root: str = EFIVARS
) -> None:
    """Create or replace a variable.

    Raises:
        OSError: the firmware refused, or efivarfs does not exist or is read-only.
    """
    path = os.path.join(root, f"{name}-{guid}")
    _make_mutable(path)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    with open(fd, "wb", buffering=0) as file:
        # The firmware gets each write as a whole variable, so there must be only one.
        file.write(struct.pack("<I", attributes) + payload)


def remove_variable(name: str, guid: str, *, root: str = EFIVARS) -> None:
    """Remove a variable. A missing one is no error.

    Raises:
        OSError: the firmware refused, or efivarfs is read-only.
    """
    path = os.path.join(root, f"{name}-{guid}")
    _make_mutable(path)
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def is_writable(*, root: str = EFIVARS) -> bool:
    """Tell whether variables can be written: efivarfs is mounted, and not read-only."""
    try:
        # A mounted efivarfs is never empty; the mount point below /sys always is.
        return bool(os.listdir(root)) and not os.statvfs(root).f_flag & os.ST_RDONLY
    except FileNotFoundError:
        return False


def _make_mutable(path: str) -> None:
    # Whoever then writes or removes the variable gets the error that counts.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        files.set_inode_flags(fd, files.get_inode_flags(fd) & ~files.FS_IMMUTABLE_FL)
    except OSError:
        return
    finally:
        os.close(fd)
