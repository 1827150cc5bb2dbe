"""The command: parse, run one verb, turn errors into one line and an exit code.

Exit codes: 0 done, 1 the operation failed, 2 the command line is wrong, 130
interrupted; a comparison is like diff(1): 0 equal, 1 different, 2 failed. Output for
the user goes to stdout; errors and warnings to stderr.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from types import FrameType

from bootc import __version__
from bootc.cli.options import Context, build_parser
from bootc.cli.progress import renderer
from bootc.cli.table import as_called, commands_for
from bootc.errors import Error, UsageError, one_line
from bootc.events import Sink

#: A tree of files is many small objects and no cycles. With Python's own thresholds the
#: collector walks all of them again and again, and finds nothing: a fifth of the time of
#: writing an image (``bench/erofs.py``).
GC_THRESHOLDS = (100_000, 20, 20)

_OWN_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_RUST_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "off": logging.CRITICAL + 1,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's) and return the exit code.

    A process called by the name of a composefs tool is that tool.
    """
    if argv is None:
        argv = as_called(sys.argv)
    _set_up_logging()
    signal.signal(signal.SIGTERM, _terminate)
    gc.set_threshold(*GC_THRESHOLDS)
    # What is left in the end goes with the process; the interpreter would walk all of it first.
    atexit.register(gc.freeze)
    try:
        args = build_parser("bootc", commands_for(argv), __version__).parse_args(argv)
        if args.run is None:
            raise UsageError("a command is missing", hint="see bootc --help")
        with renderer(sys.stderr, sys.stdout) as sink:
            code: int | None = args.run(args, _context(sink))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader left (``bootc status | head``); nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130
    except (Error, OSError) as exc:
        _complain(one_line(exc))
        return exc.exit_code if isinstance(exc, Error) else 1
    except Exception:  # noqa: BLE001  (the one place that may: it is a bug, and says so)
        traceback.print_exc()
        _complain("this is a bug in bootc; please report it with the lines above")
        return 1
    return code or 0


def _context(sink: Sink) -> Context:
    return Context(_write, _write_bytes, sink, sys.stdout.isatty())


def _write(text: str) -> None:
    sys.stdout.write(text)


def _write_bytes(data: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(data)


def _complain(text: str) -> None:
    prefix = "\x1b[31merror:\x1b[0m" if sys.stderr.isatty() else "error:"
    print(prefix, text, file=sys.stderr)


def _terminate(signum: int, frame: FrameType | None) -> None:
    # SIGTERM unwinds like Ctrl-C, so that every context manager cleans up.
    raise KeyboardInterrupt


def _set_up_logging() -> None:
    level = log_level(os.environ)
    logging.basicConfig(level=level, format="%(levelname)s: %(message)s", stream=sys.stderr)
    for number, name in ((logging.WARNING, "warning"), (logging.ERROR, "error")):
        logging.addLevelName(number, name)


def log_level(environment: Mapping[str, str]) -> int:
    """Return from which level on messages are logged to standard error.

    ``BOOTC_LOG`` names it. Without that ``RUST_LOG`` does, upstream's variable: directives with
    commas between them. One whose target is bootc counts more than one without a target, and
    those with other targets do not count.
    """
    own = environment.get("BOOTC_LOG", "").lower()
    if own in _OWN_LEVELS:
        return _OWN_LEVELS[own]
    general, of_bootc = logging.WARNING, None
    for directive in environment.get("RUST_LOG", "").lower().split(","):
        target, equals, level = directive.strip().rpartition("=")
        if not equals:
            general = _RUST_LEVELS.get(level, general)
        elif target.startswith("bootc"):
            of_bootc = _RUST_LEVELS.get(level, of_bootc)
    return general if of_bootc is None else of_bootc


if __name__ == "__main__":
    sys.exit(main())
