"""The programs that seal an image, and keys for them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from support import images, require, sealing, ukify


def real_layers(*more: images.Member) -> tuple[bytes, bytes]:
    """Return the same with systemd's stub and boot loader."""
    stub = ukify.stub_path()
    loader = stub.with_name("systemd-bootx64.efi").read_bytes()
    return sealing.layers(*more, stub=stub.read_bytes(), loader=loader)


@dataclass(frozen=True)
class Keys:
    """A key and its certificate."""

    key: Path
    certificate: Path

    @classmethod
    def make(cls, home: Path, name: str = "db") -> Keys:
        keys = cls(home / f"{name}.key", home / f"{name}.pem")
        subprocess.run(
            [
                *(require.tool("openssl"), "req", "-new", "-x509", "-newkey", "rsa:2048"),
                *("-nodes", "-days", "3650", "-subj", f"/CN={name}/"),
                *("-keyout", keys.key, "-out", keys.certificate),
            ],
            check=True,
            capture_output=True,
        )
        return keys

    @property
    def options(self) -> tuple[str, ...]:
        return ("--key", str(self.key), "--cert", str(self.certificate))

    def sbsign(self, unsigned: str, signed: str) -> None:
        """Sign a file elsewhere."""
        subprocess.run(
            [
                *(require.tool("sbsign"), "--key", self.key, "--cert", self.certificate),
                *("--output", signed, unsigned),
            ],
            check=True,
            capture_output=True,
        )


def seal(*arguments: object, programs: Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run ``bootc container seal``."""
    words: Sequence[str] = [str(argument) for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "bootc", "container", "seal", *words],
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == expect, done.stderr
    return done
