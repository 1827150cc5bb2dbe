"""The command line of an installer, also on a kernel without vfat: the ESP is ext4 there.

:func:`run` runs it as a program of its own, and can kill it at a function.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from functools import reduce
from pathlib import Path

#: A fake bootctl: the loader is on the ESP afterwards.
BOOTCTL = """
[ "$1" = --version ] && { echo 'systemd 257 (257.1)'; exit; }
mkdir -p "$3/boot/EFI/systemd" && : >"$3/boot/EFI/systemd/systemd-bootx64.efi"
"""
_KILL_AT = "TEST_KILL_AT"
_TOP = Path(__file__).parents[2]
PYTHONPATH = f"{_TOP}/tests{os.pathsep}{_TOP}/src"


def command(*arguments: str | Path) -> list[str]:
    """Return the command that runs ``bootc install`` with these arguments."""
    return [sys.executable, "-m", "support.installer", "install", *map(str, arguments)]


def run(
    *arguments: str | Path, kill_at: str = "", number: signal.Signals = signal.SIGKILL
) -> subprocess.CompletedProcess[str]:
    """Run ``bootc install`` with these arguments.

    Args:
        arguments: The arguments.
        kill_at: The function, as ``module:name``, in whose place the process gets a signal.
        number: The signal.
    """
    place = f"{number.value} {kill_at}" if kill_at else ""
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, _KILL_AT: place}
    argv = command(*arguments)
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)


def attached_to(path: Path) -> list[str]:
    """Return the loop devices of a file."""
    argv = ["losetup", "--noheadings", "--output", "NAME", "--associated", str(path)]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()


def esp_filesystem() -> str:
    """Return the type of file system that takes the place of FAT."""
    return "vfat" if "\tvfat\n" in Path("/proc/filesystems").read_text("ascii") else "ext4"


def make_esp(device: str) -> None:
    """Make the file system of an ESP."""
    tool = ["mkfs.fat"] if esp_filesystem() == "vfat" else ["mkfs.ext4", "-q", "-F"]
    subprocess.run([*tool, device], check=True)


def without_vfat() -> None:
    """Let the installer make and mount ext4 where it would make FAT."""
    from bootc.boot import partitions

    partitions.ESP_FILESYSTEM = "ext4"
    partitions.ESP_OPTIONS = ""
    # The modules that import the names come after the change.
    from bootc.deploy.install import filesystem
    from bootc.fs import process

    filesystem.ESP_TOOL = "mkfs.ext4"
    filesystem.make_esp = lambda device, sectors: process.run(["mkfs.ext4", "-q", device])  # type: ignore[assignment,misc]


def _kill_at(place: str) -> None:
    """Replace a function by one that sends a signal to this process."""
    number, _, name = place.partition(" ")
    module, _, names = name.partition(":")
    *owners, name = names.split(".")
    owner = reduce(getattr, owners, importlib.import_module(module))
    setattr(owner, name, lambda *_, **__: os.kill(os.getpid(), int(number)))


def main() -> int:
    """Run the command."""
    if esp_filesystem() != "vfat":
        without_vfat()
    if os.environ.get(_KILL_AT):
        _kill_at(os.environ[_KILL_AT])
    from bootc.cli.main import main as cli

    return cli(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
