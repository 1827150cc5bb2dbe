"""``bootc install to-disk`` from its first step to its last, and interrupted anywhere.

bootctl is a fake, the ESP is ext4 on a kernel without vfat, and fs-verity is done without; the boot
tests have the real ones.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.deploy.install.interrupted import disk_boots
from bootc.deploy.install.partition import is_unfinished, read_table
from bootc.deploy.install.target_disk import inspect, inspect_file, wipe
from bootc.formats.imgref import ImageReference
from bootc.fs import loopback, mounts
from support import bootupd, children, howto, images, installer, protection, require
from support.commands import Commands
from support.images import directory, file, symlink
from support.installer import attached_to

pytestmark = pytest.mark.host

MIB = 1 << 20
TARGET = ImageReference("registry", "example.com/os:1")
OPTIONS = (
    "--bootloader",
    "systemd",
    "--filesystem",
    "ext4",
    "--allow-missing-verity",
    "--target-imgref",
    "example.com/os:1",
)


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> images.Layout:
    """An image to install. Its boot loader is a fake."""
    require.root()
    require.tool("sfdisk")
    Commands(tmp_path / "bin", monkeypatch).mock("bootctl", installer.BOOTCTL)
    layer = images.bootable(
        *(directory(name) for name in ("etc", "var", "tmp")),
        symlink("root", "var/roothome"),
        file("etc/hostname", b"pristine\n"),
        file("usr/lib/os-release", b"ID=demo\nVERSION_ID=1\n"),
        file("usr/ballast", os.urandom(MIB)),
        *(directory(f"usr/lib/systemd{below}") for below in ("", "/boot", "/boot/efi")),
        *(file(f"usr/lib/systemd/boot/efi/systemd-boot{s}.efi") for s in ("x64", "aa64")),
        kernel=b"kernel" * 1000,
        initramfs=b"initramfs" * 1000,
    )
    return images.single(tmp_path / "layout", layer)


@pytest.fixture
def disk_image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    with open(path, "wb") as disk:
        disk.truncate(2048 * MIB)
    return path


def arguments(layout: images.Layout, device: str | Path, *options: str) -> list[str]:
    source = ("--source-imgref", layout.reference())
    return ["to-disk", *source, *OPTIONS, *options, str(device)]


def install(
    layout: images.Layout, device: str | Path, *options: str
) -> subprocess.CompletedProcess[str]:
    return installer.run(*arguments(layout, device, *options))


def check_nothing_is_left(path: Path, before: set[mounts.Mount], loops: list[str]) -> None:
    """Check for mounts and loop devices. A killed program of the installer may end a bit later."""

    def left() -> list[mounts.Mount]:
        # Other tests may mount their own devices at the same time.
        own = tuple(attached_to(path))
        return [one for one in set(mounts.read_mounts()) - before if one.source.startswith(own)]

    deadline = time.monotonic() + 60
    while attached_to(path) != loops or left():
        assert time.monotonic() < deadline, (attached_to(path), left())
        time.sleep(0.1)


def check_that_it_boots(path: Path, name: str = "root") -> None:
    """Check that a disk has a boot entry, and the deployment that it names."""
    table = read_table(str(path))
    assert is_unfinished(table) is (name != "root")
    assert [row.name for row in table][-2:] == ["EFI-SYSTEM", name]
    mounted = []
    for row in table[-2:]:
        part = loopback.attached(
            str(path), offset=512 * row.first_sector, size_bytes=row.size_bytes
        )
        with part as node:
            fstype = subprocess.run(
                ["blkid", "--probe", "--match-tag", "TYPE", "--output", "value", node],
                check=True,
                capture_output=True,
                text=True,
            ).stdout.strip()
            with mounts.mounted(node, fstype, read_only=True) as root:
                top = Path(root.path)
                mounted.append(sorted(found.name for found in top.glob("state/deploy/*")))
                mounted.append(
                    [
                        word.removeprefix("composefs=?")
                        for entry in top.glob("loader/entries/*.conf")
                        for word in entry.read_text().split()
                        if word.startswith("composefs=")
                    ]
                )
    _, entries, deployments, _ = mounted
    assert entries == deployments
    assert len(deployments) == 1


def test_the_image_of_a_disk(layout: images.Layout, disk_image: Path) -> None:
    before = set(mounts.read_mounts())
    done = install(layout, disk_image, "--via-loopback")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "notice: --via-loopback implies --generic-image"
    assert lines[-1] == "Installation complete!"
    summary = dict(line.strip().split(": ", 1) for line in lines[-9:-1])
    assert summary["Loader"] == "systemd-boot"
    assert summary["Verity"] == "not required, because of --allow-missing-verity"
    assert summary["Updates"] == str(TARGET)
    check_nothing_is_left(disk_image, before, [])
    check_that_it_boots(disk_image)


def test_the_how_to_makes_the_image_of_a_disk(
    layout: images.Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The image of the test has no registry, and not every kernel has fs-verity.
    ours = {
        howto.IMAGE: f"{layout.reference()} --target-imgref {TARGET.name} --allow-missing-verity"
    }
    program = f'exec {sys.executable} -m support.installer "$@"'
    Commands(tmp_path / "bin", monkeypatch).mock("bootc", program)
    monkeypatch.setenv("PYTHONPATH", installer.PYTHONPATH)
    (tmp_path / "key.pub").write_text("ssh-ed25519 AAAA somebody\n")

    def follow(command: str) -> list[str]:
        done = subprocess.run(
            ["sh", "-c", howto.replaced(command, ours)],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()

    disk = tmp_path / "disk.img"
    follow(howto.command("disk-image", "truncate"))
    assert (disk.stat().st_size, disk.stat().st_blocks) == (10 << 30, 0)
    follow(howto.command("disk-image", "bootc install to-disk --dry-run"))
    assert disk.stat().st_blocks == 0
    said = follow(howto.command("disk-image", "bootc install to-disk --via-loopback"))
    assert said[0] == "notice: --via-loopback implies --generic-image"
    assert said[-1] == "Installation complete!"
    check_that_it_boots(disk)


@pytest.mark.parametrize(
    ("filesystem", "verity"),
    [
        ("btrfs", "not required, because of --allow-missing-verity"),
        ("xfs", "not required: xfs has no fs-verity"),
    ],
)
def test_other_file_systems(
    layout: images.Layout, disk_image: Path, filesystem: str, verity: str
) -> None:
    require.tool(f"mkfs.{filesystem}")
    done = install(layout, disk_image, "--via-loopback", "--filesystem", filesystem)
    assert done.returncode == 0, done.stderr
    assert f"      Verity: {verity}" in done.stdout.splitlines()
    check_that_it_boots(disk_image)


def test_an_image_of_a_disk_is_not_overwritten_unasked(
    layout: images.Layout, disk_image: Path
) -> None:
    subprocess.run(["mkfs.ext4", "-q", str(disk_image), "64M"], check=True)
    done = install(layout, disk_image, "--via-loopback")
    assert done.returncode == 1
    assert "Detected existing data (ext4)" in done.stderr
    with loopback.attached(str(disk_image)) as node:
        done = install(layout, disk_image, "--via-loopback", "--wipe")
        assert f"{disk_image} is in use by {node}" in done.stderr
    assert install(layout, disk_image, "--via-loopback", "--wipe").returncode == 0
    check_that_it_boots(disk_image)


@pytest.mark.parametrize("what", ["directory", "device"])
def test_only_a_file_can_be_the_image_of_a_disk(
    layout: images.Layout, tmp_path: Path, what: str
) -> None:
    path = tmp_path if what == "directory" else "/dev/null"
    done = install(layout, path, "--via-loopback")
    assert done.returncode == 1
    assert f"Not a regular file (to be used via loopback): {path}" in done.stderr


def test_a_dry_run_prints_the_steps_and_changes_nothing(
    layout: images.Layout, disk_image: Path
) -> None:
    before = disk_image.stat()
    done = install(layout, disk_image, "--via-loopback", "--dry-run")
    assert done.returncode == 0
    steps = [line for line in done.stdout.splitlines() if line[:1].isdigit()]
    assert steps[0] == f"1. Write a GPT to {disk_image}: EFI-SYSTEM 1024 MiB, root the rest"
    assert steps[1] == "2. Create FAT on EFI-SYSTEM and ext4 on root"
    assert [step.split()[1] for step in steps[2:]] == ["Pull", "Install", *["Write"] * 4]
    after = disk_image.stat()
    assert (after.st_mtime_ns, after.st_blocks) == (before.st_mtime_ns, before.st_blocks)


def test_the_loader_of_the_image_is_installed(
    layout: images.Layout, disk_image: Path, tmp_path: Path
) -> None:
    def dry_run(layout: images.Layout, *more: str) -> subprocess.CompletedProcess[str]:
        options = (*OPTIONS[2:], *more, "--dry-run")
        source = ("--source-imgref", layout.reference(), "--via-loopback")
        return installer.run("to-disk", *source, *options, disk_image)

    done = dry_run(layout)
    assert done.returncode == 0, done.stderr
    wanted = "Install systemd-boot (chosen because the image has it) from the image\n"
    assert wanted in done.stdout
    assert "notice:" not in done.stdout.partition("\n")[2]
    skips = "--bootupd-skip-boot-uuid"
    notice = f"notice: {skips} has no effect: bootupd does not install systemd-boot of this image\n"
    assert notice in dry_run(layout, skips).stdout
    members = bootupd.members(bios=True)
    by_bootupd = images.single(
        tmp_path / "bootupd", images.bootable(*members, kernel=b"k", initramfs=b"i")
    )
    done = dry_run(by_bootupd, skips)
    assert done.returncode == 0, done.stderr
    wanted = "GRUB for UEFI and BIOS by bootupd (chosen because the image has it) from the image\n"
    assert f"Install {wanted}" in done.stdout
    assert "notice: GRUB will look for a file system with the label boot" in done.stdout
    bare = images.single(tmp_path / "bare", images.bootable(kernel=b"k", initramfs=b"i"))
    done = dry_run(bare)
    assert done.returncode == 1
    assert "the image has no boot loader for this machine" in done.stderr
    assert "systemd-boot-efi" in done.stderr


@pytest.mark.parametrize("program", ["mkfs.ext4", "bootctl"])
def test_a_failure_leaves_a_blank_disk(
    layout: images.Layout,
    disk_image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    program: str,
) -> None:
    Commands(tmp_path / "bin", monkeypatch).mock(program, "echo 'No such ESP' >&2; exit 1")
    before = set(mounts.read_mounts())
    done = install(layout, disk_image, "--via-loopback")
    assert done.returncode == 1
    assert "No such ESP" in done.stderr
    assert f"Wiped device {disk_image} after the failure" in done.stdout
    check_nothing_is_left(disk_image, before, [])
    wipefs = ["wipefs", "--noheadings", str(disk_image)]
    assert subprocess.run(wipefs, check=True, capture_output=True).stdout == b""


#: Run the real program with the input that the fake one has read.
REAL_SFDISK = 'exec {real} "$@" <"$(dirname "$0")/.sfdisk.stdin"'


def test_a_disk_that_vanishes(
    layout: images.Layout, disk_image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = REAL_SFDISK.format(real=require.tool("sfdisk"))
    Commands(tmp_path / "bin", monkeypatch).mock("sfdisk", f"rm -f {disk_image}; {real}")
    done = install(layout, disk_image, "--via-loopback")
    assert done.returncode == 1
    assert f"{disk_image} is not blank" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: Partitioning {disk_image}: sfdisk ")
    assert "No such file or directory" in last
    losetup = ["losetup", "--list", "--noheadings", "--output", "BACK-FILE"]
    files = subprocess.run(losetup, check=True, capture_output=True, text=True).stdout
    assert str(disk_image) not in files
    done = install(layout, disk_image, "--via-loopback")
    assert done.stderr.splitlines()[-1] == f"error: {disk_image}: No such file or directory"


def test_a_disk_that_boots_is_not_wiped_for_the_name_of_a_partition(
    layout: images.Layout, disk_image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = REAL_SFDISK.format(real=require.tool("sfdisk"))
    fails = 'case "$*" in *--part-label*) echo "no name" >&2; exit 1; esac'
    Commands(tmp_path / "bin", monkeypatch).mock("sfdisk", f"{fails}; {real}")
    done = install(layout, disk_image, "--via-loopback")
    assert done.returncode == 0, done.stderr
    assert "the root partition keeps its name" in done.stderr
    assert "no name" in done.stderr
    assert done.stdout.splitlines()[-1] == "Installation complete!"


def test_a_file_that_refuses_writes(layout: images.Layout, disk_image: Path) -> None:
    protection.set_flags(disk_image, protection.IMMUTABLE)
    try:
        done = install(layout, disk_image, "--via-loopback", "--wipe")
    finally:
        protection.unprotect(disk_image.parent)
    assert done.stderr.splitlines()[-1] == f"error: Device {disk_image} is read-only"


#: The moments of a run, as parts of the time that a whole one takes.
MOMENTS = 10
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def boots(path: Path) -> bool:
    """Tell whether the next installation demands --wipe."""
    done = subprocess.run(["sfdisk", "--json", str(path)], check=False, capture_output=True)
    if done.returncode:
        return False
    table = read_table(str(path))
    return not is_unfinished(table) or disk_boots(str(path), table, os.uname().machine)


@contextlib.contextmanager
def device_of(path: Path) -> Iterator[str]:
    with loopback.attached(str(path)) as node:
        try:
            yield node
        finally:
            subprocess.run(["partx", "--delete", node], check=False, capture_output=True)


@pytest.mark.parametrize("kind", ["file", "device"])
def test_interruptions_at_any_moment(layout: images.Layout, disk_image: Path, kind: str) -> None:
    """Nothing is left of a run, the next one needs no --wipe, and the last one succeeds."""
    chance = random.Random(f"interruptions of a {kind}")
    before = set(mounts.read_mounts())
    with contextlib.ExitStack() as stack:
        target, options = str(disk_image), ["--via-loopback"]
        if kind == "device":
            target, options = stack.enter_context(device_of(disk_image)), ["--generic-image"]
        loops = attached_to(disk_image)
        started = time.monotonic()
        assert install(layout, target, *options).returncode == 0
        whole_s = time.monotonic() - started
        completed = True
        for _ in range(MOMENTS):
            if completed:
                wipe(inspect(target) if kind == "device" else inspect_file(target))
            argv = installer.command(*arguments(layout, target, *options))
            environment = {**os.environ, "PYTHONPATH": installer.PYTHONPATH}
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            with children.running(argv, env=environment, start_new_session=True, **pipes) as run:
                time.sleep(chance.random() * whole_s)
                run.send_signal(chance.choice(SIGNALS))
                shown, _ = run.communicate(timeout=60)
            # A program that it had started may still write to the disk.
            children.wait_for_session(run.pid)
            completed = b"Installation complete!" in shown
            assert b"Detected existing" not in shown
            check_nothing_is_left(disk_image, before, loops)
            if not completed and boots(Path(target)):
                # The signal came after the commit point.
                check_that_it_boots(disk_image, read_table(str(disk_image))[-1].name)
                completed = True
        if completed:
            wipe(inspect(target) if kind == "device" else inspect_file(target))
        done = install(layout, target, *options)
        assert done.returncode == 0, done.stderr
    check_nothing_is_left(disk_image, before, [])
    check_that_it_boots(disk_image)
