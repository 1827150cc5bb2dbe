"""The base class of all errors that bootc raises on purpose.

Subclasses are defined beside the code that raises them, and exist only where a caller or
a user can act differently. An ``OSError`` remains an ``OSError``: wrap the work in
:func:`doing`, and the command line prints the operation before the error.
"""

from __future__ import annotations

from bootc.printable import printable

#: How much of a word, which can be a path, and of each part a line shows.
_MAX_WORD = 512
_MAX_PART = 2048


class Error(Exception):
    """A failure the user can understand and act on.

    Args:
        message: One line that names the thing that is wrong.
        hint: What the user can do about it, one line, no full stop.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(Error):
    """The command line itself is wrong (exit code 2)."""

    exit_code = 2


class doing:  # noqa: N801  (reads as a statement: ``with doing("…")``)
    """Say what was being done when an exception passed through.

    The text becomes a note (PEP 678) of whatever exception leaves the block, so
    its type is kept. Innermost notes come first.

    >>> try:
    ...     with doing("Reading meta.json"):
    ...         raise OSError(5, "Input/output error")
    ... except OSError as exc:
    ...     print(exc.__notes__)
    ['Reading meta.json']
    """

    # A plain class: contextlib is not in the initramfs.
    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if exc is not None:
            exc.add_note(self._what)


def one_line(exc: BaseException) -> str:
    """Render an exception as one line: outermost context first, then the cause, then the hint.

    Nothing in it is a control character, whatever the names in it hold. Each part is cut where
    it is long: paths of nested directories can have any length.
    """
    notes = list(reversed(getattr(exc, "__notes__", ())))
    if isinstance(exc, OSError) and exc.strerror:
        cause = exc.strerror
        if exc.filename is not None:
            cause = f"{_name(exc.filename)}: {cause}"
    else:
        cause = _bounded(str(exc) or type(exc).__name__)
    text = ": ".join([*map(_bounded, notes), cause])
    if isinstance(exc, Error) and exc.hint:
        text += f" (hint: {_bounded(exc.hint)})"
    return printable(text.strip())


def _bounded(text: str) -> str:
    if len(text) <= _MAX_WORD:
        return text
    words = (printable(word, _MAX_WORD) for word in text.split(" "))
    return printable(" ".join(words), _MAX_PART)


def _name(filename: object) -> str:
    return printable(filename if isinstance(filename, bytes) else str(filename), _MAX_WORD)
