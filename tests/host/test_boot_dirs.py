"""Where the boot menu is, on disks that are divided in different ways."""

from __future__ import annotations

import contextlib
import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.boot import partitions
from bootc.boot.firmware_entries import PartitionPlace
from bootc.boot.loader import Bootloader
from bootc.boot.partitions import NotOnGpt, place_of
from bootc.boot.scheme import BootDirs, Scheme
from bootc.boot.slot_partitions import Slots
from bootc.deploy.host.view import BootNotFound, NoBootMenu, find_boot_dirs
from bootc.formats.origin import BootType
from bootc.fs.dir import Dir
from support import require

pytestmark = pytest.mark.host

TABLE = """\
label: gpt
size=8MiB, type=c12a7328-f81f-11d2-ba4b-00a0c93ec93b
size=16MiB, type={}
type=4f68bce3-e8cd-4db1-96e7-fbcaf984b709
"""
ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
XBOOTLDR = "bc13c2ff-59e6-4262-a352-b275fd6f7172"
LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
SYSTEMD = Scheme(Bootloader.SYSTEMD, BootType.BLS)
GRUB = Scheme(Bootloader.GRUB, BootType.BLS)


def run(*argv: str, input: str | None = None) -> str:
    done = subprocess.run(argv, input=input, capture_output=True, text=True, check=True)
    return done.stdout.strip()


class Disk:
    """A disk with an ESP, a second partition and a root file system that is mounted."""

    def __init__(
        self, stack: contextlib.ExitStack, path: Path, kind: str, *, root: int = 3
    ) -> None:
        self.stack = stack
        self.root = path / "root"
        for name in ("boot", "sysroot"):
            (self.root / name).mkdir(parents=True)
        image = path / "disk.img"
        with image.open("wb") as file:
            file.truncate(48 << 20)
        run("sfdisk", "--quiet", str(image), input=TABLE.format(kind))
        self.device = run("losetup", "--find", "--show", str(image))
        stack.callback(run, "losetup", "--detach", self.device)
        run("partx", "--add", self.device)
        stack.callback(run, "partx", "--delete", self.device)
        run(f"mkfs.{partitions.ESP_FILESYSTEM}", f"{self.device}p1")
        for number in (2, root):
            run("mkfs.ext4", "-q", f"{self.device}p{number}")
        self.mount(root, "sysroot")
        self.physical = stack.enter_context(Dir.open(self.root / "sysroot"))

    def mount(self, number: int, name: str, options: str = "rw") -> Path:
        path = self.root / name
        run("mount", "-o", options, f"{self.device}p{number}", str(path))
        self.stack.callback(run, "umount", str(path))
        return path

    def mark(self, number: int, *, entry: bool = False) -> None:
        """Write the partition's number into its file system, and an entry of ours."""
        path = self.root.parent / "elsewhere"
        path.mkdir(exist_ok=True)
        run("mount", f"{self.device}p{number}", str(path))
        (path / f"p{number}").write_bytes(b"")
        if entry:
            (path / "loader/entries").mkdir(parents=True)
            text = f"linux /v\noptions composefs={'ab' * 64}\n"
            (path / "loader/entries/bootc_x-1-1.conf").write_text(text)
        run("umount", str(path))

    def find(self, scheme: Scheme = GRUB, *, writable: bool = False) -> BootDirs:
        return self.stack.enter_context(
            find_boot_dirs(self.physical, scheme, root=str(self.root), writable=writable)
        )


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[contextlib.ExitStack]:
    require.root()
    if "vfat" not in Path("/proc/filesystems").read_text():
        # Which file system it is plays no part in where it is.
        monkeypatch.setattr(partitions, "ESP_FILESYSTEM", "ext4")
        monkeypatch.setattr(partitions, "ESP_OPTIONS", "")
    for tool in ("sfdisk", "losetup", "partx", "mkfs.ext4", "mkfs.vfat", "lsblk", "blkid"):
        require.tool(tool)
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def disk(stack: contextlib.ExitStack, tmp_path: Path) -> Disk:
    return Disk(stack, tmp_path, XBOOTLDR)


def test_without_a_loader_the_firmware_knows_the_place_of_the_esp(disk: Disk) -> None:
    disk.mark(1)
    dirs = disk.find(Scheme(Bootloader.NONE, BootType.UKI))
    assert dirs.menu is dirs.binaries
    assert dirs.menu.exists("p1")
    assert dirs.firmware is not None
    table = json.loads(run("sfdisk", "--json", disk.device))["partitiontable"]
    esp = table["partitions"][0]
    assert dirs.firmware.partition == PartitionPlace(
        1, esp["start"], esp["size"], uuid.UUID(esp["uuid"])
    )


def test_the_firmware_cannot_name_a_partition_of_another_table(
    stack: contextlib.ExitStack, tmp_path: Path
) -> None:
    with pytest.raises(NotOnGpt, match="is not a partition of a GPT disk"):
        place_of(Disk(stack, tmp_path, XBOOTLDR).device)


@pytest.mark.parametrize("writable", [False, True])
@pytest.mark.parametrize("loader", [Bootloader.SYSTEMD, Bootloader.GRUB_CC])
def test_other_loaders_read_the_esp(
    stack: contextlib.ExitStack, tmp_path: Path, loader: Bootloader, writable: bool
) -> None:
    # A boot partition of systemd-boot has a file system that the firmware can read.
    disk = Disk(stack, tmp_path, XBOOTLDR if loader is Bootloader.GRUB_CC else LINUX)
    disk.mark(1)
    dirs = disk.find(Scheme(loader, BootType.UKI), writable=writable)
    assert "p1" in dirs.menu.names()
    assert dirs.binaries is dirs.menu
    assert not dirs.scheme.separate_boot
    if writable:
        dirs.menu.mkdir("loader")


@pytest.mark.parametrize("writable", [False, True])
@pytest.mark.parametrize(
    ("entries", "chosen"), [((), 2), ((1,), 1), ((2,), 2), ((1, 2), 2)], ids=str
)
def test_the_boot_partition_of_systemd_boot(
    disk: Disk, entries: tuple[int, ...], chosen: int, writable: bool
) -> None:
    """systemd-boot shows the entries of both partitions; older programs wrote to the ESP."""
    run(f"mkfs.{partitions.ESP_FILESYSTEM}", f"{disk.device}p2")
    for number in (1, 2):
        disk.mark(number, entry=number in entries)
    dirs = disk.find(SYSTEMD, writable=writable)
    assert f"p{chosen}" in dirs.menu.names()
    assert dirs.binaries is dirs.menu
    if chosen == 1:
        assert dirs.programs is None
    else:
        assert dirs.programs is not None
        assert "p1" in dirs.programs.names()
    if writable:
        dirs.menu.ensure_dir("loader/entries").close()


@pytest.mark.parametrize("writable", [False, True])
@pytest.mark.parametrize(
    "scheme",
    [SYSTEMD, Scheme(Bootloader.NONE, BootType.UKI), Scheme(Bootloader.GRUB, BootType.UKI), GRUB],
    ids=lambda scheme: f"{scheme.bootloader}-{scheme.boot_type}",
)
def test_a_second_esp_is_a_mirror(
    stack: contextlib.ExitStack, tmp_path: Path, scheme: Scheme, writable: bool
) -> None:
    disk = Disk(stack, tmp_path, ESP)
    (disk.root / "sysroot/boot/grub2").mkdir(parents=True)
    run(f"mkfs.{partitions.ESP_FILESYSTEM}", f"{disk.device}p2")
    for number in (1, 2):
        disk.mark(number)
    dirs = disk.find(scheme, writable=writable)
    assert "p1" in dirs.esp.names()
    (mirror,) = dirs.mirrors
    assert mirror.device == f"{disk.device}p2"
    assert mirror.dirs is not None
    assert "p2" in mirror.dirs.esp.names()
    assert (mirror.dirs.menu is dirs.menu) is not scheme.menu_on_esp
    if writable:
        mirror.dirs.esp.mkdir("EFI")


def test_a_mirror_that_cannot_be_opened(stack: contextlib.ExitStack, tmp_path: Path) -> None:
    disk = Disk(stack, tmp_path, ESP)
    run("wipefs", "--quiet", "--all", f"{disk.device}p2")
    (mirror,) = disk.find(SYSTEMD, writable=True).mirrors
    assert mirror.dirs is None
    assert f"Mounting {disk.device}p2" in mirror.problem


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (Scheme(Bootloader.NONE, BootType.ABOOT), "this machine boots from A/B partitions"),
        (Scheme(Bootloader.UKIBOOT, BootType.UKI), "ukiboot started this machine without"),
    ],
)
def test_machines_without_a_menu(tmp_path: Path, scheme: Scheme, message: str) -> None:
    with (
        Dir.open(tmp_path) as physical,
        pytest.raises(NoBootMenu, match=f"^{message}") as caught,
        find_boot_dirs(physical, scheme),
    ):
        pass
    assert caught.value.hint


@pytest.mark.parametrize("missing", [None, "ukiboot_a", "ukibootctl"])
def test_the_partitions_of_ukiboot(
    stack: contextlib.ExitStack, tmp_path: Path, missing: str | None
) -> None:
    """The name and the type must match."""
    slot, control = "df331e4d-be00-463f-b4a7-8b43e18fb53a", "fefd9070-346f-4c9a-85e6-17f07f922773"
    rows = {"ukibootctl": control, "ukiboot_b": slot, "ukiboot_a": slot}
    kinds = {name: LINUX if name == missing else kind for name, kind in rows.items()}
    more = "".join(f'\nsize=1MiB, name="{name}", type={kind}' for name, kind in kinds.items())
    disk = Disk(stack, tmp_path, f"{XBOOTLDR}{more}", root=6)
    scheme = Scheme(Bootloader.UKIBOOT, BootType.ABOOT)
    if missing is not None:
        with pytest.raises(BootNotFound, match=f"no partition {missing} of ukiboot"):
            disk.find(scheme)
        return
    dirs = disk.find(scheme)
    assert dirs.slots == Slots(*(f"{disk.device}p{number}" for number in (5, 4, 3)))
    assert dirs.menu is dirs.binaries is disk.physical


def test_the_root_file_system_may_hold_the_menu(disk: Disk) -> None:
    # The boot partition is another system's.
    (disk.root / "sysroot/boot/grub2").mkdir(parents=True)
    dirs = disk.find(writable=True)
    assert dirs.menu.names() == ["grub2"]
    assert dirs.binaries is dirs.menu
    assert not dirs.scheme.separate_boot


@pytest.mark.parametrize("options", ["rw", "ro"])
@pytest.mark.parametrize("writable", [False, True])
def test_what_is_mounted_at_boot(disk: Disk, options: str, writable: bool) -> None:
    (disk.root / "sysroot/boot/grub2").mkdir(parents=True)
    disk.mark(2)
    disk.mount(2, "boot", options)
    dirs = disk.find(writable=writable)
    assert "p2" in dirs.menu.names()
    assert dirs.scheme.separate_boot
    if writable:
        dirs.menu.mkdir("loader")


def test_what_is_mounted_at_boot_of_the_physical_root(disk: Disk) -> None:
    (disk.root / "sysroot/boot").mkdir()
    disk.mark(2)
    disk.mount(2, "sysroot/boot")
    (disk.root / "sysroot/boot/grub2").mkdir()
    dirs = disk.find()
    assert "p2" in dirs.menu.names()
    assert dirs.scheme.separate_boot


def test_a_bind_mount_at_boot_is_no_separate_file_system(disk: Disk) -> None:
    within = disk.root / "sysroot/boot"
    (within / "loader/entries").mkdir(parents=True)
    run("mount", "--bind", str(within), str(disk.root / "boot"))
    disk.stack.callback(run, "umount", str(disk.root / "boot"))
    dirs = disk.find()
    assert dirs.menu.names() == ["loader"]
    assert not dirs.scheme.separate_boot


def test_the_esp_mounted_at_boot_is_not_what_grub_reads(disk: Disk) -> None:
    (disk.root / "sysroot/boot/grub2").mkdir(parents=True)
    disk.mount(1, "boot")
    assert disk.find().menu.names() == ["grub2"]


@pytest.mark.parametrize("writable", [False, True])
@pytest.mark.parametrize("exists", [False, True])
def test_a_boot_partition_that_is_mounted_nowhere(disk: Disk, exists: bool, writable: bool) -> None:
    if exists:
        (disk.root / "sysroot/boot/efi").mkdir(parents=True)
    disk.mark(2)
    dirs = disk.find(writable=writable)
    assert "p2" in dirs.menu.names()
    assert dirs.scheme.separate_boot
    if writable:
        dirs.menu.mkdir("loader")
    else:
        with pytest.raises(OSError, match="Read-only"):
            dirs.menu.mkdir("loader")


def test_grub_starts_unified_images_from_the_esp(disk: Disk) -> None:
    (disk.root / "sysroot/boot/grub2").mkdir(parents=True)
    disk.mark(1)
    dirs = disk.find(Scheme(Bootloader.GRUB, BootType.UKI))
    assert dirs.menu.names() == ["grub2"]
    assert "p1" in dirs.binaries.names()


def test_a_disk_without_any(stack: contextlib.ExitStack, tmp_path: Path) -> None:
    disk = Disk(stack, tmp_path, LINUX)
    with pytest.raises(BootNotFound, match="has no directory boot, and its disk no partition"):
        disk.find()
    (disk.root / "sysroot/boot").mkdir()
    assert disk.find().menu.names() == []
