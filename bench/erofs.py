#!/usr/bin/env python3
"""How fast images are written and read, beside the C tools on the same machine.

    bench/erofs.py [--json] [DUMP]

DUMP is a dump file, plain or compressed with gzip; by default the largest of the C
implementation's test inputs (64,246 entries, an image of 10 MB), which lies outside the
project: in ../shared/vectors or where BOOTC_TEST_VECTORS points. The C tools come from the
chroot that tools/sid-chroot makes. Each figure is the best of several runs; those of C tools
include the start of a process, ours do so only where a process is named. The digest is
SHA-256 there and here. The garbage collector is set as the command sets it.
"""

from __future__ import annotations

import argparse
import gc
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bootc.cli.main import GC_THRESHOLDS
from bootc.formats.digest import Algorithm
from bootc.formats.dumpfile import parse_dumpfile, write_dumpfile
from bootc.formats.erofs.reader import read_erofs
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.verity import verity_digest

TOP = Path(__file__).resolve().parents[1]
CHROOT = TOP / "build/sid-chroot"
VECTORS = Path(os.environ.get("BOOTC_TEST_VECTORS", TOP.parent / "shared/vectors"))
DUMP = VECTORS / "composefs-c/cs9-x86_64-developer.dump.gz"
RUNS = 3


def c_tool(name: str) -> list[str]:
    """Return the command line that runs a program of the chroot without entering it."""
    program = CHROOT / "usr/bin" / name
    loaders = sorted((CHROOT / "usr").glob("lib*/ld-linux-*.so.*"))
    libraries = sorted((CHROOT / "usr/lib").glob("*-linux-gnu"))
    if not (program.exists() and loaders and libraries):
        sys.exit(f"{program} is absent (tools/sid-chroot makes it)")
    return [str(loaders[0]), "--library-path", str(libraries[0]), str(program)]


def best(work: Callable[[], object]) -> float:
    """Return the best time of several runs, each from the same state of the collector."""
    found = float("inf")
    for _ in range(RUNS):
        gc.collect()
        start = time.perf_counter()
        work()
        found = min(found, time.perf_counter() - start)
    return found


def run(argv: list[str]) -> Callable[[], object]:
    """Return a measurement of a process whose output is thrown away."""
    return lambda: subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


def measure(dump: Path, directory: Path) -> dict[str, float]:
    """Return seconds of every step, ours and theirs."""
    raw = dump.read_bytes()
    text = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    plain, c_image = directory / "dump", directory / "c.erofs"
    plain.write_bytes(text)

    def parse() -> object:
        with open(plain, "rb") as lines:
            return parse_dumpfile(lines)

    def write_all() -> None:
        with open(plain, "rb") as lines:
            image = mkfs_erofs(parse_dumpfile(lines))
        (directory / "our.erofs").write_bytes(image)
        verity_digest(image, Algorithm.SHA256)

    def read_all() -> None:
        with open(directory / "our.dump", "wb") as out:
            out.writelines(write_dumpfile(read_erofs(c_image.read_bytes())))

    internals = [sys.executable, "-m", "bootc", "internals"]
    make = ["--from-file", "--print-digest", "--min-version=1", str(plain)]
    ours = str(directory / "process.erofs")
    seconds = {
        "C: mkcomposefs": best(run([*c_tool("mkcomposefs"), *make, str(c_image)])),
        "C: composefs-info dump": best(run([*c_tool("composefs-info"), "dump", str(c_image)])),
        "process: mkcomposefs": best(run([*internals, "mkcomposefs", *make, ours])),
        "process: composefs-info": best(run([*internals, "composefs-info", "dump", str(c_image)])),
        "ours: dump to image": best(write_all),
        "ours: image to dump": best(read_all),
        "parse_dumpfile": best(parse),
    }
    with open(plain, "rb") as lines:
        tree = parse_dumpfile(lines)
    image = mkfs_erofs(tree)
    if not image == c_image.read_bytes() == Path(ours).read_bytes():
        sys.exit("our image is not the one mkcomposefs writes: nothing to compare")
    seconds["mkfs_erofs"] = best(lambda: mkfs_erofs(tree))
    seconds["verity_digest"] = best(lambda: verity_digest(image, Algorithm.SHA256))
    seconds["read_erofs"] = best(lambda: read_erofs(image))
    seconds["write_dumpfile"] = best(lambda: b"".join(write_dumpfile(tree)))
    return seconds


def main() -> None:
    """Measure and print seconds and ratios, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("dump", nargs="?", type=Path, default=DUMP)
    args = parser.parse_args()
    if not args.dump.exists():
        sys.exit(f"{args.dump} is absent")
    gc.set_threshold(*GC_THRESHOLDS)
    with tempfile.TemporaryDirectory() as directory:
        seconds = measure(args.dump, Path(directory))
    ratios = {
        "write": seconds["ours: dump to image"] / seconds["C: mkcomposefs"],
        "read": seconds["ours: image to dump"] / seconds["C: composefs-info dump"],
        "write, process": seconds["process: mkcomposefs"] / seconds["C: mkcomposefs"],
        "read, process": seconds["process: composefs-info"] / seconds["C: composefs-info dump"],
    }
    if args.json:
        print(json.dumps({"seconds": seconds, "ratios": ratios}))
        return
    for name, value in seconds.items():
        print(f"{name:24}{value:8.3f} s")
    for name, value in ratios.items():
        print(f"{name + ', ours to C':24}{value:8.2f} times")


if __name__ == "__main__":
    main()
