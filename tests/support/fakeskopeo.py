"""A skopeo that says what a test wants: the image proxy's protocol, and ``inspect --raw``."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

#: Reads what it says from the directory it lies in. Speaks the protocol on standard input.
_PROGRAM = """\
#!{python}
import json, os, signal, socket, sys
signal.alarm(60)
here = {here!r}
def said(name):
    with open(os.path.join(here, name), "rb") as file:
        return file.read()
script = json.loads(said("script"))
sys.stderr.write(script["stderr"])
with open(os.path.join(here, "calls"), "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1] == "--policy":
    with open(sys.argv[2], "rb") as given, open(os.path.join(here, "policy"), "wb") as policy:
        policy.write(given.read())
if sys.argv[1] == "inspect":
    sys.stdout.buffer.write(said("raw"))
    sys.exit(script["inspect_exit"])
channel = socket.socket(fileno=0)
def reply(value, content=None, pipe_id=0):
    packet = json.dumps({{"success": True, "value": value, "pipeid": pipe_id}}).encode()
    if content is None:
        channel.sendall(packet)
        return
    read_fd, write_fd = os.pipe()
    if os.fork() == 0:
        os.close(read_fd)
        with open(write_fd, "wb") as pipe:
            pipe.write(content)
        os._exit(0)
    os.close(write_fd)
    socket.send_fds(channel, [packet], [read_fd])
    os.close(read_fd)
while request := channel.recv(1 << 20):
    request = json.loads(request)
    method, args = request["method"], request["args"]
    if method in script["replies"]:
        channel.sendall(script["replies"][method].encode())
    elif method == "Initialize":
        reply("0.2.3")
    elif method == "OpenImage":
        reply(1)
    elif method == "GetManifest":
        reply(script["claimed"], said("served"), 7)
    elif method == "GetFullConfig":
        reply(None, said("config"), 7)
    elif method == "GetBlob":
        name = os.path.join("blobs", args[1])
        if os.path.exists(os.path.join(here, name)):
            reply(args[2], said(name), 7)
        else:
            channel.sendall(json.dumps({{"success": False, "error": "no such blob"}}).encode())
    elif method == "Shutdown":
        break
    else:
        reply(None)
"""


@dataclass
class FakeSkopeo:
    """What it shall say."""

    directory: Path
    #: The digest it gives the image.
    claimed: str = ""
    #: The manifest that the proxy serves, and the one that ``inspect --raw`` prints.
    served: bytes = b""
    raw: bytes = b""
    #: What GetFullConfig says.
    config: bytes = b""
    #: By digest.
    blobs: dict[str, bytes] = field(default_factory=dict)
    #: Whole packets in place of an answer, by method.
    replies: dict[str, str] = field(default_factory=dict)
    stderr: str = ""
    inspect_exit: int = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make it the skopeo of this process."""
        bin_dir = self.directory / "bin"
        bin_dir.mkdir(exist_ok=True, parents=True)
        program = bin_dir / "skopeo"
        program.write_text(_PROGRAM.format(python=sys.executable, here=str(self.directory)))
        program.chmod(0o755)
        script = {
            "claimed": self.claimed,
            "replies": self.replies,
            "stderr": self.stderr,
            "inspect_exit": self.inspect_exit,
        }
        (self.directory / "script").write_text(json.dumps(script))
        for name, content in (("served", self.served), ("raw", self.raw), ("config", self.config)):
            (self.directory / name).write_bytes(content)
        blobs = self.directory / "blobs"
        blobs.mkdir(exist_ok=True)
        for digest, content in self.blobs.items():
            (blobs / digest).write_bytes(content)
        if str(bin_dir) not in os.environ["PATH"]:
            monkeypatch.setenv("PATH", str(bin_dir), prepend=":")

    def calls(self) -> list[list[str]]:
        """Return the command lines it was called with."""
        path = self.directory / "calls"
        lines: list[Any] = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]
