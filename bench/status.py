#!/usr/bin/env python3
"""What `bootc status` costs: milliseconds on this machine, which should stay below 150.

    bench/status.py [--json]

A system of five deployments is made up in a directory, systemd-boot's menu with it, and read
by a process of its own, which is the command: from the start of the interpreter to JSON. What
needs a real disk is measured apart: the search for the EFI system partition runs ``lsblk``
twice. Figures are the best of many runs, with all modules compiled beforehand, as packages do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
SOURCES = [str(TOP / "src"), str(TOP / "tests")]
sys.path[:0] = SOURCES

from bootc.deploy.host.boot_state import BootedState  # noqa: E402
from support.sysroot import FakeSysroot, image_id  # noqa: E402

RUNS = 30
LIMIT_MS = 150
#: The command itself, with a system in directories in the place of this machine.
STATUS = """
import contextlib, dataclasses, sys
from bootc.cli import main

def run(args, context):
    from bootc.boot.scheme import BootDirs
    from bootc.boot.loader import Bootloader, LoaderTraces
    from bootc.deploy.host import status
    from bootc.deploy.host.boot_state import BootedState
    from bootc.deploy.host.view import PartialHostView, find_scheme
    from bootc.formats.digest import Digest
    from bootc.fs.dir import Dir
    from bootc.repository.repository import Repository

    @contextlib.contextmanager
    def open_partial_view(booted, *, root):
        with Dir.open(f"{top}/sysroot") as physical, Dir.open(f"{top}/esp") as esp:
            with Repository.open(physical, require_verity=False) as repository:
                boot = BootDirs(find_scheme(physical, booted), esp, esp)
                yield PartialHostView(booted, physical, repository, boot)

    booted = BootedState(Digest.from_hex(image), False, LoaderTraces(Bootloader.SYSTEMD))
    status.read_booted_state = lambda *, root: booted
    status.open_partial_view = open_partial_view
    command.run(args, context)

top, image = sys.argv[1:]
argv = ["status", "--json"]
(command,) = main.commands_for(argv)
main.commands_for = lambda argv: (dataclasses.replace(command, run=run),)
code = main.main(argv)
print()
print(*sorted(name for name in sys.modules if name.split(".")[0] == "bootc"), sep=", ")
sys.exit(code)
"""
#: What of it is imports; as in the command, the collector has little to do with most of them.
IMPORTS = """
import atexit, gc
from bootc.cli.main import GC_THRESHOLDS
gc.set_threshold(*GC_THRESHOLDS)
atexit.register(gc.freeze)
"""
LSBLK = ["lsblk", "--json", "--output", "NAME,PATH,TYPE,PTTYPE,PARTTYPE"]


def environment(cache: str) -> dict[str, str]:
    """Return that of our Python, with a place to keep what is compiled."""
    return {
        **os.environ,
        "PYTHONPATH": SOURCES[0],
        "PYTHONPYCACHEPREFIX": cache,
        "PYTHONDONTWRITEBYTECODE": "",
    }


def milliseconds(argv: list[str], cache: str) -> float:
    """Return the best wall-clock time of one run."""
    best = float("inf")
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=environment(cache))
        best = min(best, time.perf_counter() - start)
    return round(best * 1000, 1)


def imported(status: list[str], cache: str) -> str:
    """Return the names of our modules that :data:`STATUS` imports, with commas between."""
    done = subprocess.run(status, check=True, capture_output=True, env=environment(cache))
    return done.stdout.decode().splitlines()[-1]


def in_this_process(system: FakeSysroot, booted: BootedState) -> float:
    """Return what reading and deciding costs without the interpreter and imports."""
    from bootc.deploy.host.gather import gather
    from bootc.deploy.host.status import compose_host

    best = float("inf")
    for _ in range(RUNS):
        with system.open(booted) as sysroot:
            start = time.perf_counter()
            host = compose_host(gather(sysroot))
            best = min(best, time.perf_counter() - start)
        assert not host.status.findings
    return round(best * 1000, 1)


def measure() -> dict[str, float]:
    """Measure everything."""
    from bootc.boot.loader import Bootloader, LoaderTraces

    with tempfile.TemporaryDirectory() as directory, tempfile.TemporaryDirectory() as cache:
        system = FakeSysroot(Path(directory))
        deployments = [image_id(byte) for byte in ("a1", "a2", "a3", "a4", "a5")]
        for deployment in deployments:
            system.add_state(deployment)
        system.set_menu(*deployments)
        booted = BootedState(deployments[0], False, LoaderTraces(Bootloader.SYSTEMD))
        python = [sys.executable, "-s", "-c"]
        status = [*python, STATUS, directory, deployments[0].hex]
        modules = imported(status, cache)
        figures = {
            "interpreter": milliseconds([*python, "pass"], cache),
            "and imports": milliseconds([*python, f"{IMPORTS}import {modules}"], cache),
            "status": milliseconds(status, cache),
            "of it reading and deciding": in_this_process(system, booted),
            "lsblk": milliseconds(LSBLK, cache),
        }
    figures["all of it"] = round(figures["status"] + 2 * figures["lsblk"], 1)
    figures["modules imported"] = modules.count(",") + 1
    return figures


def main() -> None:
    """Print the figures."""
    figures = measure()
    if "--json" in sys.argv[1:]:
        print(json.dumps(figures, indent=2))
        return
    print(f"status, in milliseconds (limit {LIMIT_MS})")
    for name, value in figures.items():
        print(f"  {name:28} {value:6}")


if __name__ == "__main__":
    main()
