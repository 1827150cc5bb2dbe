"""The command line of an installer, also on a kernel without vfat: the ESP is ext4 there.

Run it as a program (``python -m support.installer``); the arguments are those of ``bootc``.
"""

from __future__ import annotations

import sys
from pathlib import Path


def without_vfat() -> None:
    """Let the installer make and mount ext4 where it would make FAT."""
    from bootc.boot import partitions

    partitions.ESP_FILESYSTEM = "ext4"
    partitions.ESP_OPTIONS = ""
    # The modules that import the names come after the change.
    from bootc.deploy.install import filesystem
    from bootc.fs import process

    filesystem.ESP_TOOL = "mkfs.ext4"
    filesystem.make_esp = lambda device: process.run(["mkfs.ext4", "-q", device])  # type: ignore[assignment,misc]


def main() -> int:
    """Run the command."""
    if "\tvfat\n" not in Path("/proc/filesystems").read_text("ascii"):
        without_vfat()
    from bootc.cli.main import main as cli

    return cli(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
