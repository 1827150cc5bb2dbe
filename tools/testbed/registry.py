"""A real registry on this machine: Debian's docker-registry on a free loopback port.

A virtual machine with user-mode networking reaches it, too. Plain HTTP: give skopeo
:attr:`Registry.environment`, and a guest :func:`configuration` for the address it
knows the registry by.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_START_TIMEOUT_S = 20


class RegistryMissingError(Exception):
    """A program to run a registry or to fill it is not installed; the message names it."""


@dataclass(frozen=True, slots=True)
class Registry:
    """A running registry."""

    port: int
    directory: Path

    @property
    def host(self) -> str:
        """The address on this machine."""
        return f"127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What lets skopeo use plain HTTP: a home whose user configured it."""
        home = self.directory / "home"
        path = home / ".config" / "containers" / "registries.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(configuration(self.host))
        return {"HOME": str(home)}

    def name(self, image: str) -> str:
        """Return the skopeo name of an image in this registry."""
        return f"docker://{self.host}/{image}"

    def push(self, source: str, image: str, *options: str) -> str:
        """Copy an image into the registry and return its name."""
        skopeo("copy", *options, "--dest-tls-verify=false", source, self.name(image))
        return self.name(image)


def configuration(host: str, *, known_as: str | None = None) -> str:
    """Return a registries.conf that allows plain HTTP to a registry, by another name if given."""
    prefix = f'prefix = "{known_as}"\n' if known_as else ""
    return f'[[registry]]\n{prefix}location = "{host}"\ninsecure = true\n'


def skopeo(*arguments: str) -> None:
    """Run skopeo with a policy that accepts anything.

    Raises:
        RegistryMissingError: it is not installed.
        subprocess.CalledProcessError: it failed.
    """
    subprocess.run(
        [_program("skopeo"), "--insecure-policy", *arguments], check=True, capture_output=True
    )


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Registry]:
    """Run a registry that stores below ``directory``.

    Raises:
        RegistryMissingError: docker-registry is not installed.
    """
    program = _program("docker-registry")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (directory / "storage").mkdir(parents=True)
    config = directory / "config.yml"
    config.write_text(
        f"version: 0.1\n"
        f"storage: {{filesystem: {{rootdirectory: {directory}/storage}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
        f"log: {{level: error}}\n"
    )
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen(
            [program, "serve", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        _wait(port, server, directory / "log")
        yield Registry(port, directory)
    finally:
        server.terminate()
        server.wait(10)


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise RegistryMissingError(f"{name} is not installed (tools/host-packages installs it)")
    return path


def _wait(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"docker-registry did not start: {log.read_text()[-1000:]}")
