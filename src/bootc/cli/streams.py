"""Standard output and standard error when they are full, closed, gone or of another encoding.

What a command does never depends on them:

- Progress, warnings and messages are shown if they can be. A stream that cannot take them
  changes nothing, and standard error does not hold up the work either.
- A result is what the command was asked to print. If standard output does not take all of
  it, the exit code is 1 and a line on standard error says so. If its reader left (EPIPE),
  no line is printed. A command that changes something does so to the end in both cases.
- Closed descriptors 0 to 2 are occupied first, so that no file gets their number.

Both are written with backslash escapes for what their encoding lacks.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import sys
from typing import TextIO

from bootc.errors import Error
from bootc.printable import printable, printable_lines

#: A pipe that can be written to at all takes so much without waiting (pipe(7), PIPE_BUF).
_AT_ONCE_BYTES = select.PIPE_BUF
#: How long a warning waits for a reader that is slow.
WARNING_PATIENCE_S = 5.0


class OutputLost(Error):
    """Standard output does not take the result, and there is no point in going on."""


def has_colours() -> bool:
    """Tell whether a terminal may be sent colours, as ``NO_COLOR`` and ``TERM`` say."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def occupy_closed_descriptors() -> None:
    """Open something for each of the descriptors 0 to 2 that is closed.

    Reading and writing them fails as before: a descriptor of O_PATH allows neither.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The kernel takes the lowest number that is free.
            os.open("/", os.O_PATH | os.O_DIRECTORY)


def insist_on_utf8() -> None:
    """Start the process again if this locale has names of files in another encoding.

    Names are bytes, and those of images are mostly UTF-8. With an encoding that lacks
    characters, files that have them could not even be opened. Output keeps the encoding of
    the locale, which is that of the terminal.
    """
    if sys.getfilesystemencoding() == "utf-8" or not sys.executable:
        return
    encoding = getattr(sys.stdout or sys.stderr, "encoding", None)
    if encoding is not None:
        os.environ.setdefault("PYTHONIOENCODING", encoding)
    # Where that fails the command does what it can in this encoding.
    with contextlib.suppress(OSError):
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


class _Channel:
    """A descriptor that is written to without a buffer, until that fails once.

    Python's own buffers would keep what was not written, and try again at the end.

    Attributes:
        gone: Why nothing is written any more.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.gone = OSError(errno.EBADF, os.strerror(errno.EBADF)) if stream is None else None
        self.encoding = getattr(stream, "encoding", None) or "utf-8"
        self._stream = stream
        self._fd: int | None = None
        self._stuck = False
        with contextlib.suppress(OSError, AttributeError):
            # Some stand-ins for a stream have no descriptor.
            self._fd = None if stream is None else stream.fileno()

    def isatty(self) -> bool:
        return self._stream is not None and self.gone is None and self._stream.isatty()

    def write_text(self, text: str, patience_s: float | None = None) -> None:
        self.write(text.encode(self.encoding, "backslashreplace"), patience_s)

    def write(self, data: bytes, patience_s: float | None = None) -> None:
        """Write what can be written; None waits for a slow reader for ever."""
        try:
            if self._fd is not None:
                self._put(self._fd, memoryview(data), patience_s)
            elif self._stream is not None:
                _write_to_stand_in(self._stream, data)
        except OSError as exc:
            self.gone = exc

    def _put(self, fd: int, data: memoryview, patience_s: float | None) -> None:
        most = len(data)
        if patience_s is not None:
            most = _AT_ONCE_BYTES
            # Whoever did not read for so long is not waited for again.
            patience_s = 0 if self._stuck else patience_s
        ready = select.poll()
        ready.register(fd, select.POLLOUT)
        while data and self.gone is None:
            if patience_s is not None and not ready.poll(1000 * patience_s):
                self._stuck = self._stuck or patience_s > 0
                return
            self._stuck = False
            try:
                data = data[os.write(fd, data[:most]) :]
            except BlockingIOError:
                # Somebody made the descriptor non-blocking, for himself and for us.
                ready.poll(None if patience_s is None else 1000 * patience_s)


def _write_to_stand_in(stream: TextIO, data: bytes) -> None:
    """Write to what has no descriptor: a test collects the output of a command there."""
    if (buffer := getattr(stream, "buffer", None)) is None:
        stream.write(data.decode())
    else:
        stream.flush()
        buffer.write(data)


class Output:
    """Standard output: results, which count, and messages, which do not.

    Attributes:
        failure: Why a part of the result is lost, or None.
        messages_count: Whether messages are the result.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.failure: OSError | None = None
        self.messages_count = False
        self._channel = _Channel(stream)

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return self._channel.isatty()

    def message(self, text: str) -> None:
        """Show a line, if that can be done."""
        self._channel.write_text(f"{printable(text)}\n")
        if self.messages_count:
            self.failure = self._channel.gone

    def count_messages(self) -> None:
        """Take the messages from now on for the result."""
        self.messages_count = True

    def result(self, text: str) -> None:
        """Print text. What gets lost is in :attr:`failure`; the work goes on."""
        self._channel.write_text(printable_lines(text))
        self.failure = self._channel.gone

    def result_bytes(self, data: bytes) -> None:
        """Print bytes as they are; on a terminal with escapes.

        Raises:
            OutputLost: they cannot be written.
        """
        if self.isatty():
            text = data.decode("utf-8", "surrogateescape")
            self._channel.write_text("\t".join(map(printable_lines, text.split("\t"))))
        else:
            self._channel.write(data)
        self.failure = self._channel.gone
        if self.failure is not None:
            raise OutputLost(f"standard output: {self.failure.strerror}")


class SideStream:
    """Standard error. It never fails, and waits for a reader only as long as it is told to.

    ``rich`` takes it for a file.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._channel = _Channel(stream)
        self.encoding = self._channel.encoding

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return self._channel.isatty()

    def write(self, text: str) -> int:
        """Show text as it is, unless that would have to wait."""
        self._channel.write_text(text, 0)
        return len(text)

    def flush(self) -> None:
        """Do nothing: all is written at once."""

    def line(self, text: str, patience_s: float | None = 0) -> None:
        """Show a line, escaped, and wait so long for a slow reader; None is for ever."""
        self._channel.write_text(f"{printable(text)}\n", patience_s)

    def error(self, text: str) -> None:
        """Show the line that says why the command failed."""
        prefix = "\x1b[31merror:\x1b[0m" if self.isatty() and has_colours() else "error:"
        self._channel.write_text(f"{prefix} {printable(text)}\n")
