"""Reads the kernel's tables of text below ``/proc`` and ``/sys``.

Lines are bytes and end only at a newline. Names in a line may contain carriage returns,
form feeds and other characters that end a line in Python's text files.
"""

from __future__ import annotations


def read_table(path: str) -> list[bytes]:
    """Return the lines of a table, without the newlines."""
    with open(path, "rb") as file:
        lines = file.read().split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines


def read_fields(path: str, separator: bytes) -> dict[bytes, bytes]:
    """Return the values of a table by the names before a separator, both stripped of blanks.

    Lines without the separator are left out, and of lines with the same name the last counts.
    """
    pairs = (line.partition(separator) for line in read_table(path))
    return {name.strip(): value.strip() for name, found, value in pairs if found}


def fdinfo(fd: int) -> str:
    """Return the path of the table about an open descriptor of this process (proc(5))."""
    return f"/proc/self/fdinfo/{fd}"


def mount_id(fd: int) -> int:
    """Return the kernel's number of the mount that a descriptor was opened through."""
    return int(read_fields(fdinfo(fd), b":")[b"mnt_id"])
