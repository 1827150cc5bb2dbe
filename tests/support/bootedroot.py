"""The command line in a root that looks like a booted system's; :mod:`support.insideroot` makes it.

The disk is a real file system. The service manager is made up: it starts nothing.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from support import insideroot, require


@dataclass
class Done:
    """What became of a command."""

    code: int
    out: str
    err: str
    journal: list[list[str]]


def run(*argv: str) -> str:
    """Run a program, and return what it writes."""
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


@contextlib.contextmanager
def loop_disk(image: Path) -> Iterator[str]:
    """Make an empty disk in a file, and yield its device."""
    require.root()
    for tool in ("losetup", "mkfs.ext4"):
        require.tool(tool)
    with image.open("wb") as file:
        file.truncate(24 << 20)
    run("mkfs.ext4", "-q", str(image))
    device = run("losetup", "--find", "--show", str(image))
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


def run_inside(
    path: Path,
    commands: Sequence[list[str] | str],
    *,
    device: str,
    image_id: str,
    argument: str,
) -> list[Done]:
    """Run commands, one after the other, without a boot in between.

    Args:
        path: A directory for the root and for the made up programs.
        commands: Command lines of bootc, or of a shell when they are strings.
        device: The disk with the physical root.
        image_id: The booted image.
        argument: The kernel argument that names it.
    """
    root, programs = path / "root", path / "programs"
    root.mkdir(exist_ok=True)
    programs.mkdir(exist_ok=True)
    (programs / "systemctl").write_text("#!/bin/sh\n")
    # What a shutdown does to whoever waits for it.
    stop = "(sleep 1; kill -TERM $PPID) </dev/null >/dev/null 2>&1 &"
    (programs / "systemd-run").write_text(f'#!/bin/sh\necho "$@" > /run/asked\n{stop}\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    task = {
        "root": str(root),
        "device": device,
        "image_id": image_id,
        "programs": str(programs),
        "argument": argument,
        "commands": commands,
    }
    done = subprocess.run(
        [sys.executable, insideroot.__file__],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = [Done(**result) for result in json.loads(done.stdout)]
    for command, result in zip(commands, results, strict=True):
        assert not isinstance(command, str) or result.code == 0, (command, result)
    return results
