"""The host's end of the command agent inside a machine (its end: ``guest_agent.py``)."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Stream = Literal["stdout", "stderr"]
#: Called with every piece of output as it comes.
OnOutput = Callable[[Stream, bytes], None]


class AgentError(Exception):
    """The machine went away, or does not answer."""


class NoAnswerYetError(AgentError):
    """It does not answer so far."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a command in the machine ended; ``rc`` is None when it ran out of time."""

    command: str
    rc: int | None
    stdout_bytes: bytes
    stderr_bytes: bytes

    @property
    def stdout(self) -> str:
        """Standard output as text, bytes outside UTF-8 escaped."""
        return self.stdout_bytes.decode("utf-8", "backslashreplace")

    @property
    def stderr(self) -> str:
        """Standard error as text, bytes outside UTF-8 escaped."""
        return self.stderr_bytes.decode("utf-8", "backslashreplace")


class Agent:
    """A conversation over a connected socket; one command at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""
        self._serial = 0

    def wait_ready(self, deadline: float) -> str:
        """Wait for the agent to greet; return the guest's boot id.

        Raises:
            NoAnswerYetError: It did not until the deadline (of ``time.monotonic``).
            AgentError: It will not.
        """
        message = self._receive(deadline)
        return str(message["ready"])

    def send(self, command: str, *, input_bytes: bytes, timeout_s: float) -> int:
        """Ask for a command without waiting for its end; return the request's number."""
        self._serial += 1
        request = {
            "id": self._serial,
            "command": command,
            "input": input_bytes.decode("latin-1"),
            "timeout_s": timeout_s,
        }
        try:
            self._connection.settimeout(60)
            self._connection.sendall(json.dumps(request).encode() + b"\n")
        except OSError as exc:
            raise AgentError(f"cannot send a command: {exc}") from exc
        return self._serial

    def run(
        self,
        command: str,
        *,
        input_bytes: bytes,
        timeout_s: float,
        on_output: OnOutput | None = None,
    ) -> Result:
        """Run a shell command and wait for its end.

        Raises:
            AgentError: The machine ended meanwhile or stopped answering.
        """
        number = self.send(command, input_bytes=input_bytes, timeout_s=timeout_s)
        # The guest keeps the time; the host only notices when the guest no longer does.
        deadline = time.monotonic() + timeout_s + 60
        output: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        while True:
            message = self._receive(deadline)
            if message.get("id") != number:
                raise AgentError(f"unexpected message {message!r}")
            if "rc" in message:
                return Result(
                    command, message["rc"], bytes(output["stdout"]), bytes(output["stderr"])
                )
            stream: Stream = message["stream"]
            data = message["data"].encode("latin-1")
            output[stream] += data
            if on_output is not None:
                on_output(stream, data)

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise NoAnswerYetError("no answer in time")
            self._connection.settimeout(remaining)
            try:
                chunk = self._connection.recv(1 << 16)
            except TimeoutError as exc:
                raise NoAnswerYetError("no answer in time") from exc
            except OSError as exc:
                raise AgentError(str(exc)) from exc
            if not chunk:
                raise AgentError("the machine ended")
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message
