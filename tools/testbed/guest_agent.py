"""Runs commands inside a machine of the test bed; the host sends this file as a credential.

It needs nothing but a Python with the standard library of Debian's
``python3-minimal``, and nothing of the image knows of it. The protocol is one
JSON object a line over a virtio serial port; bytes travel as latin-1 text, so
that they arrive as they are:

- first ``{"ready": BOOT_ID}`` from here;
- then requests ``{"id", "command", "input", "timeout_s"}`` from the host, one at
  a time, each answered by any number of ``{"id", "stream", "data"}`` and one
  ``{"id", "rc"}``; ``rc`` is null for a command that ran out of time.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import threading
import time
from typing import IO, Any

PORT = "/dev/virtio-ports/org.bootc.agent"
ENVIRONMENT = {
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "TERM": "dumb",
}


class Port:
    """The character device, read by lines."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = b""

    def send(self, message: dict[str, Any]) -> None:
        """Write one message."""
        data = memoryview(json.dumps(message).encode() + b"\n")
        while data:
            data = data[os.write(self._fd, data) :]

    def receive(self) -> dict[str, Any]:
        """Wait for one message."""
        while b"\n" not in self._buffer:
            chunk = os.read(self._fd, 65536)
            if not chunk:  # nobody holds the other end at the moment
                time.sleep(0.2)
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message


def open_port() -> Port:
    """Wait for udev to name the port, and open it."""
    while not os.path.exists(PORT):
        time.sleep(0.2)
    return Port(os.open(PORT, os.O_RDWR | os.O_CLOEXEC))


def feed(pipe: IO[bytes], data: bytes) -> None:
    """Write the command's input; a command need not read it."""
    with contextlib.suppress(BrokenPipeError), pipe:
        pipe.write(data)


def serve(port: Port, request: dict[str, Any]) -> None:
    """Run one command and report on it."""
    child = subprocess.Popen(
        ["/bin/sh", "-c", request["command"]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        cwd="/",
        start_new_session=True,
    )
    assert child.stdin is not None
    feeder = threading.Thread(
        target=feed, args=(child.stdin, request["input"].encode("latin-1")), daemon=True
    )
    feeder.start()
    deadline = time.monotonic() + request["timeout_s"]
    selector = selectors.DefaultSelector()
    for name in ("stdout", "stderr"):
        selector.register(getattr(child, name), selectors.EVENT_READ, name)
    late = False
    while selector.get_map():
        events = selector.select(max(0.0, deadline - time.monotonic()))
        if not events and time.monotonic() >= deadline:
            late = True
            break
        for key, _ in events:
            data = os.read(key.fd, 65536)
            if data:
                port.send({"id": request["id"], "stream": key.data, "data": data.decode("latin-1")})
            else:
                selector.unregister(key.fileobj)
    if late:
        os.killpg(child.pid, signal.SIGKILL)
    rc = child.wait()
    port.send({"id": request["id"], "rc": None if late else rc})


def main() -> None:
    """Serve for ever."""
    port = open_port()
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        port.send({"ready": file.read().strip()})
    while True:
        serve(port, port.receive())


if __name__ == "__main__":
    main()
