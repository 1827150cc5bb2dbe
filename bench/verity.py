#!/usr/bin/env python3
"""How fast fs-verity digests are, beside one hash over the whole buffer.

    bench/verity.py [--json] [--mebibytes N]

Everything is measured in one run on the same bytes, so the ratios hold on a busy machine
where the figures do not. Each figure is the best of three. "two threads" means two threads
that hash a buffer each; the goal is one whole-buffer hash per core on both at once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import threading
import time
from collections.abc import Callable

from bootc.formats import _speed
from bootc.formats.digest import Algorithm
from bootc.formats.verity import BLOCK_SIZE, VerityHasher, verity_digest, verity_digests

CHUNK = 1 << 20
SMALL = 3000
RUNS = 3


def seconds(work: Callable[[], object], threads: int) -> float:
    """Return the best time of several runs in which each thread does the work once."""
    best = float("inf")
    for _ in range(RUNS):
        workers = [threading.Thread(target=work) for _ in range(threads)]
        start = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best = min(best, time.perf_counter() - start)
    return best


def stream(data: memoryview, algorithm: Algorithm) -> None:
    """Hash as a repository does: chunk after chunk, in constant memory."""
    hasher = VerityHasher(algorithm)
    for offset in range(0, len(data), CHUNK):
        hasher.update(data[offset : offset + CHUNK])
    hasher.digest()


def large(data: memoryview, algorithm: Algorithm) -> dict[str, Callable[[], object]]:
    """Return the ways to hash one large buffer."""
    ways: dict[str, Callable[[], object]] = {
        "hashlib, whole buffer": lambda: algorithm.new(data).digest(),
        "leaves, pure": lambda: _speed.leaves_pure(data, algorithm, BLOCK_SIZE),
    }
    if _speed.KERNEL is not None:
        ways[f"leaves, {_speed.KERNEL}"] = lambda: _speed.leaves_compiled(
            data, algorithm, BLOCK_SIZE
        )
    ways[f"VerityHasher, {_speed.CHOICE.kernel}"] = lambda: stream(data, algorithm)
    return ways


def small(data: memoryview, algorithm: Algorithm) -> dict[str, Callable[[], object]]:
    """Return the ways to hash many small files."""
    files = [bytes(data[i : i + SMALL]) for i in range(0, min(len(data), 4096 * SMALL), SMALL)]
    return {
        "small files, one by one": lambda: [verity_digest(file, algorithm) for file in files],
        "small files, by 256": lambda: [
            verity_digests(files[i : i + 256], algorithm) for i in range(0, len(files), 256)
        ],
    }


def main() -> None:
    """Measure and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--mebibytes", type=int, default=256)
    args = parser.parse_args()
    data = memoryview(hashlib.shake_128(b"bench").digest(1 << 20) * args.mebibytes)
    found: list[dict[str, object]] = []
    for algorithm in (Algorithm.SHA512, Algorithm.SHA256):
        whole = 0.0
        ways = [
            *((name, len(data), work) for name, work in large(data, algorithm).items()),
            *(
                (name, min(len(data), 4096 * SMALL), work)
                for name, work in small(data, algorithm).items()
            ),
        ]
        for name, size, work in ways:
            row: dict[str, object] = {"algorithm": algorithm.hash_name, "way": name}
            for threads in (1, 2):
                speed = threads * size / seconds(work, threads)
                whole = whole or speed
                row[f"gigabytes_s_{threads}"] = round(speed / 1e9, 2)
                row[f"ratio_{threads}"] = round(speed / whole, 2)
            found.append(row)
    if args.json:
        print(json.dumps({"hashing": _speed.CHOICE.reason, "rows": found}))
        return
    print(f"hashing: {_speed.CHOICE.kernel} ({_speed.CHOICE.reason})")
    print(f"{'':36}{'one thread':>18}{'two threads':>18}")
    for row in found:
        print(
            f"{row['algorithm']} {row['way']:29}"
            f"{row['gigabytes_s_1']:7} GB/s x{row['ratio_1']:<5}"
            f"{row['gigabytes_s_2']:7} GB/s x{row['ratio_2']:<5}"
        )


if __name__ == "__main__":
    main()
