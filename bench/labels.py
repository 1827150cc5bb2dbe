#!/usr/bin/env python3
"""How long labelling by a real policy takes, beside Python's ``re`` and libselinux.

    bench/labels.py [--root DIR]

Looks up every path below DIR (default: /usr) in Debian's policy, which
tools/selinux-policy makes. ``re`` is asked for a sample and scaled up: the loop that
asks every pattern from the last to the first until one matches. Of matchpathcon,
which works on the sample too, the start (reading the policy) is subtracted.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import time
from pathlib import Path

from bootc.formats.filecontexts import FileContexts, FileType, parse_file_contexts, parse_subs

REPOSITORY = Path(__file__).parents[1]
POLICY = REPOSITORY / "build/selinux-policy"
FILES = POLICY / "etc/selinux/default/contexts/files"
SAMPLE = 1000


def matchpathcon(paths: list[bytes]) -> float:
    """Return the seconds the C library takes for some paths and its start."""
    libraries = {str(path.parent) for path in POLICY.rglob("libselinux.so.*")}
    start = time.perf_counter()
    subprocess.run(
        [POLICY / "usr/sbin/matchpathcon", "-m", "file", "-f", FILES / "file_contexts", *paths],
        env={"LD_LIBRARY_PATH": ":".join(libraries)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - start


def show(what: str, seconds: float) -> None:
    """Print one figure."""
    print(f"{what:44} {seconds:8.2f} s")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", default="/usr")
    root = parser.parse_args().root
    subprocess.run([REPOSITORY / "tools/selinux-policy"], check=True)
    paths = [
        os.fsencode(os.path.join(top, name))
        for top, directories, files in os.walk(root)
        for name in (*directories, *files)
    ]
    sample = paths[:: max(len(paths) // SAMPLE, 1)]
    scale = len(paths) / len(sample)

    start = time.perf_counter()
    rules = [
        rule
        for name in ("file_contexts", "file_contexts.homedirs")
        for rule in parse_file_contexts((FILES / name).read_bytes(), name)
    ]
    aliases = parse_subs((FILES / "file_contexts.subs_dist").read_bytes(), "subs")
    policy = FileContexts(rules, aliases)
    print(f"{len(rules)} rules, {len(paths)} paths")
    show("reading the policy", time.perf_counter() - start)
    start = time.perf_counter()
    for path in paths:
        policy.lookup(path, FileType.REGULAR)
    show("all paths", time.perf_counter() - start)

    start = time.perf_counter()
    compiled = [re.compile(rb"(?s)" + rule.pattern) for rule in reversed(rules)]
    show("re: compiling", time.perf_counter() - start)
    start = time.perf_counter()
    for path in sample:
        next((pattern for pattern in compiled if pattern.fullmatch(path)), None)
    show(f"re: all paths, from {len(sample)}", (time.perf_counter() - start) * scale)
    empty = matchpathcon([b"/"])
    show("matchpathcon: start", empty)
    show(f"matchpathcon: all paths, from {len(sample)}", (matchpathcon(sample) - empty) * scale)


if __name__ == "__main__":
    main()
