"""Images that can be sealed, and keys to seal them with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from support import images, require, ukify
from support.images import directory, file

KVER = "6.12.0-test"
EFI = "usr/lib/systemd/boot/efi"
UKI = f"boot/EFI/Linux/{KVER}.efi"
LOADER = f"{EFI}/systemd-bootx64.efi"
KERNEL, INITRAMFS = b"kernel" * 1000, b"initramfs" * 1000
OS_RELEASE = b'ID=test\nVERSION_ID=1\nPRETTY_NAME="Test 1"\n' + b"#" * 99


def layers(*more: images.Member, stub: bytes, loader: bytes | None) -> tuple[bytes, bytes]:
    """Return two layers: a bootable system, and the files that sealing needs besides the kernel.

    Args:
        more: Members of the second layer.
        stub: The stub for unified kernel images.
        loader: The program of systemd-boot, or None.
    """
    homes = ("usr/lib/systemd", "usr/lib/systemd/boot", EFI, "usr/lib/bootc")
    return (
        images.bootable(kernel=KERNEL, initramfs=INITRAMFS),
        images.layer(
            *(directory(home) for home in (*homes, "usr/lib/bootc/kargs.d")),
            file(f"{EFI}/linuxx64.efi.stub", stub),
            *([file(LOADER, loader)] if loader else []),
            file("usr/lib/os-release", OS_RELEASE),
            file("usr/lib/bootc/kargs.d/1.toml", b'kargs = ["quiet", "lockdown=integrity"]\n'),
            *more,
        ),
    )


def real_layers(*more: images.Member) -> tuple[bytes, bytes]:
    """Return the same with systemd's stub and boot loader."""
    stub = ukify.stub_path()
    loader = stub.with_name("systemd-bootx64.efi").read_bytes()
    return layers(*more, stub=stub.read_bytes(), loader=loader)


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
