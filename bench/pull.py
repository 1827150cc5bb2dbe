#!/usr/bin/env python3
"""What pulls and looking cost, beside an earlier commit in the same run.

    bench/pull.py [--baseline COMMIT] [--files N] [--mean BYTES] [--rounds N] [DIRECTORY]

A synthetic image is pulled into a new repository, pulled again, looked at and checked, by this
checkout and by the baseline, which is kept as a git worktree in build/. Rounds alternate. Each
figure is the median over whole processes: wall seconds, processor seconds, peak memory. The
last columns are ratios, this checkout over the baseline. The repository lies below DIRECTORY
(the current one by default), whose file system decides who hashes.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).parents[1]
#: Before objects were stored in batches.
BASELINE = "68d0499"
MEDIA = "application/vnd.oci.image"
POOL = 1 << 22
LARGEST = 20 << 20
#: The rows: what is measured in a repository that the first row filled.
ROWS = {
    "first pull": ("oci", "pull", "{image}", "t"),
    "pull again": ("oci", "pull", "{image}", "t"),
    "oci compute-id": ("oci", "compute-id", "t"),
    "oci dump": ("oci", "dump", "t"),
    "gc, nothing to do": ("gc",),
    "fsck": ("fsck",),
    "oci fsck": ("oci", "fsck"),
}


def contents(count: int, mean: int) -> list[bytes]:
    """Return files of very different sizes, of which two thirds compress well."""
    rng = random.Random(1)
    noise = rng.randbytes(POOL)
    words = b" ".join(rng.randbytes(3).hex().encode() for _ in range(POOL // 7))
    made = []
    for number in range(count):
        # The mean of this distribution is about 2.3.
        size = min(int(rng.lognormvariate(0, 1.3) * mean / 2.3), LARGEST)
        pool = words if number % 3 else noise
        start = rng.randrange(POOL // 4)
        repeated = pool[start : start + POOL // 4] * (size // (POOL // 4) + 1)
        made.append(b"%d " % number + repeated[:size])
    return made


def make_image(path: Path, count: int, mean: int) -> None:
    """Write a layout with one layer."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for number, data in enumerate(contents(count, mean)):
            home = f"usr/d{number // 5000}/e{number // 50}"
            for directory in (home.rpartition("/")[0], home) if number % 50 == 0 else ():
                info = tarfile.TarInfo(directory)
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
            info = tarfile.TarInfo(f"{home}/f{number}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    raw = archive.getvalue()
    blobs = path / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, kind: str) -> dict[str, object]:
        name = hashlib.sha256(data).hexdigest()
        (blobs / name).write_bytes(data)
        return {"mediaType": f"{MEDIA}.{kind}", "digest": f"sha256:{name}", "size": len(data)}

    layer = put(gzip.compress(raw, 6, mtime=0), "layer.v1.tar+gzip")
    diff_id = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    document = {
        "schemaVersion": 2,
        "mediaType": f"{MEDIA}.manifest.v1+json",
        "config": put(json.dumps(config).encode(), "config.v1+json"),
        "layers": [layer],
    }
    manifest = put(json.dumps(document).encode(), "manifest.v1+json")
    index = {"schemaVersion": 2, "manifests": [manifest]}
    (path / "index.json").write_text(json.dumps(index))
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def baseline(commit: str) -> Path:
    """Return the sources of a commit, with its compiled code."""
    tree = TOP / "build" / f"baseline-{commit}"
    if not tree.exists():
        subprocess.run(
            ["git", "worktree", "add", "-q", "--detach", tree, commit], cwd=TOP, check=True
        )
        subprocess.run(
            [sys.executable, "-W", "ignore", "setup.py", "-q", "build_ext", "--inplace"],
            cwd=tree,
            check=True,
        )
    return tree


def run(source: Path, repo: Path, words: tuple[str, ...]) -> tuple[float, float, float]:
    """Run a verb of ``cfs``; return wall and processor seconds, and the peak memory in MiB."""
    argv = [sys.executable, "-m", "bootc", "internals", "cfs", "--repo", str(repo), *words]
    start = time.perf_counter()
    child = subprocess.Popen(
        argv,
        env={**os.environ, "PYTHONPATH": str(source / "src")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(words)} failed")
    wall = time.perf_counter() - start
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--baseline", default=BASELINE)
    parser.add_argument("--files", type=int, default=11_000)
    parser.add_argument("--mean", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("directory", nargs="?", default=".")
    args = parser.parse_args()
    sources = {"now": TOP, "then": baseline(args.baseline)}
    taken: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory(dir=args.directory) as scratch:
        image = Path(scratch, "image")
        # In a process of its own: a child would inherit the peak memory of this one.
        maker = multiprocessing.Process(target=make_image, args=(image, args.files, args.mean))
        maker.start()
        maker.join()
        for _ in range(args.rounds):
            for name, source in sources.items():
                repo = Path(scratch, "repo")
                run(source, repo, ("init", "--insecure"))
                for row, words in ROWS.items():
                    filled = tuple(word.format(image=f"oci:{image}") for word in words)
                    taken.setdefault((row, name), []).append(run(source, repo, filled))
                shutil.rmtree(repo)
    print("| row | wall s | cpu s | MiB | wall | cpu | memory |\n|---|---|---|---|---|---|---|")
    for row in ROWS:
        now, then = (
            [statistics.median(column) for column in zip(*taken[row, name], strict=True)]
            for name in ("now", "then")
        )
        ratios = " | ".join(f"{a / b:.2f}" for a, b in zip(now, then, strict=True))
        print(f"| {row} | {now[0]:.2f} | {now[1]:.2f} | {now[2]:.0f} | {ratios} |")


if __name__ == "__main__":
    main()
