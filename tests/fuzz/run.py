"""Look for bytes that a parser does not survive: ``make fuzz``.

The time is shared by all targets, which run one after the other, each in a process of
its own. Atheris steers by coverage where it is installed; elsewhere the seeds are
damaged at random. What atheris learns stays in ``build/fuzz/<target>/corpus`` for the
next run, and what was found in ``build/fuzz/<target>/crash-*``: copy that to
``tests/fuzz/corpus/<target>/``, under a name that says what it is, and it is a test.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuzz.targets import Target

OUTPUT = Path(__file__).parents[2] / "build" / "fuzz"
#: One input may take this much; a larger one would be no find in this short time.
MAX_INPUT_BYTES = 1 << 16
MAX_SECONDS_PER_INPUT = 10
MAX_MEMORY_MIB = 1024
#: What a process takes before it fuzzes: imports, with instrumentation.
START_SECONDS = 1.5

_NUMBERS = (b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff", b"\0\0\0\x80", b"\xff" * 4, b"\xff" * 8)


def main() -> int:
    """Fuzz the named targets, or all; the exit code says whether anything was found."""
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("--seconds", type=float, default=120, help="in all (default: 120)")
    parser.add_argument("--random", action="store_true", help="do not use atheris")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("target", nargs="*")
    arguments = parser.parse_args()
    guided = not arguments.random and importlib.util.find_spec("atheris") is not None
    if arguments.alone:
        return fuzz(arguments.target[0], arguments.seconds, guided=guided)
    from fuzz.targets import TARGETS

    names = arguments.target or list(TARGETS)
    each = max(1.0, arguments.seconds / len(names) - START_SECONDS)
    print(f"fuzz: {len(names)} targets, {each:.0f} s each, {'atheris' if guided else 'random'}")
    failed = [name for name in names if run_alone(name, each, use_random=not guided)]
    for name in failed:
        print(f"fuzz: {name}: FOUND something, see {OUTPUT / name}", file=sys.stderr)
    return 1 if failed else 0


def run_alone(name: str, seconds: float, *, use_random: bool) -> bool:
    """Fuzz one target in its own process; return whether it failed."""
    argv = [sys.executable, "-m", "fuzz.run", "--alone", "--seconds", f"{seconds:.0f}", name]
    if use_random:
        argv.append("--random")
    log = OUTPUT / name / "log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        failed = subprocess.run(argv, stdout=file, stderr=file, check=False).returncode != 0
    lines = log.read_text(errors="replace").splitlines()
    if failed:
        print("\n".join(lines[-40:]), file=sys.stderr)
    counts = [line for line in lines if "number_of_executed_units" in line or "inputs" in line]
    print(f"fuzz: {name}: {counts[-1].split()[-1] if counts else '?'} inputs")
    return failed


def fuzz(name: str, seconds: float, *, guided: bool) -> int:
    """Fuzz one target in this process."""
    output = OUTPUT / name
    if guided:
        fuzz_guided(name, seconds, output)
    from fuzz.targets import TARGETS

    limit_memory()
    target = TARGETS[name]
    seed = random.randrange(1 << 32)
    print(f"random seed {seed}")
    return 1 if hunt(target, random.Random(seed), seconds, output) else 0


def fuzz_guided(name: str, seconds: float, output: Path) -> None:
    """Hand over to libFuzzer, which ends the process."""
    import atheris

    with atheris.instrument_imports(include=["bootc"]):
        from fuzz.targets import TARGETS
    target = TARGETS[name]
    (output / "corpus").mkdir(parents=True, exist_ok=True)
    # An empty dictionary is an error to libFuzzer, so each has at least a newline.
    words = output / "words"
    quoted = ("".join(f"\\x{byte:02x}" for byte in token) for token in (*target.tokens, b"\n"))
    words.write_text("".join(f'"{word}"\n' for word in quoted))
    flags = {
        "max_total_time": f"{seconds:.0f}",
        "max_len": MAX_INPUT_BYTES,
        "timeout": MAX_SECONDS_PER_INPUT,
        "rss_limit_mb": MAX_MEMORY_MIB,
        "artifact_prefix": f"{output}/",
        "print_final_stats": 1,
        "dict": words,
    }
    argv = [sys.argv[0], *(f"-{flag}={value}" for flag, value in flags.items())]
    atheris.Setup([*argv, str(output / "corpus"), str(target.corpus)], target.run)
    atheris.Fuzz()


def limit_memory() -> None:
    """Make too much memory a MemoryError."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_MIB << 20, MAX_MEMORY_MIB << 20))


def hunt(target: Target, choose: random.Random, seconds: float, output: Path) -> Path | None:
    """Damage the seeds until the time is over or one is found that the target does not survive."""
    seeds = [path.read_bytes()[:MAX_INPUT_BYTES] for path in target.seeds()]
    end = time.monotonic() + seconds
    count = 0
    before = signal.signal(signal.SIGALRM, _too_slow)
    try:
        while time.monotonic() < end:
            data = damage(choose, seeds, target.tokens)
            count += 1
            signal.alarm(MAX_SECONDS_PER_INPUT)
            try:
                target.run(data)
            except Exception as exc:  # noqa: BLE001  (whatever it is, it is a find)
                found = output / f"crash-{hashlib.sha256(data).hexdigest()[:16]}"
                found.parent.mkdir(parents=True, exist_ok=True)
                found.write_bytes(data)
                print(f"{found}: {type(exc).__name__}: {exc}")
                return found
            finally:
                signal.alarm(0)
    finally:
        signal.signal(signal.SIGALRM, before)
        print(f"inputs: {count}")
    return None


def _too_slow(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"more than {MAX_SECONDS_PER_INPUT} seconds")


def damage(choose: random.Random, seeds: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """Return one of the seeds with a few changes."""
    data = bytearray(choose.choice(seeds))
    for _ in range(choose.choice((1, 1, 2, 4, 16))):
        at = choose.randint(0, len(data))
        end = min(len(data), at + choose.choice((1, 2, 8, 64, 4096)))
        what = choose.randrange(7)
        if what == 0 and at < len(data):
            data[at] ^= 1 << choose.randrange(8)
        elif what == 1:
            number = choose.choice(_NUMBERS)
            data[at : at + len(number)] = number
        elif what == 2:
            data[at:at] = choose.choice([*tokens, b"\0", b"\n"])
        elif what == 3:
            del data[at:end]
        elif what == 4:
            data[at:at] = data[at:end] * choose.choice((1, 1, 2, 50))
        elif what == 5:
            other = choose.choice(seeds)
            data[at:] = other[choose.randint(0, len(other)) :]
        else:
            del data[at:]
    return bytes(data[:MAX_INPUT_BYTES])


if __name__ == "__main__":
    sys.exit(main())
