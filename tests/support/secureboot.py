"""Keys of one's own for Secure Boot: made, used to sign, and enrolled into firmware variables.

As an owner does it who trusts nobody else: a platform key, a key exchange key, and one key in
``db`` that signs the boot loader and the unified kernel images. Microsoft's keys are not there.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from support import require

#: Who owns the entries of the firmware's lists of keys.
_OWNER = "5f4c1b4e-9a44-4ac1-8a5d-5ad6b3a1c1f3"
_NAMES = ("PK", "KEK", "db")


@dataclass(frozen=True, slots=True)
class Keys:
    """A directory with ``NAME.key`` and ``NAME.pem`` for PK, KEK and db."""

    directory: Path

    @classmethod
    def make(cls, directory: Path) -> Keys:
        """Make the keys in a new directory."""
        directory.mkdir()
        for name in _NAMES:
            argv = ["openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes"]
            argv += ["-days", "3650", "-subj", f"/CN={name} of a test/"]
            argv += ["-keyout", str(directory / f"{name}.key")]
            argv += ["-out", str(directory / f"{name}.pem")]
            subprocess.run(argv, check=True, capture_output=True)
        return cls(directory)

    @property
    def key(self) -> Path:
        """The private key that signs programs."""
        return self.directory / "db.key"

    @property
    def certificate(self) -> Path:
        """The certificate that the firmware compares signatures with."""
        return self.directory / "db.pem"

    def sign(self, program: bytes) -> bytes:
        """Return an EFI program with a signature that the firmware accepts."""
        unsigned, signed = self.directory / "unsigned", self.directory / "signed"
        unsigned.write_bytes(program)
        argv = [require.tool("sbsign"), "--key", str(self.key), "--cert", str(self.certificate)]
        argv += ["--output", str(signed), str(unsigned)]
        subprocess.run(argv, check=True, capture_output=True)
        return signed.read_bytes()

    def enroll(self, blank: Path, output: Path) -> None:
        """Copy blank firmware variables, with these keys and Secure Boot switched on."""
        argv = [sys.executable, "-m", "virt.firmware.vars"]
        argv += ["--input", str(blank), "--output", str(output), "--no-microsoft", "--secure-boot"]
        argv += ["--set-pk", _OWNER, str(self.directory / "PK.pem")]
        argv += ["--add-kek", _OWNER, str(self.directory / "KEK.pem")]
        argv += ["--add-db", _OWNER, str(self.certificate)]
        subprocess.run(argv, check=True, capture_output=True)
