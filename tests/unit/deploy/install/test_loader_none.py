from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from bootc.boot.firmware_entries import Firmware
from bootc.boot.image_kernel import find_boot_resource
from bootc.boot.menu_firmware import FirmwareMenu
from bootc.boot.scheme import BootDirs
from bootc.boot.space import NoSpaceOnBoot
from bootc.deploy.install import installed_menu
from bootc.deploy.install.loader_installer import Booting, BootTarget, NewDeployment
from bootc.deploy.install.loader_none import NoLoaderInstaller, UnknownPlace
from bootc.deploy.install.partition import Partition
from bootc.deploy.install.request import InstallRefused
from bootc.formats.origin import BootRecord, BootType
from bootc.formats.osrelease import OsRelease
from bootc.fs.dir import Dir
from bootc.kernel import efivars
from bootc.oci.pull import pull
from bootc.oci.source import open_source
from bootc.repository.repository import Repository
from support import firmware, osimages
from support.osimages import Channel, Images
from support.room import Volume, limited
from support.stored import IN_MEMORY

ESP = Partition("/dev/vda2", "", 1 << 30, str(firmware.ESP), 4096, 2097152)
LOADER = NoLoaderInstaller()


class Installation:
    """An image that is about to be installed on directories."""

    def __init__(self, path: Path, stack: ExitStack, *, generic: bool) -> None:
        self.esp, self.variables = path / "esp", path / "efivars"
        for directory in (path / "root/boot", self.esp, self.variables):
            directory.mkdir(parents=True)
        firmware.put(self.variables, "Lang", b"eng")
        images = Images(path / "images", BootType.UKI)
        channel = Channel(path / "channel", images, osimages.OLD)
        root = stack.enter_context(Dir.open(path / "root"))
        repository = stack.enter_context(Repository.create(root, secure=False))
        with open_source(channel.reference) as source:
            pulled = pull(repository, source)
        self.image_id = pulled.image_id
        resource = find_boot_resource(pulled.root)
        booting = Booting(self.image_id, resource, BootType.UKI, OsRelease({"ID": "x"}), None)
        self.deployment = NewDeployment(booting, pulled.root, root, repository, generic)
        self.target = BootTarget(
            disk="/dev/vda",
            root=root,
            root_uuid="",
            boot=root,
            boot_uuid="",
            esp=stack.enter_context(Dir.open(self.esp)),
            esp_partition=ESP,
        )

    @property
    def boot(self) -> BootDirs:
        boot = LOADER.boot_dirs(self.target, BootType.UKI)
        assert boot.firmware is not None
        return replace(boot, firmware=replace(boot.firmware, root=str(self.variables)))

    def install(self) -> None:
        boot = self.boot
        LOADER.write_programs(self.deployment, self.target, boot, lambda event: None)
        LOADER.write_kernel(self.deployment, boot)
        assert self.started() == []
        LOADER.commit(self.deployment, self.target, boot)

    def started(self) -> list[str]:
        return [title for title, _ in firmware.started(self.variables, self.esp)]


@pytest.fixture
def generic() -> bool:
    return False


@pytest.fixture
def installation(generic: bool) -> Iterator[Installation]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path, ExitStack() as stack:
        yield Installation(Path(path), stack, generic=generic)


@pytest.mark.parametrize("generic", [False, True], ids=["this machine", "any machine"])
def test_what_the_firmware_starts(installation: Installation, generic: bool) -> None:
    installation.install()
    title = f"bootc x {installation.image_id.hex[:8]}"
    assert installation.started() == ([] if generic else [title]) + ["fallback"]
    entry = next((installation.esp / "loader/entries").iterdir()).read_text()
    assert f"bootc_composefs-{installation.image_id}.efi" in entry
    if not generic:
        option = firmware.get(installation.variables, "Boot0000") or b""
        drive = option[6 + 2 * len(title) + 2 :]
        assert drive[4:24] == bytes.fromhex("02000000 0010000000000000 0000200000000000")


def test_a_firmware_that_refuses(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, *args: object, **options: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)

    monkeypatch.setattr(efivars, "write_variable", refuse)
    installation.install()
    assert installation.started() == ["fallback"]


def test_a_kill_right_after_the_commit_point(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BootOrder alone tells that the machine boots: the record and the fallback are missing."""
    root = installation.target.root
    root.ensure_dir(f"state/deploy/{installation.image_id}").close()
    with monkeypatch.context() as patch:
        patch.setattr(Firmware, "write_order", interrupt)
        with pytest.raises(KeyboardInterrupt):
            installation.install()
    assert not installed_menu.boots(installation.boot, root)
    with monkeypatch.context() as patch:
        patch.setattr(FirmwareMenu, "_follow", interrupt)
        with pytest.raises(KeyboardInterrupt):
            installation.install()
    assert installation.started() == [f"bootc x {installation.image_id.hex[:8]}"]
    assert installed_menu.boots(installation.boot, root)
    # An entry for a deployment of another root file system.
    root.remove_tree("state")
    assert not installed_menu.boots(installation.boot, root)


def interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_an_esp_without_space_for_the_copy(installation: Installation) -> None:
    volume = Volume(installation.esp)
    size = sum(installation.deployment.booting.resource.sizes.values())
    with limited(volume):
        volume.leave(size * 3 // 2 // 512 + 20)
        with pytest.raises(NoSpaceOnBoot, match=r"the copy of .* in EFI/BOOT"):
            installation.install()
    assert list(installation.esp.rglob("*")) == []


def test_what_it_needs_and_records(tmp_path: Path) -> None:
    LOADER.check_boot_type(BootType.UKI)
    with pytest.raises(InstallRefused, match="only unified kernel images") as caught:
        LOADER.check_boot_type(BootType.BLS)
    assert caught.value.hint is not None
    with Dir.open(tmp_path) as root:
        target = BootTarget("/dev/vda", root, "", root, "", esp=root, esp_partition=ESP)
        assert LOADER.record(target) == BootRecord("none", "uefi", str(firmware.ESP))
        odd = replace(target, esp_partition=replace(ESP, uuid=""))
        with pytest.raises(UnknownPlace, match="PARTUUID of /dev/vda2"):
            LOADER.boot_dirs(odd, BootType.UKI)
