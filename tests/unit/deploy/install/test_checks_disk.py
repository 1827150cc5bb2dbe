from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bootc.deploy.install import checks, target_disk
from bootc.deploy.install.checks import SLACK_MIB, Decisions
from bootc.deploy.install.checks_disk import DiskPlan, plan_disk
from bootc.deploy.install.config import InstallConfig
from bootc.deploy.install.filesystem import Filesystem, UnknownFilesystem
from bootc.deploy.install.loader_systemd_boot import SystemdBootInstaller
from bootc.deploy.install.partition import DiskSizes, UnsupportedMachine
from bootc.deploy.install.request import DiskRequest, InstallRefused
from bootc.deploy.install.target_disk import Device
from bootc.errors import Error, one_line
from bootc.formats.imgref import ImageReference
from bootc.fs.process import ToolMissing
from support.commands import Commands

IMAGE = ImageReference("registry", "example.com/os:1")
TOOLS = ("bootctl", "blkid", "lsblk", "partx", "sfdisk", "wipefs", "mkfs.fat", "mkfs.ext4")


@pytest.fixture(autouse=True)
def _as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Get past the first question, whoever asks the others: all they look at is fake."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@contextmanager
def refused(words: str) -> Iterator[None]:
    """Expect an error whose one line holds ``words``."""
    with pytest.raises(Error) as caught:
        yield
    assert words in one_line(caught.value)


def ask(tmp_path: Path, **changes: Any) -> DiskRequest:
    """Return a request that is good but for the device, which is a plain file."""
    (tmp_path / "file").touch()
    request = DiskRequest(
        device=str(tmp_path / "file"),
        source=IMAGE,
        target=IMAGE,
        bootloader="systemd",
        filesystem="ext4",
    )
    return dataclasses.replace(request, **changes)


@pytest.mark.parametrize(
    ("loader", "disk_gib", "config", "esp_mib"),
    [
        ("systemd", 8, None, 1024),
        ("systemd", 16, None, 2048),
        ("systemd", 500, 300, 300),
        ("systemd", 8, 4096, 4096),
        # The image of an update may have a unified kernel image.
        ("none", 16, None, 2048),
        # Its kernels are in partitions of their own.
        ("ukiboot", 16, None, 100),
        ("ukiboot", 16, 300, 300),
    ],
)
def test_the_size_of_the_esp(
    tmp_path: Path,
    commands: Commands,
    monkeypatch: pytest.MonkeyPatch,
    loader: str,
    disk_gib: int,
    config: int | None,
    esp_mib: int,
) -> None:
    with_tools(commands)
    disk = Device("/dev/x", "disk", disk_gib << 30, False, None, None, ())
    monkeypatch.setattr(target_disk, "inspect", lambda path: disk)
    monkeypatch.setattr(target_disk, "check_may_be_written", lambda *args, **options: False)
    monkeypatch.setattr(checks, "check_kernel", lambda decisions: None)
    wanted = InstallConfig(esp_size_mib=config)
    assert plan_disk(ask(tmp_path, bootloader=loader), wanted, "x86_64").sizes.esp_mib == esp_mib
    with refused("/dev/x is too small"):
        plan_disk(ask(tmp_path), InstallConfig(esp_size_mib=disk_gib << 10), "x86_64")


def with_tools(commands: Commands) -> None:
    for name in TOOLS:
        commands.mock(name)


def test_a_request_is_judged_before_the_machine(tmp_path: Path, commands: Commands) -> None:
    """Everything is wrong; each step mends what was named and meets the next."""
    bad: dict[str, Any] = {
        "filesystem": "zfs",
        "bootloader": "grub-cc",
        "block_setup": "tpm2-luks",
        "kargs": ('a="',),
    }
    commands.hide_system()
    config = InstallConfig(block=("direct", "tpm2-luks"))
    for key, words in (
        ("filesystem", "Unknown filesystem: zfs"),
        ("block_setup", "block setup tpm2-luks is not supported yet"),
        ("bootloader", "bootloader grub-cc is not supported yet"),
        ("kargs", "bad kernel argument"),
    ):
        with refused(words):
            plan_disk(ask(tmp_path, **bad), config, "s390x")
        del bad[key]
    with pytest.raises(UnsupportedMachine, match="s390x"):
        plan_disk(ask(tmp_path), config, "s390x")
    with pytest.raises(ToolMissing):
        plan_disk(ask(tmp_path), config, "x86_64")
    with_tools(commands)
    with refused(f"Not a block device: {tmp_path}/file"):
        plan_disk(ask(tmp_path), config, "x86_64")


@pytest.mark.parametrize("missing", TOOLS)
def test_each_tool_is_missed_by_name(tmp_path: Path, commands: Commands, missing: str) -> None:
    commands.hide_system()
    for name in TOOLS:
        if name != missing:
            commands.mock(name)
    with pytest.raises(ToolMissing) as caught:
        plan_disk(ask(tmp_path), None, "x86_64")
    assert caught.value.tool == missing


def test_no_program_runs_before_the_device_is_known_to_be_one(
    tmp_path: Path, commands: Commands
) -> None:
    fakes = [commands.mock(name) for name in TOOLS]
    with pytest.raises(InstallRefused, match="Not a block device"):
        plan_disk(ask(tmp_path), None, "x86_64")
    assert [fake.calls for fake in fakes] == [[]] * len(TOOLS)


@pytest.mark.parametrize(
    ("option", "configured"), [("other", None), (None, "other"), ("other", "default")]
)
def test_another_stateroot_is_refused(
    tmp_path: Path, option: str | None, configured: str | None
) -> None:
    config = InstallConfig(stateroot=configured)
    with refused("stateroot 'other' is not supported with the composefs backend"):
        plan_disk(ask(tmp_path, stateroot=option), config, "x86_64")


def test_the_stateroot_of_the_command_line_wins(tmp_path: Path, commands: Commands) -> None:
    with_tools(commands)
    with refused("Not a block device"):
        plan_disk(ask(tmp_path, stateroot="default"), InstallConfig(stateroot="other"), "x86_64")


@pytest.mark.parametrize("deletes", [("composefs",), ('a="',), ("a\nb",)])
def test_arguments_to_delete_are_checked(tmp_path: Path, deletes: tuple[str, ...]) -> None:
    with refused("kernel argument"):
        plan_disk(ask(tmp_path, karg_deletes=deletes), None, "x86_64")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (None, "No install configuration found, and no filesystem specified"),
        (InstallConfig(), "No root filesystem specified"),
        (InstallConfig(root_fs_type="xfs"), "Not a block device"),
    ],
)
def test_where_the_file_system_comes_from(
    tmp_path: Path, commands: Commands, config: InstallConfig | None, words: str
) -> None:
    with_tools(commands)
    commands.mock("mkfs.xfs")
    with refused(words):
        plan_disk(ask(tmp_path, filesystem=None), config, "x86_64")


@pytest.mark.parametrize(
    ("asked", "config", "words"),
    [
        ("none", InstallConfig(), "Not a block device"),
        (None, InstallConfig(bootloader="grub-cc"), "bootloader grub-cc is not supported yet"),
        ("grub-cc", InstallConfig(bootloader="systemd"), "bootloader grub-cc"),
        ("systemd", InstallConfig(bootloader="grub"), "Not a block device"),
        (None, InstallConfig(), "Not a block device"),
    ],
)
def test_boot_loaders(
    tmp_path: Path, commands: Commands, asked: str | None, config: InstallConfig, words: str
) -> None:
    with_tools(commands)
    with refused(words):
        plan_disk(ask(tmp_path, bootloader=asked), config, "x86_64")


@pytest.mark.parametrize(
    ("asked", "allowed", "words"),
    [
        ("direct", ("tpm2-luks",), "Block setup direct is not enabled in installation config"),
        (None, ("tpm2-luks", "direct"), "block setup tpm2-luks is not supported yet"),
        ("direct", ("tpm2-luks", "direct"), "Not a block device"),
        (None, ("direct",), "Not a block device"),
    ],
)
def test_block_setups(
    tmp_path: Path, commands: Commands, asked: str | None, allowed: tuple[str, ...], words: str
) -> None:
    with_tools(commands)
    with refused(words):
        plan_disk(ask(tmp_path, block_setup=asked), InstallConfig(block=allowed), "x86_64")


@pytest.mark.parametrize(
    "karg",
    [
        'open="quote',
        "two\nlines",
        "nul\0",
        "composefs=00",
        "quiet composefs=?00",
        "composefs.x=1",
        '"composefs=00"',
        "composefs-digest=00",
        "x" * 2048,
    ],
)
@pytest.mark.parametrize("place", ["request", "config"])
def test_kernel_arguments_that_would_not_boot(tmp_path: Path, karg: str, place: str) -> None:
    config = InstallConfig(kargs=(karg,) if place == "config" else ())
    kargs = (karg,) if place == "request" else ()
    with refused("kernel argument"):
        plan_disk(ask(tmp_path, kargs=kargs), config, "x86_64")


def test_unknown_file_system_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(UnknownFilesystem) as caught:
        plan_disk(ask(tmp_path, filesystem="zfs"), None, "x86_64")
    assert one_line(caught.value) == "Unknown filesystem: zfs (hint: one of xfs, ext4, btrfs)"


def plan(size_mib: int = 8192, root_size_mib: int | None = None) -> DiskPlan:
    decisions = Decisions("x86_64", SystemdBootInstaller(), Filesystem.EXT4, False, ())
    disk = Device("/dev/vda", "disk", size_mib << 20, False, None, None, ())
    return DiskPlan(decisions, disk, DiskSizes(root_size_mib, 1024))


@pytest.mark.parametrize(
    ("disk_mib", "root_mib", "image_mib", "message"),
    [
        (1027 + 256 + 100, None, 100, None),
        (
            1027 + 256 + 99,
            None,
            100,
            "/dev/vda is too small for the image: it has 1382 MiB, at least 1383 MiB are needed",
        ),
        (8192, 356, 100, None),
        (8192, 355, 100, "the root partition is too small for the image: it has 355 MiB"),
    ],
)
def test_room_for_the_image(
    disk_mib: int, root_mib: int | None, image_mib: int, message: str | None
) -> None:
    what = plan(disk_mib, root_mib)
    if message is None:
        what.check_room(image_mib + SLACK_MIB)
        return
    with pytest.raises(InstallRefused, match=message) as caught:
        what.check_room(image_mib + SLACK_MIB)
    way_out = "use a larger disk" if root_mib is None else "give --root-size 356M or more"
    assert (caught.value.hint or "").startswith(way_out)
