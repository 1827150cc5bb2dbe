"""``cfs oci mount``: a pulled image is mounted by the kernel, the plain one or the one to boot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import bootc
from support import images, require
from support.images import directory, file

pytestmark = pytest.mark.host

BIG = b"big" * 1000


def cfs(repo: Path, *words: object) -> list[str]:
    return [
        sys.executable,
        "-m",
        "bootc",
        "internals",
        "cfs",
        "--repo",
        str(repo),
        *map(str, words),
    ]


def test_mount(tmp_path: Path) -> None:
    require.root()
    unshare = require.tool("unshare")
    environment = {**os.environ, "PYTHONPATH": str(Path(bootc.__file__).parents[1])}
    layer = images.bootable(directory("boot/efi"), file("boot/vmlinuz", BIG), file("usr/big", BIG))
    layout = images.single(tmp_path / "layout", layer)
    repo, mountpoint = tmp_path / "repo", tmp_path / "mnt"
    mountpoint.mkdir()

    def run(*command: str) -> str:
        return subprocess.run(
            command, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=120
        ).stdout

    run(*cfs(repo, "init", "--insecure"))
    run(*cfs(repo, "oci", "pull", layout.reference(), "os", "--bootable"))

    def mounted(*options: str) -> tuple[list[str], bytes]:
        """Return what is in ``/boot`` and ``/usr/big`` of the mounted image."""
        script = '"$@" && ls "$MNT/boot" && cat "$MNT/usr/big"'
        command = cfs(repo, "oci", "mount", "os", mountpoint, *options)
        environment["MNT"] = str(mountpoint)
        isolated = (unshare, "--mount", "--propagation", "private", "sh", "-c", script, "sh")
        out = run(*isolated, *command)
        *boot, content = out.split("\n")
        return boot, content.encode()

    assert mounted() == (["efi", "vmlinuz"], BIG)
    assert mounted("--bootable") == ([], BIG)
    assert list(mountpoint.iterdir()) == []
