"""The size of an EFI system partition (ESP): the defaults of the installer, and sizes as text."""

from __future__ import annotations

import re

ESP_SIZE_MIB = 1024
#: On disks of at least this size the ESP has room for many unified kernel images.
LARGE_DISK_MIB = 16 << 10
LARGE_ESP_SIZE_MIB = 2048

_SIZE = re.compile(r"([0-9]+) ?(M|MiB|G|GiB|T|TiB)?\Z")
_MIB_PER_UNIT = {
    "": 1,
    "M": 1,
    "MiB": 1,
    "G": 1 << 10,
    "GiB": 1 << 10,
    "T": 1 << 20,
    "TiB": 1 << 20,
}


def parse_size(text: str) -> int:
    """Return a size in MiB. The text is an integer and M, MiB (the default), G, GiB, T or TiB.

    >>> parse_size("10G")
    10240

    Raises:
        ValueError: the text is malformed, or the size is zero.
    """
    match = _SIZE.match(text)
    size_mib = int(match[1]) * _MIB_PER_UNIT[match[2] or ""] if match else 0
    if size_mib == 0:
        raise ValueError(f"not a size: {text!r}")
    return size_mib


def default_esp_size_mib(disk_size_mib: int) -> int:
    """Return the size of the ESP on a disk of this size, both in MiB."""
    return ESP_SIZE_MIB if disk_size_mib < LARGE_DISK_MIB else LARGE_ESP_SIZE_MIB
