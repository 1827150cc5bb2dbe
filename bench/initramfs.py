#!/usr/bin/env python3
"""What the initramfs step costs: bytes in the initramfs, milliseconds on this machine.

    bench/initramfs.py [--json]

Bytes are those of the interpreter, its libraries and the measured closure, as the dracut
module installs them; libc and libm come with any initramfs and are counted apart.
Milliseconds are the best of many runs: the interpreter alone, with the step's imports, and
the whole step up to the point where it needs a disk, with and without a configuration file.
The mounts themselves are measured at boot, by the journal's time stamps.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
CLOSURE = TOP / "data/dracut/51bootc/closure.py"
PATH = f"import sys; sys.path.insert(0, {str(TOP / 'src')!r})\n"
STEP = PATH + "from bootc.initramfs.setup_root import main; main(sys.argv[1:])"
ALWAYS_THERE = ("libc.so", "libm.so", "ld-linux")
RUNS = 40


def interpreter() -> str:
    """Return the system's Python, which an image's initramfs would take; not a venv's."""
    found = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if found is None:
        sys.exit("no python3 in /usr/bin")
    return str(Path(found).resolve())


def closure(python: str, tree: str, *modules: str) -> list[Path]:
    """Write the step's bytecode into ``tree``; return all files the step brings."""
    program = f"{PATH}exec(compile(open({str(CLOSURE)!r}).read(), 'closure', 'exec'))"
    native = subprocess.run(
        [python, "-SI", "-c", program, tree, *modules], check=True, capture_output=True, text=True
    ).stdout.split()
    linked = subprocess.run(
        ["ldd", python, *native], check=True, capture_output=True, text=True
    ).stdout
    libraries = {line.split()[2] for line in linked.splitlines() if " => /" in line}
    bytecode = [path for path in Path(tree).rglob("*.pyc") if path.is_file()]
    return [Path(python), *map(Path, [*native, *sorted(libraries)]), *sorted(bytecode)]


def sizes(files: list[Path]) -> dict[str, int]:
    """Return bytes plain and compressed as dracut does by default."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in files:
            tar.add(path.resolve(), arcname=path.name)
    return {
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
        "gzip_bytes": len(gzip.compress(archive.getvalue(), 9, mtime=0)),
    }


def milliseconds(python: str, program: str, *args: str) -> float:
    """Return the best wall-clock time of one run, with imports compiled beforehand."""
    best = float("inf")
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run([python, "-SI", "-c", program, *args], check=False, stderr=subprocess.PIPE)
        best = min(best, time.perf_counter() - start)
    return round(best * 1000, 1)


def measure() -> dict[str, object]:
    """Measure everything."""
    python = interpreter()
    with tempfile.TemporaryDirectory() as tree:
        files = closure(python, tree)
        base = [path for path in files if path.name.startswith(ALWAYS_THERE)]
        own = [path for path in files if str(TOP / "src") in str(path)]
        size = {
            "whole step": sizes([path for path in files if path not in base]),
            "of it our modules": sizes(own),
            "libc and libm": sizes(base),
        }
    with tempfile.TemporaryDirectory() as empty:
        config = Path(empty) / "conf.toml"
        config.write_text("[etc]\ntransient = true\n")
        options = ["--sysroot", empty, "--cmdline", f"composefs=?{'0' * 128}", "--config"]
        times = {
            "interpreter": milliseconds(python, "pass"),
            "and imports": milliseconds(python, PATH + "import bootc.initramfs.setup_root"),
            "step before the disk": milliseconds(python, STEP, *options, "/nowhere"),
            "the same with configuration": milliseconds(python, STEP, *options, str(config)),
        }
    return {"python": python, "size": size, "milliseconds": times}


def main() -> None:
    """Print the figures."""
    result = measure()
    if "--json" in sys.argv[1:]:
        print(json.dumps(result, indent=2))
        return
    print(f"initramfs step, {result['python']}")
    assert isinstance(result["size"], dict)
    assert isinstance(result["milliseconds"], dict)
    for name, size in result["size"].items():
        print(
            f"  {name:28} {size['files']:3} files {size['bytes']:11,} bytes"
            f" {size['gzip_bytes']:11,} compressed"
        )
    for name, value in result["milliseconds"].items():
        print(f"  {name:28} {value:6.1f} ms")


if __name__ == "__main__":
    main()
