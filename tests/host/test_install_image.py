"""An image brought onto real file systems: what lies where, in which order, and what fails how."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from bootc.boot import kernel_release
from bootc.boot.image_kernel import ImageNotBootable
from bootc.boot.kernel_release import KernelTooOld
from bootc.deploy.bootable import InsufficientSpace
from bootc.deploy.etc.apply import EtcMissing
from bootc.deploy.install.request import InstallRefused
from bootc.events import Done, Message, Start
from bootc.formats.origin import BootRecord, Signature, parse_origin
from bootc.fs import mounts
from bootc.fs.process import CommandFailed
from bootc.kernel import fsverity
from bootc.oci.source import host_architecture
from bootc.repository.sealing import VerityMissing
from support import images
from support.commands import Commands
from support.images import directory, file
from support.mountedtarget import (
    ESP_UUID,
    INITRAMFS,
    KERNEL,
    MIB,
    ROOT_UUID,
    TARGET,
    Target,
    members,
)

pytestmark = pytest.mark.host


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


@pytest.mark.parametrize(("signature", "tolerant"), [(None, True), (Signature(), False)])
def test_the_origin_knows_the_image(
    target: Target, layout: images.Layout, signature: Signature | None, tolerant: bool
) -> None:
    pulled = target.install(layout, signature=signature, tolerant=tolerant)
    image = pulled.image_id.hex
    origin = parse_origin(target.root.read_bytes(f"state/deploy/{image}/{image}.origin"))
    assert origin.image == TARGET
    assert origin.signature == signature
    assert origin.record == BootRecord("systemd", "uefi", ESP_UUID)
    assert origin.waived == (("allow-missing-verity",) if tolerant else ())
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


def test_an_image_whose_kernel_is_too_old(
    target: Target, layout: images.Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_release, "FLOOR", (6, 13))
    with pytest.raises(KernelTooOld, match=r"^the image's kernel 6\.12\.0-test cannot mount"):
        target.install(layout)
    assert target.bootctl.calls == []
    assert os.listdir(target.esp.path) == []


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


def test_a_bare_kernel_brings_no_configuration(target: Target, layout: images.Layout) -> None:
    target.install(layout)
    assert not target.esp.exists("loader/loader.conf")


def test_this_machine_is_what_the_tests_build_for() -> None:
    assert host_architecture() == images.ARCHITECTURE
