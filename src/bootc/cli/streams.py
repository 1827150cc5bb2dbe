"""Standard output and standard error, which may be full, closed, or of another encoding.

The work of a command never depends on them:

- The command shows progress, warnings and messages if the stream takes them. A slow or broken
  standard error does not hold up the work.
- The result is the text that the user asked for. If standard output does not take all of it,
  the exit code is 1 and a line on standard error says so. If its reader has left (EPIPE), the
  command prints no such line. In both cases a command that changes the system completes its
  work.
- The command first occupies the descriptors 0 to 2 that are closed, so no file gets their
  number.

Characters that the encoding of a stream lacks become backslash escapes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import sys
from typing import BinaryIO, TextIO

from bootc.errors import Error
from bootc.printable import printable, printable_lines

#: A pipe that poll(2) reports as writable takes this much without waiting (pipe(7)).
_AT_ONCE_BYTES = select.PIPE_BUF
#: A warning waits this long for a slow reader.
WARNING_PATIENCE_S = 5.0


class InputClosed(Error):
    """The command reads standard input, which is closed."""


class OutputLost(Error):
    """Standard output does not take the result, so the command has nothing left to do."""


def has_colours() -> bool:
    """Tell whether ``NO_COLOR`` and ``TERM`` allow colours on a terminal."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def occupy_closed_descriptors() -> None:
    """Open a path for each of the descriptors 0 to 2 that is closed.

    Reading and writing still fail: a descriptor opened with O_PATH allows neither.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The kernel uses the lowest free number.
            os.open("/", os.O_PATH | os.O_DIRECTORY)


def open_standard_input() -> BinaryIO:
    """Open standard input for bytes. Closing the file leaves the descriptor open.

    Raises:
        InputClosed: standard input is closed, or its placeholder stands there.
    """
    try:
        flags = fcntl.fcntl(0, fcntl.F_GETFL)
    except OSError:
        flags = os.O_PATH
    if flags & os.O_PATH:
        raise InputClosed("standard input is closed", hint="redirect a file to it")
    return open(0, "rb", closefd=False)


def insist_on_utf8() -> None:
    """Start the process again in UTF-8 mode if the names of files have another encoding.

    Names are bytes, and the names in images are mostly UTF-8. Python could not even open a file
    whose name has characters that the encoding lacks. Output keeps the encoding of the locale,
    which is that of the terminal.
    """
    if sys.getfilesystemencoding() == "utf-8" or not sys.executable:
        return
    encoding = getattr(sys.stdout or sys.stderr, "encoding", None)
    if encoding is not None:
        os.environ.setdefault("PYTHONIOENCODING", encoding)
    # If the exec fails, the command goes on with the encoding of the locale.
    with contextlib.suppress(OSError):
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


class _Channel:
    """A descriptor for writing without a buffer, until a write fails.

    Python's own buffers would keep the rest, and try to write it again at the end.

    Attributes:
        gone: The reason why the channel writes no more, or None.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.gone = OSError(errno.EBADF, os.strerror(errno.EBADF)) if stream is None else None
        self.encoding = getattr(stream, "encoding", None) or "utf-8"
        self._stream = stream
        self._fd: int | None = None
        self._stuck = False
        with contextlib.suppress(OSError, AttributeError):
            # Streams of some tests have no descriptor.
            self._fd = None if stream is None else stream.fileno()

    def isatty(self) -> bool:
        return self._stream is not None and self.gone is None and self._stream.isatty()

    def write_text(self, text: str, patience_s: float | None = None) -> None:
        self.write(text.encode(self.encoding, "backslashreplace"), patience_s)

    def write(self, data: bytes, patience_s: float | None = None) -> None:
        """Write what the descriptor takes. None waits for a slow reader without a limit."""
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
            # Wait only once for a reader that does not read.
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
                # Another process that shares the descriptor made it non-blocking.
                ready.poll(None if patience_s is None else 1000 * patience_s)


def _write_to_stand_in(stream: TextIO, data: bytes) -> None:
    """Write to a stream without a descriptor, in which a test collects output."""
    if (buffer := getattr(stream, "buffer", None)) is None:
        stream.write(data.decode())
    else:
        stream.flush()
        buffer.write(data)


class Output:
    """Standard output: results, whose loss is a failure, and messages, whose loss is not.

    Attributes:
        failure: The reason why a part of the result is lost, or None.
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
        """Show a line if standard output takes it."""
        self._channel.write_text(f"{printable(text)}\n")
        if self.messages_count:
            self.failure = self._channel.gone

    def count_messages(self) -> None:
        """Treat the messages from now on as the result."""
        self.messages_count = True

    def result(self, text: str) -> None:
        """Print text. If standard output does not take it, :attr:`failure` is set."""
        self._channel.write_text(printable_lines(text))
        self.failure = self._channel.gone

    def result_bytes(self, data: bytes) -> None:
        """Print bytes unchanged, or on a terminal with escapes.

        Raises:
            OutputLost: standard output does not take them.
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
    """Standard error. Writing to it never fails, and waits no longer than the caller allows.

    ``rich`` uses it as a file.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._channel = _Channel(stream)
        self.encoding = self._channel.encoding

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return self._channel.isatty()

    def write(self, text: str) -> int:
        """Show text unchanged, unless the write would have to wait."""
        self._channel.write_text(text, 0)
        return len(text)

    def flush(self) -> None:
        """Do nothing: there is no buffer."""

    def line(self, text: str, patience_s: float | None = 0) -> None:
        """Show an escaped line; wait this long for a slow reader, or with None without a limit."""
        self._channel.write_text(f"{printable(text)}\n", patience_s)

    def error(self, text: str) -> None:
        """Show the reason why the command failed."""
        prefix = "\x1b[31merror:\x1b[0m" if self.isatty() and has_colours() else "error:"
        self._channel.write_text(f"{prefix} {printable(text)}\n")
