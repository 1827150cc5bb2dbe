"""QEMU's monitor, in its machine protocol (QMP): stop a machine, save it, let it go on.

https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html
"""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

#: How long QEMU may take for an answer, or to write or read the memory of a machine: it takes
#: seconds, but on a busy host many.
_TIMEOUT_S = 300.0
#: Memory goes to a file: QEMU's limit for the load of a network would only slow it down.
_UNLIMITED_BYTES_PER_S = 1 << 40


class MonitorError(Exception):
    """QEMU refuses a command, does not answer, or has ended."""


class Monitor:
    """A conversation with QEMU over a connected socket, which the caller closes."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(_TIMEOUT_S)
        self._connection = connection
        self._buffer = b""
        self._receive()  # the greeting
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run a command and return its result.

        Raises:
            MonitorError: QEMU refused the command or has ended.
        """
        request = {"execute": command, "arguments": arguments}
        try:
            self._connection.sendall(json.dumps(request).encode() + b"\n")
        except OSError as exc:
            raise MonitorError(f"{command}: {exc}") from exc
        while True:
            answer = self._receive()
            if "error" in answer:
                raise MonitorError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:  # everything else is an event
                return answer["return"]

    def save(self, state: Path) -> None:
        """Stop the machine and write its memory and devices to a file.

        Raises:
            MonitorError: QEMU could not write them.
        """
        self.execute("stop")
        self.execute("migrate-set-parameters", **{"max-bandwidth": _UNLIMITED_BYTES_PER_S})
        self.execute("migrate", uri=f"file:{state}")
        deadline = time.monotonic() + _TIMEOUT_S
        while time.monotonic() < deadline:
            found = self.execute("query-migrate")
            if found["status"] == "completed":
                return
            if found["status"] in ("failed", "cancelled"):
                raise MonitorError(f"migrate: {found.get('error-desc', found['status'])}")
            time.sleep(0.05)
        raise MonitorError("migrate: not completed in time")

    def go_on(self) -> None:
        """Wait until QEMU has read a saved machine, and let the machine run.

        Raises:
            MonitorError: QEMU could not read it.
        """
        deadline = time.monotonic() + _TIMEOUT_S
        while self.execute("query-status")["status"] == "inmigrate":
            if time.monotonic() >= deadline:
                raise MonitorError("the saved machine was not read in time")
            time.sleep(0.05)
        self.execute("cont")

    def _receive(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            try:
                chunk = self._connection.recv(1 << 16)
            except OSError as exc:
                raise MonitorError(f"no answer: {exc}") from exc
            if not chunk:
                raise MonitorError("QEMU ended")
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message
