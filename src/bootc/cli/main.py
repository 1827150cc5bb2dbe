"""The command: parse the command line, run one verb, turn an error into a line and an exit code.

Exit codes: 0 success, 1 the operation failed or its result was not printed completely, 2 the
command line is wrong, 130 interrupted. A comparison is like diff(1): 0 equal, 1 different, 2
failed. :mod:`bootc.cli.streams` says what standard output and standard error are for.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
import traceback
from collections.abc import Mapping, Sequence

from bootc import __version__
from bootc.cli import streams
from bootc.cli.options import Context, TextWanted, build_parser
from bootc.cli.progress import renderer
from bootc.cli.streams import Output, OutputLost, SideStream
from bootc.cli.table import as_called, commands_for
from bootc.errors import Error, UsageError, one_line
from bootc.fs import interruption

#: A tree of files consists of many small objects without cycles. With Python's own thresholds
#: the collector walks them again and again and finds nothing, which takes a fifth of the time
#: of writing an image (``bench/erofs.py``).
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
    """Run the command line ``argv`` and return the exit code.

    Without ``argv``, run the command line of the process, after the set-up of streams, signals
    and logging. A process called by the name of a composefs tool acts as that tool.
    """
    if argv is not None:
        return _run(argv, Output(sys.stdout), SideStream(sys.stderr))
    streams.occupy_closed_descriptors()
    streams.insist_on_utf8()
    output, errors = Output(sys.stdout), SideStream(sys.stderr)
    _set_up_logging(errors)
    gc.set_threshold(*GC_THRESHOLDS)
    # The interpreter would walk all objects once more at its end.
    atexit.register(gc.freeze)
    try:
        interruption.raise_when_interrupted()
        code = _run(as_called(sys.argv), output, errors)
        interruption.ignore_from_now_on()
    except KeyboardInterrupt:
        # A second interruption, during the report of the first one.
        code = 130
    return code


#: Libraries that the program needs.
_LIBRARIES = ("zstandard",)


def _run(argv: Sequence[str], output: Output, errors: SideStream) -> int:
    code = 1
    try:
        code = _run_verb(argv, output, errors)
    except TextWanted as wanted:
        output.result(wanted.text)
        code = 0
    except OutputLost:
        pass  # reported below
    except KeyboardInterrupt:
        errors.error("interrupted")
        return 130
    except (Error, OSError) as exc:
        errors.error(one_line(exc))
        return exc.exit_code if isinstance(exc, Error) else 1
    except Exception as exc:  # noqa: BLE001  (the one place that may: it reports a bug)
        if isinstance(exc, ModuleNotFoundError) and exc.name in _LIBRARIES:
            package = f"python3-{exc.name}"
            errors.error(f"{exc.name} is not installed (hint: on Debian apt install {package})")
            return 1
        for line in traceback.format_exc().rstrip().split("\n"):
            errors.line(line, None)
        errors.error("this is a bug in bootc; please report it with the lines above")
        return 1
    if output.failure is None:
        return code
    if not isinstance(output.failure, BrokenPipeError):
        errors.error(f"standard output: {output.failure.strerror}")
    return code or 1


def _run_verb(argv: Sequence[str], output: Output, errors: SideStream) -> int:
    args = build_parser("bootc", commands_for(argv), __version__).parse_args(argv)
    if args.run is None:
        raise UsageError("a command is missing", hint=f"see {args.program} --help")
    with renderer(errors, output) as sink:
        context = Context(
            output.result,
            output.result_bytes,
            sink,
            output.isatty(),
            output.count_messages,
            commands_for,
        )
        return args.run(args, context) or 0


class _LogHandler(logging.Handler):
    """Writes the log to standard error, which may be full or closed."""

    def __init__(self, errors: SideStream) -> None:
        super().__init__()
        self._errors = errors

    def emit(self, record: logging.LogRecord) -> None:
        """Show one line."""
        text = f"{record.levelname.lower()}: {record.getMessage()}"
        self._errors.line(text, streams.WARNING_PATIENCE_S)


def _set_up_logging(errors: SideStream) -> None:
    logging.basicConfig(level=log_level(os.environ), handlers=[_LogHandler(errors)])


def log_level(environment: Mapping[str, str]) -> int:
    """Return the lowest level of messages that go to standard error.

    ``BOOTC_LOG`` names the level. Without it, ``RUST_LOG`` does, upstream's variable: directives
    with commas between them. A directive with the target bootc wins over one without a target.
    Directives with other targets do not count.
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
