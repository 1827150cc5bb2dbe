#!/usr/bin/env python3
"""How long garbage collection takes and how much memory, by the number of objects.

    bench/gc.py [--json] [--objects N] [--directory DIR]

Half of the objects belong to one image that is kept, the others to nobody. They hold a few
bytes each, since a collection never reads them. Dry run and real run happen in processes of
their own; "memory" is their peak beyond that of a process that only opened the repository.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

from bootc.formats.digest import Algorithm, Digest
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.tree import Directory, External, Leaf, Stat
from bootc.fs.dir import Dir
from bootc.repository.gc import collect
from bootc.repository.repository import Repository

PER_DIRECTORY = 1000
SIZE = 100


def fill(root: Dir, count: int) -> str:
    """Store objects, every other one in an image; return the image's id."""
    tree = Directory(Stat(mode=0o755))
    with Repository.create(root, secure=False) as repository:
        for bucket in range(256):
            repository.dir.ensure_dir(f"objects/{bucket:02x}").close()
        with repository.dir.open_dir("objects") as objects:
            for number in range(count):
                digest = Digest(Algorithm.SHA512, os.urandom(64))
                os.close(objects.open_file(digest.object_path, os.O_WRONLY | os.O_CREAT))
                if number % 2:
                    name = b"%d" % (number // PER_DIRECTORY)
                    below = tree.entries.setdefault(name, Directory(Stat(mode=0o755)))
                    assert isinstance(below, Directory)
                    content = External(digest, SIZE)
                    below.entries[b"%d" % number] = Leaf(Stat(mode=0o644), content)
        image = repository.images.add(mkfs_erofs(tree))
        repository.sync()
    return image.hex


def measure(path: str, image: str, what: str) -> None:
    """Collect in this process, and print what it took as JSON."""
    with Dir.open(path) as root, Repository.open(root, require_verity=False, writable=True) as r:
        base = peak_bytes()
        start = time.perf_counter()
        report = collect(r, roots=[image], dry_run=what == "dry run")
        seconds = time.perf_counter() - start
        row = {
            "what": what,
            "removed": report.objects_removed,
            "seconds": round(seconds, 2),
            "memory_bytes": peak_bytes() - base,
        }
    print(json.dumps(row))


def peak_bytes() -> int:
    """Return the most memory this process had."""
    # Not getrusage, which after an exec still counts what the parent had.
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    """Measure and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--objects", type=int, default=200_000)
    parser.add_argument("--directory", help="where to make the repository")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(*args.measure)
        return
    with tempfile.TemporaryDirectory(dir=args.directory) as path:
        with Dir.open(path) as root:
            image = fill(root, args.objects)
        rows = [
            json.loads(
                subprocess.run(
                    [sys.executable, __file__, "--measure", path, image, what],
                    check=True,
                    capture_output=True,
                ).stdout
            )
            for what in ("dry run", "collection", "nothing left")
        ]
    if args.json:
        print(json.dumps({"objects": args.objects, "rows": rows}))
        return
    print(f"{args.objects} objects")
    for row in rows:
        print(
            f"{row['what']:14}{row['removed']:8} removed{row['seconds']:8.2f} s"
            f"{row['memory_bytes'] / 1e6:8.0f} MB"
        )


if __name__ == "__main__":
    main()
