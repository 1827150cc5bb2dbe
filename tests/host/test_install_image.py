"""An image brought onto real file systems: what lies where, in which order, and what fails how.

The ESP is a tmpfs here (not every kernel has vfat), bootctl a fake that shows what
it was given, and fs-verity is done without; the boot tests have the real ones.
"""

from __future__ import annotations

import errno
import os
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bootc.boot.discover import ImageNotBootable
from bootc.deploy.etc.apply import EtcMissing
from bootc.deploy.install.device import Device
from bootc.deploy.install.filesystem import Filesystem
from bootc.deploy.install.image import InsufficientSpace, deploy_image
from bootc.deploy.install.preflight import Decisions
from bootc.deploy.install.request import InstallRequest
from bootc.events import Done, Event, Message, Start
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import parse_origin
from bootc.fs import mounts
from bootc.fs.dir import Dir
from bootc.fs.process import CommandFailed
from bootc.kernel.mount import mount, umount2
from bootc.oci.pull import Pulled
from bootc.oci.source import host_architecture, open_source
from support import images, require
from support.commands import Command, Commands
from support.images import directory, file

pytestmark = pytest.mark.host

MIB = 1 << 20
KERNEL, INITRAMFS = b"kernel" * 1000, b"initramfs" * 1000
ROOT_UUID = uuid.UUID("0b1c2d3e-4f50-4162-8384-95a6b7c8d9e0")
TARGET = ImageReference("registry", "example.com/os:1")
#: Show that the ESP is at /boot and that /tmp can be written; then be a boot loader.
BOOTCTL = """
[ "$1" = --version ] && { echo 'systemd 257 (257.1)'; exit; }
: >"$3/tmp/scratch" && : >"$3/boot/loader-was-here" || exit 9
"""


def members(*more: images.Member) -> list[images.Member]:
    return [
        directory("etc"),
        file("etc/hostname", b"pristine\n"),
        file("etc/.updated", b"stamp"),
        directory("var"),
        directory("var/log"),
        directory("tmp", 0o1777),
        file(
            "usr/lib/os-release", b'ID=demo-os\nVERSION_ID=1\nPRETTY_NAME="Demo OS 1"\n' + b"#" * 99
        ),
        file("usr/lib/bootc/kargs.d/10-a.toml", b'kargs = ["console=ttyS0"]\n'),
        *more,
    ]


@dataclass
class Target:
    """A root file system and an ESP, mounted."""

    root: Dir
    esp: Dir
    bootctl: Command
    events: list[Event]

    def install(self, layout: images.Layout, *kargs: str, generic: bool = False) -> Pulled:
        source_ref = ImageReference.parse(layout.reference())
        request = InstallRequest("/dev/vda", source_ref, TARGET, generic_image=generic)
        decisions = Decisions(
            device=Device("/dev/vda", "disk", 8 << 30, False, None, None, ()),
            machine=os.uname().machine,
            filesystem=Filesystem.EXT4,
            discoverable=False,
            allow_missing_verity=True,
            root_size_mib=None,
            kargs=kargs,
        )
        with open_source(source_ref) as source:
            return deploy_image(
                request,
                decisions,
                source,
                root=self.root,
                root_uuid=ROOT_UUID,
                esp=self.esp,
                sink=self.events.append,
            )

    def entries(self) -> list[Path]:
        return sorted(Path(self.esp.path).glob("loader/entries/*"))


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    require.root()
    image = tmp_path / "root.img"
    with open(image, "wb") as raw:
        raw.truncate(64 * MIB)
    subprocess.run([require.tool("mkfs.ext4"), "-q", str(image)], check=True)
    losetup = [require.tool("losetup"), "--find", "--show", str(image)]
    loop = subprocess.run(losetup, check=True, capture_output=True, text=True).stdout.strip()
    esp = tmp_path / "esp"
    esp.mkdir()
    mount("tmpfs", str(esp), "tmpfs", 0, "size=8m")
    bootctl = Commands(tmp_path / "bin", monkeypatch).mock("bootctl", BOOTCTL)
    try:
        with mounts.mounted(loop, "ext4") as root_dir, Dir.open(esp) as esp_dir:
            yield Target(root_dir, esp_dir, bootctl, [])
    finally:
        umount2(str(esp), 0)
        subprocess.run(["losetup", "--detach", loop], check=True)


@pytest.fixture
def layout(tmp_path: Path) -> images.Layout:
    layer = images.bootable(*members(), kernel=KERNEL, initramfs=INITRAMFS)
    return images.single(tmp_path / "layout", layer)


def test_what_lies_where(target: Target, layout: images.Layout) -> None:
    pulled = target.install(layout, "quiet")

    root, image = Path(target.root.path), pulled.image_id.hex
    assert sorted(os.listdir(root)) == ["boot", "composefs", "lost+found", "ostree", "state"]
    assert os.readlink(root / "ostree/bootc") == "../composefs/bootc"
    assert (root / "ostree/bootc").is_dir()
    assert os.listdir(root / "boot") == ["efi"]
    assert (root / "composefs").stat().st_mode & 0o7777 == 0o700
    assert os.readlink(root / "composefs/images" / image).endswith(image[2:])
    state = root / "state/deploy" / image
    assert (state / "etc/hostname").read_bytes() == b"pristine\n"
    assert not (state / "etc/.updated").exists()
    assert (state / "var/log").is_dir()
    assert os.listdir(root / "state/os/default/var") == ["log"]


def test_the_origin_knows_the_image(target: Target, layout: images.Layout) -> None:
    pulled = target.install(layout)
    image = pulled.image_id.hex
    origin = parse_origin(target.root.read_bytes(f"state/deploy/{image}/{image}.origin"))
    assert origin.image == TARGET
    assert origin.manifest_digest == pulled.manifest_digest
    assert origin.boot_digest is not None
    assert len(origin.boot_digest) == 64


def test_what_the_machine_boots(target: Target, layout: images.Layout) -> None:
    image = target.install(layout, "quiet").image_id.hex

    esp = Path(target.esp.path)
    assert (esp / f"EFI/Linux/bootc_composefs-{image}/vmlinuz").read_bytes() == KERNEL
    assert (esp / f"EFI/Linux/bootc_composefs-{image}/initrd").read_bytes() == INITRAMFS
    (entry,) = target.entries()
    assert entry.name == "bootc_demo_os-1-1.conf"
    assert entry.read_text() == (
        "title Demo OS 1\n"
        "version 1\n"
        f"linux /EFI/Linux/bootc_composefs-{image}/vmlinuz\n"
        f"initrd /EFI/Linux/bootc_composefs-{image}/initrd\n"
        f"options root=UUID={ROOT_UUID} rw quiet composefs=?{image} console=ttyS0\n"
        "sort-key bootc-demo-os-0\n"
    )


def test_bootctl_sees_the_image_with_the_esp_at_its_boot(
    target: Target, layout: images.Layout
) -> None:
    target.install(layout)
    (call,) = target.bootctl.calls
    assert call[:2] == ["install", "--root"]
    assert call[3:] == ["--esp-path", "/boot"]
    assert target.esp.exists("loader-was-here")
    assert not os.path.exists(call[2])


def test_a_generic_image_leaves_the_firmware_alone(target: Target, layout: images.Layout) -> None:
    target.install(layout, generic=True)
    assert target.bootctl.calls[-1][5:] == ["--no-variables", "--random-seed", "no"]


def test_stages_begin_and_end_in_order(target: Target, layout: images.Layout) -> None:
    target.install(layout)
    stages = ["bootloader", "kernel", "state", "entry"]
    started = [e.task for e in target.events if isinstance(e, Start) and e.task in stages]
    ended = [e.task for e in target.events if isinstance(e, Done) and e.task in stages]
    assert started == ended == stages
    assert Message("Bootloader: systemd") in target.events


def test_no_mount_is_left(target: Target, layout: images.Layout) -> None:
    before = mounts.read_mounts()
    target.install(layout)
    assert mounts.read_mounts() == before


def test_secure_boot_keys_go_to_the_esp(target: Target, tmp_path: Path) -> None:
    key = file("usr/lib/bootc/install/secureboot-keys/auto/PK.auth", b"key" * 99)
    layer = images.bootable(*members(key), kernel=KERNEL, initramfs=INITRAMFS)
    target.install(images.single(tmp_path / "layout", layer))
    assert target.esp.read_bytes("loader/keys/auto/PK.auth") == b"key" * 99
    assert Message("Wrote Secure Boot key: loader/keys/auto/PK.auth") in target.events


def test_an_image_without_kernel_has_no_entry(target: Target, tmp_path: Path) -> None:
    layout = images.single(tmp_path / "layout", images.bootable(*members()))
    with pytest.raises(ImageNotBootable):
        target.install(layout)
    assert target.entries() == []
    assert target.bootctl.calls == []


def test_a_boot_loader_that_fails_leaves_no_entry_and_no_mount(
    target: Target, layout: images.Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Commands(tmp_path / "bin", monkeypatch).mock("bootctl", "echo 'No such ESP' >&2; exit 1")
    before = mounts.read_mounts()
    with pytest.raises(CommandFailed, match="No such ESP"):
        target.install(layout)
    assert target.entries() == []
    assert mounts.read_mounts() == before


def test_an_image_without_etc_has_no_entry(target: Target, tmp_path: Path) -> None:
    layer = images.bootable(directory("var"), directory("tmp"), kernel=KERNEL, initramfs=INITRAMFS)
    layout = images.single(tmp_path / "layout", layer)
    before = mounts.read_mounts()
    with pytest.raises(EtcMissing):
        target.install(layout)
    assert target.entries() == []
    assert mounts.read_mounts() == before


def test_layers_that_do_not_fit_are_refused_before_the_first(
    target: Target, tmp_path: Path
) -> None:
    layer = images.bootable(*members(), kernel=KERNEL, initramfs=INITRAMFS)
    layout = images.Layout(tmp_path / "layout")
    blob = layout.blob(layer, images.LAYER_TYPE, size=1 << 40)
    layout.image([layer], manifest={"layers": [blob]}, compression="")
    with pytest.raises(
        InsufficientSpace, match=r"Insufficient free space for oci:.*required: 1099"
    ):
        target.install(layout)
    assert os.listdir(Path(target.root.path) / "composefs/objects") == []


def test_a_disk_that_fills_up_has_no_entry(target: Target, tmp_path: Path) -> None:
    big = file("usr/big", b"\0" * (80 * MIB))
    layer = images.bootable(*members(big), kernel=KERNEL, initramfs=INITRAMFS)
    layout = images.single(tmp_path / "layout", layer)
    with pytest.raises(OSError, match="No space left") as caught:
        target.install(layout)
    assert caught.value.errno == errno.ENOSPC
    assert target.entries() == []


def test_this_machine_is_what_the_tests_build_for() -> None:
    assert host_architecture() == images.ARCHITECTURE
