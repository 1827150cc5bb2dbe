"""An image with bootupd is installed: what its bootupctl is told, and what boots afterwards.

``bootupctl`` is a fake, but a program of the image that runs inside of it (:mod:`support.bootupd`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.boot import grub
from bootc.deploy.install import grub_bootupd
from bootc.deploy.install.loader_grub import GrubAnyInstaller, GrubBiosInstaller, GrubUefiInstaller
from bootc.errors import Error, one_line
from bootc.events import Start
from bootc.formats.origin import BootRecord, parse_origin
from bootc.fs import mounts
from support import bootupd, images, require
from support.bootupd import record
from support.grubmachine import ESP_UUID, MIB, Machine, bench
from support.images import directory, file

pytestmark = pytest.mark.host

PROBE = "backend install --help"


def layer(*more: images.Member) -> bytes:
    return images.bootable(
        directory("etc"),
        directory("var"),
        directory("tmp", 0o1777),
        file("usr/lib/os-release", b'ID=demo\nVERSION_ID=1\nPRETTY_NAME="Demo 1"\n' + b"#" * 99),
        *bootupd.system(),
        *more,
        kernel=b"kernel" * 100,
        initramfs=b"initramfs" * 100,
    )


def image_of(path: Path, *layers: bytes) -> images.Layout:
    # Compressing the programs would take most of the time of a test.
    return images.single(path, *layers, compression="")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    require.root()
    # Other processes of this machine mount, too.
    monkeypatch.setattr(mounts, "_MOUNT_POINTS", str(tmp_path / "mounts"))
    with bench(tmp_path) as machine:
        yield machine
        below = [entry.path for entry in mounts.read_mounts() if f"{tmp_path}/" in entry.path]
        assert below == [machine.root.path]


def files(path: str) -> set[str]:
    top = Path(path)
    return {str(p.relative_to(top)) for p in top.rglob("*") if p.is_file()}


def test_a_uefi_machine(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GRUB that reads boot entries gets nothing that upstream would not write."""
    monkeypatch.setenv("BOOTC_BOOTLOADER_DEBUG", "1")
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@proxy")
    layout = image_of(tmp_path / "l", layer(*bootupd.members()))
    image = machine.install(layout, GrubUefiInstaller(), generic=False, esp_uuid="1234-ABCD")
    assert record(machine.root.path, "calls") == [
        PROBE,
        "backend install --write-uuid -vvvv --update-firmware --auto --filesystem /sysroot /",
    ]
    exported = [line.removeprefix("export ") for line in record(machine.root.path, "env")]
    path = "/bin:/usr/bin:/sbin:/usr/sbin:/usr/local/bin:/usr/local/sbin"
    assert [line for line in exported if not line.startswith(("PWD", "OLDPWD"))] == [
        f"PATH='{path}'"
    ]
    assert set(record(machine.root.path, "sees")) == {
        *("/proc/self/stat", "/dev/null", "/sys/kernel", "/run", "/tmp", "/boot", "/boot/efi")
    }
    assert files(machine.esp.path) == {
        "EFI/BOOT/BOOTX64.EFI",
        *(f"EFI/fedora/{name}" for name in ("shimx64.efi", "grubx64.efi")),
        *(f"EFI/fedora/{name}" for name in ("grub.cfg", "bootuuid.cfg")),
    }
    boot = f"{machine.root.path}/boot"
    assert files(boot) == {
        "bootupd-state.json",
        *(f"grub2/{name}" for name in ("grub.cfg", "grubenv", "bootuuid.cfg", "efiuuid.cfg")),
        *(f"bootc_composefs-{image}/{name}" for name in ("vmlinuz", "initrd")),
        "loader/entries/bootc_demo-9999-1.conf",
    }
    origin = parse_origin(machine.root.read_bytes(f"state/deploy/{image}/{image}.origin"))
    assert origin.record == BootRecord("grub", "uefi", ESP_UUID)
    titles = [event.description for event in machine.events if isinstance(event, Start)]
    assert "Installing bootloader via GRUB for UEFI by bootupd" in titles
    assert not os.path.exists("/tmp/left")


def test_a_grub_that_reads_no_boot_entries_reads_the_generated_menu(
    machine: Machine, tmp_path: Path
) -> None:
    members = bootupd.members(grub=bootupd.GRUB_WITHOUT_BLSCFG)
    image = machine.install(image_of(tmp_path / "l", layer(*members)), GrubUefiInstaller())
    boot = Path(machine.root.path, "boot")
    assert (boot / "grub2/custom.cfg").read_bytes() == grub.custom_config(b"")
    menu = (boot / "loader/entries/grub.cfg").read_text()
    assert f"--id 'bootc-{image}'" in menu
    assert (boot / "grub2/bootc-last.cfg").read_text() == menu
    with machine.root.open_dir("boot") as directory:
        # Later commands generate the menu again.
        assert grub.reads_generated_menu(directory)
    # bootupd's own files are as it wrote them, so bootupctl update goes on.
    assert b"bootc" not in (boot / "grub2/grub.cfg").read_bytes()


@pytest.mark.parametrize("skip", [False, True])
def test_a_disk_for_any_machine(machine: Machine, tmp_path: Path, skip: bool) -> None:
    layout = image_of(tmp_path / "l", layer(*bootupd.members(bios=True)))
    machine.install(layout, GrubAnyInstaller(), skip_boot_uuid=skip, disk_is_file=True)
    uuid = "--with-static-configs" if skip else "--write-uuid"
    call = f"backend install {uuid} --device {machine.disk} /"
    assert record(machine.root.path, "calls") == [PROBE, call]
    present = {*files(machine.root.path), *files(machine.esp.path)}
    uuids = {path for path in present if path.endswith("bootuuid.cfg")}
    assert uuids == (set() if skip else {"boot/grub2/bootuuid.cfg", "EFI/fedora/bootuuid.cfg"})
    assert "boot/grub2/custom.cfg" not in present
    assert machine.notices == []


def test_a_bios_machine_with_an_old_bootupd(machine: Machine, tmp_path: Path) -> None:
    members = bootupd.members(grub=None, bios=True, help_text=bootupd.OLD_HELP)
    layout = image_of(tmp_path / "l", layer(*members))
    # grub2-install writes it, which the fake has not.
    machine.disk.write_bytes(b"boot code".ljust(MIB, b"\0"))
    image = machine.install(layout, GrubBiosInstaller(), generic=False)
    call = f"backend install --write-uuid --update-firmware --auto --device {machine.disk} /"
    assert record(machine.root.path, "calls") == [PROBE, call]
    origin = parse_origin(machine.root.read_bytes(f"state/deploy/{image}/{image}.origin"))
    assert origin.record == BootRecord("grub", "bios")
    assert machine.disk.read_bytes() == b"boot code".ljust(MIB, b"\0")
    assert not any(machine.bios_boot.read_bytes())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "printf 'error: no \\033[31mESP\\n' >&2; exit 3",
            r"bootupctl backend install .* failed with exit code 3: error: no \\x1b\[31mESP",
        ),
        ("kill -KILL $$", "bootupctl backend install .* was killed by SIGKILL"),
        ("sleep 60 & sleep 60", "bootupctl backend install .* did not end in time"),
        ("exit 0", "bootupctl of the image wrote no grub2/grub.cfg"),
        (f"exec /{bootupd.PROGRAM}-gone", "failed with exit code 12[67]"),
    ],
)
def test_a_failure_leaves_no_mounts_and_no_entry(
    machine: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    body: str,
    message: str,
) -> None:
    monkeypatch.setattr(grub_bootupd, "_TIMEOUT_S", 1.0)
    layout = image_of(tmp_path / "l", layer(*bootupd.members(body=body)))
    with pytest.raises(Error, match=message) as caught:
        machine.install(layout, GrubUefiInstaller())
    line = one_line(caught.value)
    assert "\n" not in line
    assert "hint: " in line
    assert not Path(machine.root.path, "boot/loader").exists()


def test_a_configuration_that_shows_no_entry_is_refused(machine: Machine, tmp_path: Path) -> None:
    members = bootupd.members(grub=bootupd.GRUB_WITHOUT_BLSCFG)
    without = images.layer(file(f"{bootupd.STATIC}/configs.d/.wh.41_custom.cfg"))
    layout = image_of(tmp_path / "l", layer(*members), without)
    with pytest.raises(Error, match=r"would show no boot entry: .* does not read custom\.cfg"):
        machine.install(layout, GrubUefiInstaller())
    # A second try on the same file systems is not refused by bootupctl.
    machine.install(image_of(tmp_path / "m", layer(*members)), GrubUefiInstaller())
