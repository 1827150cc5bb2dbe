#!/usr/bin/env python3
"""How fast layers are decompressed, by each library that is installed.

    bench/inflate.py [--json] [--mebibytes N]

The data is what a root file system has: programs and texts of this machine. Everything is
measured in one run on the same bytes, in processor seconds, so the ratios hold on a busy machine
where the figures do not. Each figure is the best of three. The ratio is to zlib.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import time
from collections.abc import Callable

import zstandard

from bootc.oci.decompress import decompress
from bootc.oci.inflate import Inflater, installed

RUNS = 3


def sample(size: int) -> bytes:
    """Return bytes of the programs and texts in ``/usr``."""
    data = bytearray()
    for top, directories, names in os.walk("/usr/lib"):
        directories.sort()
        for name in sorted(names):
            path = os.path.join(top, name)
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as file:
                    data += file.read(1 << 20)
            if len(data) >= size:
                return bytes(data[:size])
    return bytes(data)


def seconds(work: Callable[[], object]) -> float:
    """Return the least processor time of several runs."""
    best = float("inf")
    for _ in range(RUNS):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def drain(blob: bytes, inflater: Inflater | None = None) -> None:
    """Decompress a blob, and keep nothing."""
    for _ in decompress(io.BytesIO(blob), inflater):
        pass


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--mebibytes", type=int, default=128)
    options = parser.parse_args()
    data = sample(options.mebibytes << 20)
    packed = gzip.compress(data, 6)
    times = {
        inflater.name: seconds(lambda inflater=inflater: drain(packed, inflater))  # type: ignore[misc]
        for inflater in installed()
    }
    frames = zstandard.ZstdCompressor().compress(data)
    times["zstd"] = seconds(lambda: drain(frames))
    rows = {
        name: {"MiB/s": round(len(data) / taken / 2**20), "ratio": round(taken / times["zlib"], 2)}
        for name, taken in times.items()
    }
    if options.json:
        print(json.dumps(rows))
        return
    for name, row in rows.items():
        print(f"{name:8} {row['MiB/s']:6} MiB/s {row['ratio']:6} of zlib's time")


if __name__ == "__main__":
    main()
