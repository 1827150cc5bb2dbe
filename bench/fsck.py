#!/usr/bin/env python3
"""How fast a repository is checked: objects like an operating system's, and large ones.

    bench/fsck.py [--json] [--mebibytes N] [--directory DIR]

Each row is a run of ``check`` in a process of its own, on one thread and on two, with the
compiled kernel and without. The check makes the kernel forget what it holds of an object, so
it is the disk's speed, too, that is seen here: "reading" is what one thread reads in the same
way without hashing. Peak memory is that of the process.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bootc.fs.dir import Dir
from bootc.repository.fsck import check
from bootc.repository.repository import Repository

#: Sizes of files in an operating system: most are small, most bytes are in large ones.
SMALL = (300, 1200, 2500, 4000, 7000, 12000, 30000, 120000)
LARGE = 64 << 20


def fill(root: Path, mebibytes: int, *, large: bool) -> None:
    """Make a repository of random objects."""
    source = random.Random(1)
    block = hashlib.shake_128(b"bench").digest(1 << 20)
    left = mebibytes << 20
    with Dir.open(root) as parent, Repository.create(parent, secure=False) as repository:
        while left > 0:
            size = LARGE if large else source.choice(SMALL)
            left -= size
            with repository.objects.writer() as writer:
                writer.write(source.randbytes(16))
                for at in range(16, size, len(block)):
                    writer.write(block[: size - at])
                writer.commit()
        repository.objects.flush()
        repository.sync()


def reading(root: Path) -> float:
    """Return the bytes a second that one thread reads."""
    total = 0
    buffer = bytearray(1 << 20)
    start = time.perf_counter()
    for path in (root / "composefs/objects").glob("*/*"):
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        while count := os.readv(fd, [buffer]):
            total += count
        os.close(fd)
    return total / (time.perf_counter() - start)


def measure(root: Path, workers: int) -> dict[str, object]:
    """Check a repository once, in this process."""
    with Dir.open(root) as parent, Repository.open(parent, require_verity=False) as repository:
        size = sum(p.stat().st_size for p in (root / "composefs/objects").glob("*/*"))
        start = time.perf_counter()
        report = check(repository, workers=workers)
        seconds = time.perf_counter() - start
    assert report.ok
    return {
        "objects": report.objects.checked,
        "megabytes_s": round(size / seconds / 1e6),
        "objects_s": round(report.objects.checked / seconds),
        "peak_mebibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
    }


def main() -> None:
    """Measure and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--mebibytes", type=int, default=512)
    parser.add_argument("--directory", type=Path, help="where to make the repositories")
    parser.add_argument("--one", nargs=2, metavar=("ROOT", "WORKERS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(Path(args.one[0]), int(args.one[1]))))
        return
    rows: list[dict[str, object]] = []
    for what in ("small", "large"):
        with tempfile.TemporaryDirectory(dir=args.directory) as name:
            root = Path(name)
            fill(root, args.mebibytes, large=what == "large")
            speed = round(reading(root) / 1e6)
            rows.append({"objects": what, "way": "reading", "megabytes_s": speed})
            for hashing in ("", "pure"):
                for workers in (1, 2):
                    done = subprocess.run(
                        [sys.executable, __file__, "--one", name, str(workers)],
                        env={**os.environ, "BOOTC_SPEED": hashing},
                        check=True,
                        capture_output=True,
                    )
                    way = f"{hashing or 'compiled'}, {workers} thread(s)"
                    rows.append({**json.loads(done.stdout), "objects": what, "way": way})
    if args.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(
            f"{row['objects']:8}{row['way']:24}{row['megabytes_s']:6} MB/s"
            + (f"{row['objects_s']:8} objects/s" if "objects_s" in row else "")
            + (f"{row['peak_mebibytes']:6} MiB" if "peak_mebibytes" in row else "")
        )


if __name__ == "__main__":
    main()
