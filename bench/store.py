#!/usr/bin/env python3
"""What storing costs: many small objects, one large one, and finding that they are there.

    bench/store.py [--json] [--files N] [--mebibytes N] [DIRECTORY]

Each figure comes from a process of its own, so that its peak memory is its own, beside the
memory of the interpreter with everything imported. The repository lies below DIRECTORY (the
current one by default), whose file system decides who hashes: the kernel where it has
fs-verity, user space elsewhere. "raw" is what the same files cost without a repository:
O_TMPFILE, write, link.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bootc.fs.dir import Dir
from bootc.kernel.files import syncfs
from bootc.repository.importing import Importer
from bootc.repository.repository import Repository
from bootc.repository.sealing import VerityMissing

SMALL = 3000
CHUNK = 1 << 20


def contents(count: int) -> Iterator[bytes]:
    """Yield small files, no two alike."""
    filler = hashlib.shake_128(b"bench").digest(SMALL)
    for number in range(count):
        yield number.to_bytes(8, "big") + filler[8:]


def opened(parent: Dir) -> Repository:
    """Open the repository, secure where the file system allows it."""
    try:
        return Repository.create(parent, secure=True)
    except VerityMissing:
        return Repository.create(parent, secure=False)


def raw(parent: Dir, count: int) -> None:
    """Write the files and nothing else."""
    with parent.ensure_dir("raw") as directory:
        for number, data in enumerate(contents(count)):
            fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o644, dir_fd=directory.fileno())
            os.write(fd, data)
            os.link(
                f"/proc/self/fd/{fd}",
                str(number),
                dst_dir_fd=directory.fileno(),
                follow_symlinks=True,
            )
            os.close(fd)
        syncfs(directory.fileno())


def small(parent: Dir, count: int) -> None:
    """Store small objects."""
    with opened(parent) as repository:
        for data in contents(count):
            repository.objects.put(data)
        repository.sync()


def imported(parent: Dir, count: int) -> None:
    """Import small files, by reflink where there are any."""
    with opened(parent) as repository, parent.open_dir("raw") as sources:
        importer = Importer(repository.objects)
        for number in range(count):
            fd = sources.open_file(str(number))
            importer.add(fd)
            os.close(fd)
        repository.sync()


def large(parent: Dir, mebibytes: int) -> None:
    """Stream one large object."""
    with opened(parent) as repository:
        with repository.objects.writer() as writer:
            for number in range(mebibytes):
                writer.write(number.to_bytes(8, "big") * (CHUNK // 8))
            writer.commit()
        repository.sync()


def idle(parent: Dir, count: int) -> None:
    """Open the repository and close it."""
    opened(parent).close()


def measured(path: str, work: Callable[[Dir, int], None], count: int) -> dict[str, float]:
    """Do the work in a fresh process; return its seconds and its peak memory."""
    here, there = multiprocessing.Pipe(duplex=False)

    def run() -> None:
        with Dir.open(path) as parent:
            start = time.perf_counter()
            work(parent, count)
            seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        there.send({"seconds": round(seconds, 2), "peak_mib": round(peak, 1)})

    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    child.join()
    if child.exitcode:
        raise SystemExit("the measured process failed")
    found: dict[str, float] = here.recv()
    return found


def main() -> None:
    """Measure and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--mebibytes", type=int, default=1024)
    parser.add_argument("directory", nargs="?", default=".")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.directory) as path:
        with Dir.open(path) as parent, opened(parent) as repository:
            hashing = "kernel" if repository.secure else "user space"
        rows = []
        for name, work, count in (
            ("idle", idle, 1),
            ("raw", raw, args.files),
            ("put, new", small, args.files),
            ("put, already there", small, args.files),
            ("import, already there", imported, args.files),
            ("one large", large, args.mebibytes),
        ):
            row = {"work": name, "count": count, **measured(path, work, count)}
            row["us_each"] = round(row["seconds"] / count * 1e6, 1)
            rows.append(row)
        held = sum(1 for file in Path(path, "composefs/objects").rglob("*") if file.is_file())
    if args.json:
        print(json.dumps({"hashing": hashing, "objects": held, "rows": rows}))
        return
    print(f"hashing: {hashing}; {held} objects in the end")
    print(f"{'':24}{'count':>8}{'seconds':>10}{'µs each':>10}{'peak MiB':>10}")
    for row in rows:
        print(
            f"{row['work']:24}{row['count']:>8}{row['seconds']:>10}{row['us_each']:>10}"
            f"{row['peak_mib']:>10}"
        )


if __name__ == "__main__":
    main()
