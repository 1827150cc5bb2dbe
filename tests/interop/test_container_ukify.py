"""A UKI that ``bootc container ukify`` has systemd's ukify build."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bootc.formats.pe import Uki
from support import ukify
from support.roots import KVER, MODULES, bootable

pytestmark = pytest.mark.interop


def bootc(*arguments: object, programs: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "bootc", *map(str, arguments)],
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_uki_that_its_image_accepts(tmp_path: Path) -> None:
    """Split off the kernel, build the UKI, and check it with the other verbs of a build."""
    programs = ukify.program(tmp_path / "programs")
    root = bootable(tmp_path / "root").file("usr/lib/bootc/kargs.d/1.toml", 'kargs = ["quiet"]')
    # ukify reads the headers of a kernel that begins like an EFI program.
    root.file(f"{MODULES}/vmlinuz", b"kernel" * 1000)
    bootc(
        *("container", "split-kernel-and-rootfs", "--rootfs", root.path),
        *("--output", tmp_path / "kernel"),
        programs=programs,
    )
    digest = bootc("container", "compute-composefs-digest", root.path, programs=programs).strip()
    kernel = tmp_path / "kernel" / KVER
    built = bootc(
        *("container", "ukify", "--rootfs", root.path, "--kernel-dir", kernel, "--karg=ro"),
        *("--erofs-version=v1-only", "--", "--output=boot/EFI/Linux/os.efi"),
        programs=programs,
    )
    assert built == ""
    with (root.path / "boot/EFI/Linux/os.efi").open("rb") as file:
        uki = Uki.read(file)
        assert uki.text(".cmdline") == f"quiet composefs.digest=v1-sha512-12:{digest} ro"
        assert uki.text(".uname") == KVER
        assert b"".join(uki.chunks(".linux")) == (kernel / "vmlinuz").read_bytes()
        assert b"".join(uki.chunks(".initrd")) == (kernel / "initramfs.img").read_bytes()
        assert uki.boot_label() == "Test 1"
    # The UKI does not change what it names.
    after = bootc("container", "compute-composefs-digest", root.path, programs=programs).strip()
    assert after == digest
    lint = bootc("container", "lint", "--rootfs", root.path, programs=programs)
    assert "uki" not in lint.lower()
    assert not (root.path / MODULES / "vmlinuz").exists()
    shutil.rmtree(programs)


@pytest.mark.parametrize("choice", ["v1", "v2", "v1-only"])
def test_profiles_of_other_images(tmp_path: Path, choice: str) -> None:
    """A profile that boots something else is found, and the UKI does not stay."""
    programs = ukify.program(tmp_path / "programs")
    root = bootable(tmp_path / "root")
    profile = tmp_path / "profile.efi"
    ukify.build(profile, {"profile": "ID=other", "cmdline": f"composefs={'ab' * 64}"}, stub="addon")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bootc", "container", "ukify", f"--rootfs={root.path}"),
            *(f"--erofs-version={choice}", "--", "--output=boot/a.efi", "--profile=ID=main"),
            f"--join-profile={profile}",
        ],
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 1
    assert "profile 1 (other): the kernel command line has composefs=abab" in done.stderr
    assert list((root.path / "boot").iterdir()) == []
