"""An image brought onto real file systems: what lies where, in which order, and what fails how.

The ESP is a tmpfs here (not every kernel has vfat), bootctl a fake that shows what
it was given, and fs-verity is done without; the boot tests have the real ones.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from bootc.boot.image_kernel import ImageNotBootable
from bootc.boot.loader import Bootloader
from bootc.boot.scheme import BootDirs, Scheme
from bootc.boot.space import NoSpaceOnBoot
from bootc.boot.uki import check_installed_uki
from bootc.boot.uki_parts import CannotTakeApart
from bootc.deploy.bootable import InsufficientSpace
from bootc.deploy.etc.apply import EtcMissing
from bootc.deploy.install.boot_choice import UkiRefused
from bootc.deploy.install.checks import Decisions
from bootc.deploy.install.deploy_image import deploy_image
from bootc.deploy.install.filesystem import Filesystem
from bootc.deploy.install.loader_installer import BootTarget
from bootc.deploy.install.loader_systemd_boot import SystemdBootInstaller
from bootc.deploy.install.partition import Partition
from bootc.deploy.install.request import InstallRefused, InstallRequest
from bootc.errors import Error, one_line
from bootc.events import Done, Event, Message, Start
from bootc.formats import cmdline
from bootc.formats.digest import Digest
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import (
    BootRecord,
    BootType,
    Signature,
    TakesApart,
    UkiRecord,
    parse_origin,
)
from bootc.fs import mounts
from bootc.fs.dir import Dir
from bootc.fs.process import CommandFailed
from bootc.kernel import fsverity
from bootc.kernel.mount import mount, umount2
from bootc.oci.pull import Pulled
from bootc.oci.source import host_architecture, open_source
from bootc.oci.trees import image_id_of, image_tree
from bootc.repository.sealing import VerityMissing
from support import images, pe, require
from support.commands import Command, Commands
from support.images import directory, file

pytestmark = pytest.mark.host

MIB = 1 << 20
KERNEL, INITRAMFS = b"kernel" * 1000, b"initramfs" * 1000
ROOT_UUID = "0b1c2d3e-4f50-4162-8384-95a6b7c8d9e0"
ESP_UUID = "11111111-2222-4333-8444-555555555555"
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

    def install(
        self,
        layout: images.Layout,
        *kargs: str,
        generic: bool = False,
        addons: tuple[str, ...] = (),
        signature: Signature | None = None,
        verity: bool = False,
        root_keys: bytes | None = None,
        disable_selinux: bool = False,
        boot_type: BootType | None = None,
        disable_sealing: bool = False,
    ) -> Pulled:
        source_ref = ImageReference.parse(layout.reference())
        request = InstallRequest(
            source=source_ref,
            target=TARGET,
            source_name=source_ref.name,
            generic_image=generic,
            uki_addons=addons,
            disable_selinux=disable_selinux,
            boot_type=boot_type,
            disable_sealing=disable_sealing,
        )
        decisions = Decisions(
            machine=os.uname().machine,
            loader=SystemdBootInstaller(),
            filesystem=Filesystem.EXT4,
            allow_missing_verity=not verity,
            kargs=kargs,
            root_keys=root_keys,
            signature=signature,
        )
        with open_source(source_ref) as source:
            return deploy_image(
                request,
                decisions,
                source,
                BootTarget(
                    disk="/dev/vda",
                    root=self.root,
                    root_uuid=ROOT_UUID,
                    boot=self.root,
                    boot_uuid=ROOT_UUID,
                    esp=self.esp,
                    esp_partition=Partition("/dev/vda2", "", 8 * MIB, ESP_UUID, 4096, 16384),
                    root_kargs=(f"root=UUID={ROOT_UUID}", "rw"),
                ),
                self.events.append,
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
    directories = ["boot", "composefs", "lost+found", "ostree", "state"]
    assert sorted(os.listdir(root)) == [".bootc-aleph.json", *directories]
    first = json.loads((root / ".bootc-aleph.json").read_text())
    assert first["digest"] == str(pulled.manifest_digest)
    assert (first["target-image"], first["selinux"]) == ("example.com/os:1", "disabled")
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


HOME = images.symlink("root", "var/roothome")
KEY = b"ssh-ed25519 AAAA me\n"


def test_root_can_log_in_with_a_key(target: Target, tmp_path: Path) -> None:
    layer = images.bootable(*members(HOME), kernel=KERNEL, initramfs=INITRAMFS)
    layout = images.single(tmp_path / "layout", layer)
    image = target.install(layout, root_keys=KEY).image_id.hex
    file = Path(target.root.path, "state/deploy", image, "etc/tmpfiles.d/bootc-root-ssh.conf")
    assert b"/var/roothome/.ssh/authorized_keys 0600 root root - " in file.read_bytes()
    assert Message("Injected: etc/tmpfiles.d/bootc-root-ssh.conf") in target.events


def test_a_key_that_root_cannot_have_is_refused_before_the_boot_loader(
    target: Target, layout: images.Layout
) -> None:
    with pytest.raises(InstallRefused, match="root's home is in the image"):
        target.install(layout, root_keys=KEY)
    assert target.bootctl.calls == []


def test_selinux_is_turned_off(target: Target, tmp_path: Path) -> None:
    policy = (directory("etc/selinux"), file("etc/selinux/config", b"SELINUX=enforcing\n"))
    layer = images.bootable(*members(*policy), kernel=KERNEL, initramfs=INITRAMFS)
    target.install(images.single(tmp_path / "layout", layer), "quiet", disable_selinux=True)
    (entry,) = target.entries()
    assert " rw selinux=0 quiet composefs=" in entry.read_text()
    assert Message("notice: Target has SELinux enabled, overriding to disable") in target.events


@pytest.mark.parametrize("signature", [None, Signature()])
def test_the_origin_knows_the_image(
    target: Target, layout: images.Layout, signature: Signature | None
) -> None:
    pulled = target.install(layout, signature=signature)
    image = pulled.image_id.hex
    origin = parse_origin(target.root.read_bytes(f"state/deploy/{image}/{image}.origin"))
    assert origin.image == TARGET
    assert origin.signature == signature
    assert origin.record == BootRecord("systemd", "uefi", ESP_UUID)
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
    (call,) = (call for call in target.bootctl.calls if call[0] == "install")
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


def check_no_new_mount(before: Sequence[mounts.Mount]) -> None:
    """Check that nothing stays mounted; what tests beside this one mount comes and goes."""
    deadline = time.monotonic() + 60
    while new := set(mounts.read_mounts()) - set(before):
        assert time.monotonic() < deadline, new
        time.sleep(0.1)


def test_no_mount_is_left(target: Target, layout: images.Layout) -> None:
    before = mounts.read_mounts()
    target.install(layout)
    check_no_new_mount(before)


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
    check_no_new_mount(before)


def test_an_image_without_etc_has_no_entry(target: Target, tmp_path: Path) -> None:
    layer = images.bootable(directory("var"), directory("tmp"), kernel=KERNEL, initramfs=INITRAMFS)
    layout = images.single(tmp_path / "layout", layer)
    before = mounts.read_mounts()
    with pytest.raises(EtcMissing):
        target.install(layout)
    assert target.entries() == []
    check_no_new_mount(before)


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


def test_the_way_out_without_verity(
    target: Target, layout: images.Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fsverity, "enable", refuse)
    with pytest.raises(VerityMissing, match="does not support fs-verity") as caught:
        target.install(layout, verity=True)
    assert caught.value.hint is not None
    assert caught.value.hint.endswith("; or give --allow-missing-verity")


def test_a_disk_that_fills_up_has_no_entry(target: Target, tmp_path: Path) -> None:
    big = file("usr/big", b"\0" * (80 * MIB))
    layer = images.bootable(*members(big), kernel=KERNEL, initramfs=INITRAMFS)
    layout = images.single(tmp_path / "layout", layer)
    with pytest.raises(OSError, match="No space left") as caught:
        target.install(layout)
    assert caught.value.errno == errno.ENOSPC
    assert target.entries() == []


KVER = "6.12.0-test"
UKI_OS_RELEASE = b'ID=sealed-os\nVERSION_ID=7\nPRETTY_NAME="Sealed OS 7"\n'
ADDON = b"MZ add-on" * 99
#: The loader says its version where bootctl puts it.
WITH_LOADER = """
mkdir -p "$3/boot/EFI/systemd" "$3/boot/loader"
printf '#### LoaderInfo: systemd-boot %s ####' '{}' >"$3/boot/EFI/systemd/systemd-bootx64.efi"
"""


def unified(
    path: Path, *, optional: bool = True, image_id: str | None = None, arguments: str = ""
) -> images.Layout:
    """Make an image with a unified kernel image beside its bare kernel.

    In ``arguments``, which name the image, {1} and {2} are its ids of these format versions.
    """
    base = images.bootable(*members(), kernel=KERNEL, initramfs=INITRAMFS)
    bare = images.single(path / "bare", base)
    with open_source(ImageReference.parse(bare.reference())) as source:
        root = image_tree(source).root
    ids = ["", *(image_id_of(root, version=version).hex for version in (1, 2))]
    named = arguments.format(*ids) or cmdline.composefs_karg(image_id or ids[1], optional=optional)
    uki = pe.program(
        (b".osrel", UKI_OS_RELEASE),
        (b".cmdline", f"rw quiet {named}".encode()),
        (b".linux", KERNEL),
        (b".initrd", INITRAMFS),
    )
    home = f"boot/EFI/Linux/{KVER}.efi"
    extra = f"{home}.extra.d"
    sealed = images.layer(
        *(directory(d) for d in ("boot/EFI", "boot/EFI/Linux", extra)),
        file(home, uki),
        file(f"{extra}/debug.addon.efi", ADDON),
        file(f"{extra}/quiet.addon.efi", ADDON),
    )
    return images.single(path / "unified", base, sealed)


def refusal(
    target: Target, layout: images.Layout, *kargs: str, addons: tuple[str, ...] = ()
) -> str:
    """Return the line an installation ends with before anything that boots is written."""
    with pytest.raises(Error) as caught:
        target.install(layout, *kargs, addons=addons)
    assert os.listdir(target.esp.path) == []
    assert target.bootctl.calls == []
    assert "\n" not in one_line(caught.value)
    return caught.value.message


def test_a_unified_kernel_image_boots(target: Target, tmp_path: Path) -> None:
    image = target.install(unified(tmp_path)).image_id.hex

    esp = Path(target.esp.path)
    assert sorted(os.listdir(esp / "EFI/Linux")) == ["bootc"]
    assert os.listdir(esp / "EFI/Linux/bootc") == [f"bootc_composefs-{image}.efi"]
    (entry,) = target.entries()
    assert entry.name == "bootc_sealed_os-7-1.conf"
    assert entry.read_text() == (
        "title Sealed OS 7 7\n"
        "version 7\n"
        f"efi /EFI/Linux/bootc/bootc_composefs-{image}.efi\n"
        "sort-key bootc-sealed-os-0\n"
    )
    assert (esp / "loader/loader.conf").read_bytes() == b"timeout 5"
    origin = parse_origin(target.root.read_bytes(f"state/deploy/{image}/{image}.origin"))
    assert origin.boot_type is BootType.UKI
    assert origin.boot_digest == hashlib.sha256(KERNEL + INITRAMFS).hexdigest()
    state = Path(target.root.path, "state/deploy", image)
    assert (state / "etc/hostname").read_bytes() == b"pristine\n"


def test_a_unified_kernel_image_of_two_digests(target: Target, tmp_path: Path) -> None:
    layout = unified(tmp_path, arguments="composefs.digest=?v1-sha512-12:{1} composefs=?{2}")
    image = target.install(layout).image_id.hex
    file = f"EFI/Linux/bootc/bootc_composefs-{image}.efi"
    assert os.listdir(Path(target.esp.path, file).parent) == [os.path.basename(file)]
    dirs = BootDirs(Scheme(Bootloader.SYSTEMD, BootType.UKI), menu=target.esp, binaries=target.esp)
    first, second = check_installed_uki(dirs, Digest.from_hex(image), f"/{file}").hexes
    assert first == image
    # The initramfs finds either.
    assert set(os.listdir(Path(target.root.path, "composefs/images"))) >= {first, second}
    assert os.listdir(Path(target.root.path, "state/deploy")) == [image]


def test_a_unified_kernel_image_with_a_digest_too_many(target: Target, tmp_path: Path) -> None:
    layout = unified(tmp_path, arguments="composefs=?{1} composefs=?" + "ab" * 64)
    assert refusal(target, layout) == (
        f"The UKI has the wrong parameter composefs=?{'ab' * 64}: "
        "no image of its container has this digest"
    )


@pytest.mark.parametrize(
    ("version", "key"), [("257.9-1~deb13u1", "efi"), ("258~rc2", "uki"), ("262.1-1", "uki")]
)
def test_the_entry_is_for_the_loader_that_was_installed(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, key: str
) -> None:
    Commands(tmp_path / "bin", monkeypatch).mock("bootctl", BOOTCTL + WITH_LOADER.format(version))
    target.install(unified(tmp_path))
    (entry,) = target.entries()
    assert entry.read_text().splitlines()[2].split()[0] == key


def test_the_configuration_of_the_boot_loader_stays(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured = BOOTCTL + 'mkdir "$3/boot/loader"; echo "#timeout 3" >"$3/boot/loader/loader.conf"'
    Commands(tmp_path / "bin", monkeypatch).mock("bootctl", configured)
    target.install(unified(tmp_path))
    assert target.esp.read_bytes("loader/loader.conf") == b"#timeout 3\n"


def test_a_bare_kernel_brings_no_configuration(target: Target, layout: images.Layout) -> None:
    target.install(layout)
    assert not target.esp.exists("loader/loader.conf")


def test_the_addons_that_were_asked_for(target: Target, tmp_path: Path) -> None:
    image = target.install(unified(tmp_path), addons=("debug",)).image_id.hex
    extra = Path(target.esp.path, f"EFI/Linux/bootc/bootc_composefs-{image}.efi.extra.d")
    assert os.listdir(extra) == ["debug.addon.efi"]
    assert (extra / "debug.addon.efi").read_bytes() == ADDON


def test_an_addon_that_is_not_there(target: Target, tmp_path: Path, layout: images.Layout) -> None:
    line = refusal(target, unified(tmp_path), addons=("debug", "none"))
    assert line == "the image has no UKI add-on none"
    line = refusal(target, layout, addons=("debug",))
    assert line == "the image has no unified kernel image to add debug to"


def test_arguments_beside_a_unified_kernel_image_are_refused(
    target: Target, tmp_path: Path
) -> None:
    assert refusal(target, unified(tmp_path), "quiet") == (
        "Cannot use externally specified kernel arguments with UKI: quiet"
    )


@pytest.mark.parametrize("optional", [True, False])
def test_a_unified_kernel_image_in_parts(target: Target, tmp_path: Path, optional: bool) -> None:
    layout = unified(tmp_path, optional=optional)
    if not optional:
        with pytest.raises(CannotTakeApart, match="is sealed"):
            target.install(layout, boot_type=BootType.BLS)
    image = target.install(
        layout,
        "console=ttyS0",
        addons=("debug",),
        boot_type=BootType.BLS,
        disable_sealing=not optional,
    ).image_id.hex

    esp = Path(target.esp.path)
    assert os.listdir(esp / "EFI/Linux") == [f"bootc_composefs-{image}"]
    assert {
        p.name: p.read_bytes() for p in (esp / "EFI/Linux" / f"bootc_composefs-{image}").iterdir()
    } == {
        "vmlinuz": KERNEL,
        "initrd": INITRAMFS,
    }
    (entry,) = target.entries()
    assert entry.read_text() == (
        "title Sealed OS 7\n"
        "version 7\n"
        f"linux /EFI/Linux/bootc_composefs-{image}/vmlinuz\n"
        f"initrd /EFI/Linux/bootc_composefs-{image}/initrd\n"
        f"options root=UUID={ROOT_UUID} rw console=ttyS0 composefs=?{image} quiet\n"
        "sort-key bootc-sealed-os-0\n"
    )
    origin = parse_origin(target.root.read_bytes(f"state/deploy/{image}/{image}.origin"))
    assert origin.boot_type is BootType.BLS
    assert origin.boot_digest == hashlib.sha256(KERNEL + INITRAMFS).hexdigest()
    which = TakesApart.UNSEALED if optional else TakesApart.ALL
    assert origin.uki == UkiRecord(which, ("debug.addon.efi",), "rw quiet")


def test_a_bare_kernel_and_a_boot_type(
    target: Target, tmp_path: Path, layout: images.Layout
) -> None:
    with pytest.raises(UkiRefused, match="the image has no unified kernel image"):
        target.install(layout, boot_type=BootType.UKI)
    image = target.install(layout, boot_type=BootType.BLS).image_id.hex
    origin = parse_origin(target.root.read_bytes(f"state/deploy/{image}/{image}.origin"))
    assert origin.uki == UkiRecord(TakesApart.UNSEALED)


def test_a_seal_is_not_weakened(target: Target, tmp_path: Path) -> None:
    assert refusal(target, unified(tmp_path, optional=False)) == (
        "--allow-missing-verity is of no use: the image's UKI demands fs-verity at each boot"
    )


def test_a_unified_kernel_image_of_another_image(target: Target, tmp_path: Path) -> None:
    line = refusal(target, unified(tmp_path, image_id="ab" * 64))
    assert "The UKI has the wrong composefs= parameter (is 'abab" in line


def test_a_unified_kernel_image_that_does_not_fit(target: Target, tmp_path: Path) -> None:
    ballast = Path(target.esp.path, "ballast")
    ballast.write_bytes(bytes(8 * MIB - 40960))
    with pytest.raises(NoSpaceOnBoot, match=rf"boot/EFI/Linux/{KVER}.efi [\d.]+ KiB"):
        target.install(unified(tmp_path))
    assert target.entries() == []
    assert not target.esp.exists("EFI")


def test_this_machine_is_what_the_tests_build_for() -> None:
    assert host_architecture() == images.ARCHITECTURE
