"""Unified kernel images of real tools say the same to us as to those tools.

ukify and the stub it needs come from the chroot that ``tools/sid-chroot`` makes (Debian 12
has neither); it is a Python program and runs in ours.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bootc.formats.cmdline import CmdlineError
from bootc.formats.pe import Section, Uki
from support import require

pytestmark = pytest.mark.interop

CHROOT = Path(__file__).parents[2] / "build" / "sid-chroot"
PE_TARGETS = {"x86_64": "pei-x86-64", "aarch64": "pei-aarch64-little"}
CONTENT = {
    ".osrel": b'ID=debian\nPRETTY_NAME="Debian GNU/Linux 13"\nVERSION_ID="13"\n',
    ".cmdline": b"rw composefs=?" + b"cd" * 64,
    ".uname": b"6.12.48+deb13-amd64",
    ".linux": b"kernel" * 20_000,
    ".initrd": b"initramfs" * 30_001,
}
ROW = re.compile(r"^ *\d+ (\.\w+) +([0-9a-f]+) +[0-9a-f]+ +[0-9a-f]+ +([0-9a-f]+) ", re.MULTILINE)


def run(argv: list[str], directory: Path, **environment: str) -> str:
    done = subprocess.run(
        argv,
        cwd=directory,
        env={**os.environ, "LC_ALL": "C", **environment},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="backslashreplace")
    return done.stdout.decode()


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    for name, content in CONTENT.items():
        (tmp_path / name[1:]).write_bytes(content)
    return tmp_path


def made_by_objcopy(parts: Path) -> Path:
    target = PE_TARGETS.get(platform.machine())
    if target is None:
        pytest.skip(f"no EFI programs for {platform.machine()}")
    source = "".join(f'.section {name},"a"\n.incbin "{name[1:]}"\n' for name in CONTENT)
    (parts / "uki.s").write_text(source)
    run([require.tool("as"), "uki.s", "-o", "uki.o"], parts)
    run([require.tool("objcopy"), "-O", target, "uki.o", "uki.efi"], parts)
    return parts / "uki.efi"


def ukify(parts: Path, *options: str, stub: str = "linux") -> None:
    program = CHROOT / "usr" / "bin" / "ukify"
    stubs = sorted((CHROOT / "usr" / "lib" / "systemd" / "boot" / "efi").glob(f"{stub}*.efi.stub"))
    if not (program.exists() and stubs):
        require.lacking(f"{program} is absent (tools/sid-chroot makes it)")
    run(
        [sys.executable, str(program), "build", f"--stub={stubs[0]}", *options],
        parts,
        PYTHONDONTWRITEBYTECODE="1",
        PYTHONPATH=str(CHROOT / "usr" / "lib" / "python3" / "dist-packages"),
    )


def made_by_ukify(parts: Path) -> Path:
    options = {
        "linux": "linux",
        "initrd": "initrd",
        "uname": CONTENT[".uname"].decode(),
        "cmdline": CONTENT[".cmdline"].decode(),
        "os-release": "@osrel",
        "output": "uki.efi",
    }
    ukify(parts, *(f"--{key}={value}" for key, value in options.items()))
    return parts / "uki.efi"


@pytest.mark.parametrize(
    ("cmdline", "message"),
    [
        ("debug composefs=?" + "cd" * 64, None),
        ("systemd.unit=rescue.target", r"^profile 1 \(rescue\): no composefs image"),
        ("composefs=" + "cd" * 64, r"^profile 1 \(rescue\): the kernel command line has"),
    ],
)
def test_profiles(parts: Path, cmdline: str, message: str | None) -> None:
    """systemd-boot shows an item for each; its command line replaces that of the base."""
    profile = ("--profile=ID=rescue", f"--cmdline={cmdline}", "--output=rescue.efi")
    ukify(parts, *profile, stub="addon")
    ukify(
        parts,
        "--linux=linux",
        "--initrd=initrd",
        "--uname=6.12",
        f"--cmdline={CONTENT['.cmdline'].decode()}",
        "--os-release=@osrel",
        "--profile=ID=main",
        "--join-profile=rescue.efi",
        "--output=uki.efi",
    )
    with (parts / "uki.efi").open("rb") as file:
        uki = Uki.read(file)
        assert [line.split()[0] for line in uki.texts(".cmdline")] == ["rw", cmdline.split()[0]]
        if message is None:
            assert uki.composefs_images().hexes == ("cd" * 64,)
            return
        with pytest.raises(CmdlineError, match=message):
            uki.composefs_images()


@pytest.mark.parametrize("make", [made_by_objcopy, made_by_ukify])
def test_sections(parts: Path, make: Callable[[Path], Path]) -> None:
    path = make(parts)
    listing = run([require.tool("objdump"), "--section-headers", path.name], parts)
    expected = {
        name: Section(offset=int(offset, 16), size_bytes=int(size, 16))
        for name, size, offset in ROW.findall(listing)
    }
    with path.open("rb") as file:
        uki = Uki.read(file)
        assert expected.keys() >= CONTENT.keys()
        assert uki.sections == expected
        for name, content in CONTENT.items():
            assert b"".join(uki.chunks(name)) == content
        assert uki.boot_label() == "Debian GNU/Linux 13 13"
        assert uki.composefs_images().hexes == ("cd" * 64,)
        assert uki.composefs_images().optional
        boot = hashlib.sha256(CONTENT[".linux"] + CONTENT[".initrd"])
        assert uki.boot_digest() == boot.hexdigest()
