"""The command: parse, run one verb, turn errors into one line and an exit code.

Exit codes: 0 done, 1 the operation failed or its result could not be printed, 2 the command
line is wrong, 130 interrupted; a comparison is like diff(1): 0 equal, 1 different, 2 failed.
:mod:`bootc.cli.streams` says what standard output and standard error are for.
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
    """Run the command line ``argv`` and return the exit code.

    Without ``argv`` it is that of the process, and the process is set up for it: streams,
    signals, logging. A process called by the name of a composefs tool is that tool.
    """
    if argv is not None:
        return _run(argv, Output(sys.stdout), SideStream(sys.stderr))
    streams.occupy_closed_descriptors()
    streams.insist_on_utf8()
    output, errors = Output(sys.stdout), SideStream(sys.stderr)
    _set_up_logging(errors)
    gc.set_threshold(*GC_THRESHOLDS)
    # What is left in the end goes with the process; the interpreter would walk all of it first.
    atexit.register(gc.freeze)
    try:
        interruption.raise_when_interrupted()
        code = _run(as_called(sys.argv), output, errors)
        interruption.ignore_from_now_on()
    except KeyboardInterrupt:
        # Once more, while the first one was reported.
        code = 130
    return code


#: Modules of others that the program cannot do without.
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
    except Exception as exc:  # noqa: BLE001  (the one place that may: it is a bug, and says so)
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
            output.result, output.result_bytes, sink, output.isatty(), output.count_messages
        )
        return args.run(args, context) or 0


class _LogHandler(logging.Handler):
    """Shows the log on standard error, which may be full or gone."""

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
