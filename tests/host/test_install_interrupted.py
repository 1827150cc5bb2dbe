"""Installations that are killed right before and right after their commit point.

Before it the disk does not boot, and the next installation overwrites it unasked. After it the
disk boots, and the next installation refuses, although the mark of an unfinished installation is
still there. bootctl, chroot and the ESP are fakes as in ``test_install_to_disk.py``.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.deploy.install.partition import DiskSizes, create_table, is_unfinished, read_table
from bootc.fs import loopback
from support import images, installer, require
from support.commands import Commands
from support.images import directory, file
from support.unified import unified

pytestmark = pytest.mark.host

MIB = 1 << 20
#: Do what grub-mkimage does in a chroot: write the file that --output names.
CHROOT = 'head -c 1600 /dev/zero >"$1/tmp/core.img"'
BOOT_IMAGE = bytes(range(254)) * 2 + b"\0\0" + b"\x55\xaa"
COMMON = ("--allow-missing-verity", "--target-imgref", "example.com/os:1", "--generic-image")

BEFORE_EXCHANGE = "bootc.boot.menu_write:commit_staged"
AFTER_EXCHANGE = "bootc.boot.menu_write:_keep_last"
BEFORE_FALLBACK = "bootc.boot.menu_firmware:write_fallback"
AFTER_FALLBACK = "bootc.boot.menu_firmware:FirmwareMenu._follow"
BEFORE_SECTOR_0 = "bootc.deploy.install.grub_bios:write_boot_sector"
END_OF_ROOT = "bootc.deploy.install.clearing:UndoneUnlessKept.keep"


def source(path: Path, loader: str) -> str:
    """Make an image that the loader starts, and return its reference."""
    members = [
        *(directory(name) for name in ("etc", "var", "tmp")),
        file("usr/lib/os-release", b"ID=demo\nVERSION_ID=1\n"),
        file("usr/lib/grub/i386-pc/boot.img", BOOT_IMAGE),
        file("usr/bin/grub-mkimage", b"program"),
    ]
    kernel, initramfs = b"kernel" * 1000, b"initramfs" * 1000
    if loader == "none":
        return unified(path, members, kernel, initramfs).reference()
    layer = images.bootable(*members, kernel=kernel, initramfs=initramfs)
    return images.single(path / "layout", layer).reference()


@pytest.fixture
def _programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require.root()
    require.tool("sfdisk")
    commands = Commands(tmp_path / "bin", monkeypatch)
    commands.mock("bootctl", installer.BOOTCTL)
    commands.mock("chroot", CHROOT)


@pytest.mark.usefixtures("_programs")
@pytest.mark.parametrize(
    ("loader", "kill_at", "boots"),
    [
        ("systemd", BEFORE_EXCHANGE, False),
        ("systemd", AFTER_EXCHANGE, True),
        # For any machine: the menu is the commit point of both forms. test_install_grub.py has the
        # form for a BIOS, which the image of a disk never has.
        ("grub", BEFORE_SECTOR_0, False),
        ("grub", BEFORE_EXCHANGE, False),
        ("grub", AFTER_EXCHANGE, True),
        ("none", BEFORE_FALLBACK, False),
        ("none", AFTER_FALLBACK, True),
    ],
)
def test_a_disk(tmp_path: Path, loader: str, kill_at: str, boots: bool) -> None:
    disk = tmp_path / "disk.img"
    disk.touch()
    with open(disk, "r+b") as raw:
        raw.truncate(2048 * MIB)
    options = ("--filesystem", "ext4", "--via-loopback", "--bootloader", loader, *COMMON)
    arguments = ("to-disk", "--source-imgref", source(tmp_path, loader), *options, disk)
    killed = installer.run(*arguments, kill_at=kill_at)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert is_unfinished(read_table(str(disk)))
    if boots:
        content = disk.stat()
        # Another loader than the one that was installed.
        refused = installer.run(*arguments, "--bootloader", "systemd")
        assert refused.returncode == 1, refused.stderr
        assert f"Detected existing partitions on {disk}; use e.g." in refused.stderr
        assert "was killed after it was complete" in refused.stderr
        after = disk.stat()
        assert (after.st_mtime_ns, after.st_blocks) == (content.st_mtime_ns, content.st_blocks)
        return
    done = installer.run(*arguments)
    assert done.returncode == 0, done.stderr
    assert not is_unfinished(read_table(str(disk)))
    assert installer.attached_to(disk) == []


@contextlib.contextmanager
def mounted(node: str, path: Path, fstype: str) -> Iterator[None]:
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", fstype, node, str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


@pytest.fixture
def root(tmp_path: Path, _programs: None) -> Iterator[Path]:
    """A root file system with a mounted ESP."""
    disk = tmp_path / "disk.img"
    disk.touch()
    with open(disk, "r+b") as raw:
        raw.truncate(1024 * MIB)
    table = create_table(str(disk), "x86_64", DiskSizes(esp_mib=128))
    with contextlib.ExitStack() as stack:
        nodes = []
        for row in (table.root, table.esp):
            assert row is not None
            offset, size = row.offset_bytes, row.size_bytes
            part = loopback.attached(str(disk), offset=offset, size_bytes=size)
            nodes.append(stack.enter_context(part))
        subprocess.run(["mkfs.ext4", "-q", "-b", "4096", nodes[0]], check=True)
        installer.make_esp(nodes[1])
        path = tmp_path / "root"
        stack.enter_context(mounted(nodes[0], path, "ext4"))
        (path / "boot").mkdir()
        (path / "boot/efi").mkdir()
        stack.enter_context(mounted(nodes[1], path / "boot/efi", installer.esp_filesystem()))
        yield path


@pytest.mark.parametrize(("kill_at", "boots"), [(BEFORE_EXCHANGE, False), (AFTER_EXCHANGE, True)])
def test_file_systems(tmp_path: Path, root: Path, kill_at: str, boots: bool) -> None:
    options = ("--bootloader", "systemd", *COMMON, "--skip-finalize")
    arguments = ("to-filesystem", "--source-imgref", source(tmp_path, "systemd"), *options, root)
    killed = installer.run(*arguments, kill_at=kill_at)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (root / ".bootc-unfinished").exists()
    finalized = installer.run("finalize", root)
    if boots:
        assert finalized.returncode == 0, finalized.stderr
        assert not (root / ".bootc-unfinished").exists()
        return
    assert f"{root} has no complete installation" in finalized.stderr
    done = installer.run(*arguments)
    assert done.returncode == 0, done.stderr
    assert not (root / ".bootc-unfinished").exists()


def test_file_systems_that_boot_are_not_overwritten_unasked(tmp_path: Path, root: Path) -> None:
    options = ("--bootloader", "systemd", *COMMON, "--skip-finalize")
    arguments = ("to-filesystem", "--source-imgref", source(tmp_path, "systemd"), *options)
    installer.run(*arguments, root, kill_at=END_OF_ROOT)
    before = sorted(root.rglob("*"))
    refused = installer.run(*arguments, "--replace", "alongside", root)
    assert refused.returncode == 1
    assert f"{root} has an installation already" in refused.stderr
    assert sorted(root.rglob("*")) == before
    done = installer.run(*arguments, "--replace", "wipe", root)
    assert done.returncode == 0, done.stderr


def test_a_signal_does_not_undo_an_installation_that_boots(tmp_path: Path, root: Path) -> None:
    """It comes after the exchange of the menus, and is delayed until the mark is removed."""
    options = ("--bootloader", "systemd", *COMMON, "--skip-finalize")
    arguments = ("to-filesystem", "--source-imgref", source(tmp_path, "systemd"), *options, root)
    done = installer.run(*arguments, kill_at=AFTER_EXCHANGE, number=signal.SIGTERM)
    assert done.returncode != 0
    assert "Installation complete!" not in done.stdout
    assert "Removed the unfinished installation" not in done.stdout
    assert not (root / ".bootc-unfinished").exists()
    assert len(list(root.glob("boot/efi/loader/entries/*.conf"))) == 1
    assert len(list(root.glob("state/deploy/*/*.origin"))) == 1
