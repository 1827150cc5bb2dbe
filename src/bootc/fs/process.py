"""The one door to other programs.

Owns: how children are started, their environment, and the errors about them.
Promises: no shell, no inherited descriptors but those named, a small and
reproducible environment, and a failure that says in one line which command
failed, how, and what it said last.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from bootc.errors import Error

_log = logging.getLogger(__name__)

#: Where administrators' tools live, also for callers whose PATH lacks them.
_SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")

#: What a child may learn of our environment.
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
    "findmnt": "util-linux",
    "fstrim": "util-linux",
    "lsblk": "util-linux",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.fat": "dosfstools",
    "mkfs.xfs": "xfsprogs",
    "partx": "util-linux",
    "sfdisk": "fdisk",
    "skopeo": "skopeo",
    "udevadm": "udev",
    "wipefs": "util-linux",
}

_TAIL_LINES = 3
_TAIL_BYTES = 8192


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
    """A program ran and said no.

    ``returncode`` is negative when a signal killed it; ``stderr`` is all it wrote there.
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
    """What a program that has ended left behind."""

    stdout: bytes
    stderr: bytes
    returncode: int


def find_tool(name: str) -> str:
    """Return the path of a program.

    Raises:
        ToolMissing: it is in no directory of PATH and in none of the system's.
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
) -> Completed:
    """Run a program to its end and collect what it wrote.

    Args:
        argv: The program and its arguments.
        input: Given to its standard input; nothing when left out.
        env: Variables to add to the clean environment.
        ok: Exit codes that are no failure.
        cwd: Directory to run in.
        pass_fds: Descriptors the program gets under the same numbers.

    Raises:
        ToolMissing: the program is not installed.
        CommandFailed: its exit code is not in ``ok``.
    """
    program = find_tool(argv[0])
    _log.debug("running %s", shlex.join(argv))
    done = subprocess.run(
        argv,
        executable=program,
        input=b"" if input is None else input,
        capture_output=True,
        env=_environment(env),
        cwd=cwd,
        pass_fds=pass_fds,
        check=False,
    )
    if done.returncode not in ok:
        raise CommandFailed(argv, done.returncode, done.stderr)
    return Completed(done.stdout, done.stderr, done.returncode)


def run_json(argv: Sequence[str]) -> Any:
    """Run a program and parse its standard output as JSON.

    Raises:
        ToolMissing: the program is not installed.
        CommandFailed: it failed, or wrote something else than JSON.
    """
    done = run(argv)
    try:
        return json.loads(done.stdout)
    except (ValueError, RecursionError) as exc:
        raise CommandFailed(argv, 0, f"its output is not JSON: {exc}".encode()) from exc


class Child:
    """A program that runs beside us. As a context manager it is stopped at the end."""

    __slots__ = ("_argv", "_process", "_stderr_fd")

    def __init__(
        self, argv: Sequence[str], process: subprocess.Popen[bytes], stderr_fd: int
    ) -> None:
        self._argv = tuple(argv)
        self._process = process
        self._stderr_fd = stderr_fd

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
        """Return the error that tells of its end, for a caller who lost contact with it."""
        returncode = self._process.poll()
        return CommandFailed(self._argv, 0 if returncode is None else returncode, self.stderr())

    def stderr(self) -> bytes:
        """Return the end of what it has written to standard error so far."""
        size = os.fstat(self._stderr_fd).st_size
        return os.pread(self._stderr_fd, _TAIL_BYTES, max(0, size - _TAIL_BYTES))

    def stop(self, timeout_s: float = 5.0) -> None:
        """End it: politely, then by force. Stopping twice is fine."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._stderr_fd >= 0:
            fd, self._stderr_fd = self._stderr_fd, -1
            os.close(fd)

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
        stdin: A descriptor to be its standard input; nothing when left out.
        env: Variables to add to the clean environment.

    Raises:
        ToolMissing: the program is not installed.
    """
    program = find_tool(argv[0])
    _log.debug("starting %s", shlex.join(argv))
    # A memory file cannot fill up and block the child the way an unread pipe does.
    stderr_fd = os.memfd_create("stderr", os.MFD_CLOEXEC)
    try:
        process = subprocess.Popen(
            argv,
            executable=program,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.DEVNULL,
            stderr=stderr_fd,
            env=_environment(env),
            pass_fds=pass_fds,
        )
    except BaseException:
        os.close(stderr_fd)
        raise
    return Child(argv, process, stderr_fd)


def _search_path() -> str:
    own = [part for part in os.environ.get("PATH", "").split(":") if part]
    return ":".join([*own, *(part for part in _SYSTEM_PATH if part not in own)])


def _environment(additions: Mapping[str, str] | None) -> dict[str, str]:
    env = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {**env, "PATH": _search_path(), "LANG": "C.UTF-8", **(additions or {})}


def _last_lines(stderr: bytes) -> str:
    text = stderr[-_TAIL_BYTES:].decode("utf-8", "backslashreplace")
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return "; ".join(lines[-_TAIL_LINES:])


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
