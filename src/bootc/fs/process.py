"""Starts other programs. No other module does.

Promises: no shell, no inherited descriptors except those named, and a small and
reproducible environment. The error of a failed command is one line with the command, the
status and its last message. A program that writes without end fills no memory: only the
end of standard error is kept, and too much standard output is an error.
"""

from __future__ import annotations

import json
import logging
import os
import select
import selectors
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from bootc.errors import Error
from bootc.fs.interruption import left_to_this_thread
from bootc.printable import printable

_log = logging.getLogger(__name__)

#: Directories of administrators' tools, for callers whose PATH lacks them.
_SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")

#: The variables of the environment that a child inherits.
_INHERITED = (
    "HOME",
    "TERM",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "REGISTRY_AUTH_FILE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    *(
        name
        for proxy in ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
        for name in (proxy, proxy.upper())
    ),
)

#: The Debian package of each tool this project calls.
_PACKAGES = {
    "blkid": "util-linux",
    "bootctl": "systemd-boot-tools",
    "chroot": "coreutils",
    "findmnt": "util-linux",
    "fsck.vfat": "dosfstools",
    "fstrim": "util-linux",
    "lsblk": "util-linux",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.fat": "dosfstools",
    "mkfs.xfs": "xfsprogs",
    "osslsigncode": "osslsigncode",
    "partx": "util-linux",
    "sbverify": "sbsigntool",
    "sfdisk": "fdisk",
    "skopeo": "skopeo",
    "systemctl": "systemd",
    "udevadm": "udev",
    "ukify": "systemd-ukify",
    "unshare": "util-linux",
    "wipefs": "util-linux",
}

_TAIL_LINES = 3
_TAIL_BYTES = 8192
#: For the programs of an image, which have another layout than those of this system.
_PATH_IN_ROOT = "/bin:/usr/bin:/sbin:/usr/sbin:/usr/local/bin:/usr/local/sbin"
#: More than any tool that bootc calls writes.
_MAX_OUTPUT_BYTES = 64 << 20
_PIECE_BYTES = 1 << 16
#: A child that has ended has closed its standard error, unless its own children still run.
_LAST_WORDS_TIMEOUT_S = 1.0


class ToolMissing(Error):
    """A program this operation needs is not installed."""

    def __init__(self, tool: str) -> None:
        package = _PACKAGES.get(tool)
        super().__init__(
            f"the program {tool} is not installed",
            hint=f"on Debian it is in the package {package}" if package else None,
        )
        self.tool = tool


class CommandFailed(Error):
    """A program failed.

    ``returncode`` is negative if a signal killed it. ``stderr`` is the end of its standard error.
    """

    def __init__(self, argv: Sequence[str], returncode: int, stderr: bytes) -> None:
        if returncode < 0:
            how = f"was killed by {_signal_name(-returncode)}"
        else:
            how = f"failed with exit code {returncode}" if returncode else "failed"
        text = f"{shlex.join(argv)} {how}"
        if tail := _last_lines(stderr):
            text += f": {tail}"
        super().__init__(text)
        self.argv = tuple(argv)
        self.returncode = returncode
        self.stderr = stderr


@dataclass(frozen=True, slots=True)
class Completed:
    """The result of a program that has ended, with the end of its standard error."""

    stdout: bytes
    stderr: bytes
    returncode: int


def find_tool(name: str) -> str:
    """Return the path of a program.

    Raises:
        ToolMissing: neither the directories of PATH nor those of the system have it.
    """
    path = shutil.which(name, path=_search_path())
    if path is None:
        raise ToolMissing(os.path.basename(name))
    return path


def run(
    argv: Sequence[str],
    *,
    input: bytes | None = None,
    env: Mapping[str, str] | None = None,
    ok: Container[int] = (0,),
    cwd: str | None = None,
    pass_fds: Collection[int] = (),
    limit: int = _MAX_OUTPUT_BYTES,
) -> Completed:
    """Run a program to its end and collect its output.

    Args:
        argv: The program and its arguments.
        input: The content of its standard input, empty by default.
        env: Variables to add to the clean environment.
        ok: Exit codes that are not a failure.
        cwd: Directory to run in.
        pass_fds: Descriptors the program gets under the same numbers.
        limit: How many bytes it may write to standard output.

    Raises:
        ToolMissing: the program is not installed.
        CommandFailed: its exit code is not in ``ok``, or it wrote more than ``limit``.
    """
    program = find_tool(argv[0])
    _log.debug("running %s", shlex.join(argv))
    with subprocess.Popen(
        argv,
        executable=program,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(env),
        cwd=cwd,
        pass_fds=pass_fds,
    ) as child:
        try:
            stdout, stderr = _converse(child, argv, input or b"", limit)
            child.wait()
        except BaseException:
            child.kill()
            raise
    if child.returncode not in ok:
        raise CommandFailed(argv, child.returncode, stderr)
    return Completed(stdout, stderr, child.returncode)


def run_in_root(root: str, argv: Sequence[str], *, timeout_s: float) -> Completed:
    """Run a program of another system: of an image, with its own libraries.

    It sees ``root`` as its root directory, and has a mount namespace of its own: its mounts end
    with it. Its environment has only a PATH. Errors name the program without ``root``.

    Args:
        root: The path of the root directory of the other system.
        argv: The program, a name or a path in ``root``, and its arguments.
        timeout_s: The time after which the program and its children are killed.

    Raises:
        ToolMissing: this system lacks the programs that start it.
        CommandFailed: it is missing, its exit code is not 0, or it wrote or took too much.
    """
    program = find_tool("unshare")
    _log.debug("running %s in %s", shlex.join(argv), root)
    with subprocess.Popen(
        ["unshare", "--mount", "--", find_tool("chroot"), root, *argv],
        executable=program,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": _PATH_IN_ROOT},
        # One signal ends its children, too.
        process_group=0,
    ) as child:
        deadline = time.monotonic() + timeout_s
        try:
            stdout, stderr = _converse(child, argv, b"", _MAX_OUTPUT_BYTES, deadline)
            child.wait(max(0.0, deadline - time.monotonic()))
        except BaseException as exc:
            os.killpg(child.pid, signal.SIGKILL)
            if isinstance(exc, subprocess.TimeoutExpired):
                raise _too_long(argv, stderr) from None
            raise
    if child.returncode:
        raise CommandFailed(argv, child.returncode, stderr)
    return Completed(stdout, stderr, child.returncode)


def _too_long(argv: Sequence[str], stderr: bytes) -> CommandFailed:
    return CommandFailed(argv, 0, stderr + b"\nit did not end in time, and was killed")


def _converse(
    child: subprocess.Popen[bytes],
    argv: Sequence[str],
    input: bytes,
    limit: int,
    deadline: float | None = None,
) -> tuple[bytes, bytes]:
    """Feed a program, and read all of its standard output and the end of its standard error."""
    pipes = (child.stdin, child.stdout, child.stderr)
    stdout, stderr = bytearray(), b""
    unsent = memoryview(input)
    with selectors.DefaultSelector() as waiting:
        for pipe in filter(None, pipes):
            write = pipe is child.stdin
            waiting.register(pipe, selectors.EVENT_WRITE if write else selectors.EVENT_READ, pipe)
        while waiting.get_map():
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise _too_long(argv, stderr)
            for key, _ in waiting.select(left_s):
                if key.data is child.stdin:
                    unsent = _sent(key.fd, unsent)
                    over = not unsent
                else:
                    data = os.read(key.fd, _PIECE_BYTES)
                    over = not data
                    if key.data is child.stderr:
                        stderr = (stderr + data)[-_TAIL_BYTES:]
                    else:
                        stdout += data
                if over:
                    waiting.unregister(key.fileobj)
                    key.data.close()
                if len(stdout) > limit:
                    what = f"it wrote more than {limit} bytes to standard output"
                    raise CommandFailed(argv, 0, what.encode())
    return bytes(stdout), stderr


def _sent(fd: int, data: memoryview) -> memoryview:
    """Write as much to a pipe as it takes without waiting, and return the rest."""
    try:
        return data[os.write(fd, data[: select.PIPE_BUF]) :] if data else data
    except BrokenPipeError:
        # The program has closed its standard input. This is not an error by itself.
        return data[:0]


def run_json(argv: Sequence[str]) -> Any:
    """Run a program and parse its standard output as JSON.

    Raises:
        ToolMissing: the program is not installed.
        CommandFailed: it failed, or its output is not JSON.
    """
    done = run(argv)
    try:
        # Names of disks can be in any encoding, and older tools do not escape them.
        return json.loads(done.stdout.decode("utf-8", "surrogateescape"), strict=False)
    except (ValueError, RecursionError) as exc:
        raise CommandFailed(argv, 0, f"its output is not JSON: {exc}".encode()) from exc


class _Tail:
    """Reads a pipe to its end, so no writer has to wait, and keeps the last bytes."""

    __slots__ = ("_fd", "_kept", "_thread")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._kept = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        with left_to_this_thread():
            self._thread.start()

    def _read(self) -> None:
        while data := os.read(self._fd, _PIECE_BYTES):
            self._kept = (self._kept + data)[-_TAIL_BYTES:]
        os.close(self._fd)

    def wait(self) -> None:
        """Wait until the pipe is at its end, but only for a moment."""
        self._thread.join(_LAST_WORDS_TIMEOUT_S)

    def read(self) -> bytes:
        """Return the last bytes."""
        return self._kept


class Child:
    """A program that runs in parallel. As a context manager it is stopped at the end."""

    __slots__ = ("_argv", "_process", "_stderr")

    def __init__(
        self, argv: Sequence[str], process: subprocess.Popen[bytes], stderr: _Tail
    ) -> None:
        self._argv = tuple(argv)
        self._process = process
        self._stderr = stderr

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        return self._process.poll()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait for its end.

        Raises:
            CommandFailed: the exit code is not 0.
            TimeoutError: it still runs after ``timeout_s``.
        """
        try:
            returncode = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as exc:
            raise TimeoutError(f"{shlex.join(self._argv)} still runs") from exc
        if returncode:
            raise self.failure()

    def failure(self) -> CommandFailed:
        """Return the error about its end, for a caller that has lost contact with it."""
        returncode = self._process.poll()
        return CommandFailed(self._argv, 0 if returncode is None else returncode, self.stderr())

    def stderr(self) -> bytes:
        """Return the end of what it has written to standard error so far."""
        if self._process.poll() is not None:
            self._stderr.wait()
        return self._stderr.read()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End it with SIGTERM, then with SIGKILL. Stopping twice is allowed."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._stderr.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def spawn(
    argv: Sequence[str],
    *,
    pass_fds: Collection[int] = (),
    stdin: int | None = None,
    env: Mapping[str, str] | None = None,
) -> Child:
    """Start a program that lives longer than this call.

    Its standard output is dropped and its standard error kept for messages.

    Args:
        argv: The program and its arguments.
        pass_fds: Descriptors the program gets under the same numbers.
        stdin: The descriptor of its standard input; without it the input is empty.
        env: Variables to add to the clean environment.

    Raises:
        ToolMissing: the program is not installed.
    """
    program = find_tool(argv[0])
    _log.debug("starting %s", shlex.join(argv))
    ours, theirs = os.pipe()
    try:
        process = subprocess.Popen(
            argv,
            executable=program,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            env=_environment(env),
            pass_fds=pass_fds,
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return Child(argv, process, _Tail(ours))


def _search_path() -> str:
    own = [part for part in os.environ.get("PATH", "").split(":") if part]
    return ":".join([*own, *(part for part in _SYSTEM_PATH if part not in own)])


def _environment(additions: Mapping[str, str] | None) -> dict[str, str]:
    env = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {**env, "PATH": _search_path(), "LANG": "C.UTF-8", **(additions or {})}


def _last_lines(stderr: bytes) -> str:
    lines = stderr[-_TAIL_BYTES:].replace(b"\r", b"\n").split(b"\n")
    texts = [printable(line.replace(b"\t", b" ").strip()) for line in lines]
    return "; ".join([text for text in texts if text][-_TAIL_LINES:])


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
