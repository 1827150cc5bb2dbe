"""The size of an EFI system partition (ESP): the defaults of the installer, and what images ask.

An image asks for a size by ``esp-size`` in the table ``[install]`` of files
``bootc/install/*.toml``. :mod:`bootc.deploy.install.config` reads all of their keys.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable

#: Where an image has these files; a file of a later directory replaces one of the same name.
INSTALL_CONFIG = tuple(f"{home}/bootc/install" for home in ("usr/lib", "usr/local/lib", "etc"))
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


def configured_esp_size_mib(files: Iterable[bytes]) -> int | None:
    """Return the size that an image asks for, in MiB; None if it asks for none.

    Files and values that the installer would refuse are passed over.

    Args:
        files: The files of :data:`INSTALL_CONFIG`. The last one that has a size counts.
    """
    size_mib = None
    for data in files:
        try:
            table = tomllib.loads(data.decode()).get("install")
            value = table.get("esp-size") if isinstance(table, dict) else None
            if isinstance(value, str):
                size_mib = parse_size(value)
        except (ValueError, RecursionError):
            continue
    return size_mib
