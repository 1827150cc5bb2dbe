from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from bootc.deploy.install import root_spec
from bootc.deploy.install.config import InstallConfig
from bootc.deploy.install.filesystem import Filesystem
from bootc.deploy.install.request import FilesystemRequest, InstallRefused
from bootc.deploy.install.root_spec import root_arguments
from bootc.deploy.install.target_filesystem import TargetFilesystems, TargetMount
from bootc.formats.imgref import ImageReference

IMAGE = ImageReference("registry", "example.com/os:1")
FOUND = TargetFilesystems(
    path="/target",
    filesystem=Filesystem.EXT4,
    root=TargetMount("/dev/vda3", "/target", "r-1"),
    subvolume="/",
    disk="/dev/vda",
)
BOOT = TargetMount("/dev/vda2", "/target/boot", "b-1")


def arguments(
    found: TargetFilesystems, config: InstallConfig | None = None, **asked: Any
) -> list[str]:
    request = FilesystemRequest(
        root=asked.pop("root", "/target"), source=IMAGE, target=IMAGE, **asked
    )
    return list(root_arguments(request, config or InstallConfig(), found))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["root=UUID=r-1", "rw"]),
        (
            {"filesystem": Filesystem.BTRFS, "subvolume": "/@"},
            ["root=UUID=r-1", "rootflags=subvol=/@", "rw"],
        ),
        (
            {"boot": BOOT},
            ["root=UUID=r-1", "rw", "boot=UUID=b-1", "systemd.mount-extra=UUID=b-1:/boot:auto:ro"],
        ),
    ],
)
def test_file_systems_are_named_by_their_uuids(
    changes: dict[str, Any], expected: list[str]
) -> None:
    assert arguments(dataclasses.replace(FOUND, **changes)) == expected


def test_the_user_wins_over_the_configuration() -> None:
    found = dataclasses.replace(FOUND, boot=BOOT)
    config = InstallConfig(root_mount_spec="LABEL=a", boot_mount_spec="")
    assert arguments(found, config) == ["root=LABEL=a", "rw"]
    assert arguments(found, config, root_mount_spec="", boot_mount_spec="LABEL=b") == [
        "rw",
        "boot=LABEL=b",
        "systemd.mount-extra=LABEL=b:/boot:auto:ro",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"root": TargetMount("/dev/vda3", "/target", "")},
        {"boot": TargetMount("/dev/vda2", "/target/boot", "")},
    ],
)
def test_a_file_system_without_a_uuid(changes: dict[str, Any]) -> None:
    with pytest.raises(InstallRefused, match="No filesystem uuid found for /target"):
        arguments(dataclasses.replace(FOUND, **changes))


def test_the_arguments_of_the_running_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cmdline").write_text("BOOT_IMAGE=/x root=/dev/sda1 ro rootflags=a rd.luks=1 rdx\n")
    monkeypatch.setattr(root_spec, "_CMDLINE", str(tmp_path / "cmdline"))
    inherited = ["root=/dev/sda1", "rootflags=a", "rd.luks=1", "rw"]
    assert arguments(FOUND, existing_root=True) == inherited
    assert arguments(FOUND, existing_root=True, root_mount_spec="LABEL=a") == ["root=LABEL=a", "rw"]


@pytest.mark.parametrize(
    ("fstab", "source"),
    [
        (None, "UUID=b-1"),
        ("# none\n\nUUID=1 / ext4\n/dev/sda2 /boot ext4\n", "UUID=b-1"),
        ("UUID=f-1 /boot ext4 defaults 0 0\n", "UUID=f-1"),
    ],
)
def test_the_boot_of_the_running_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fstab: str | None, source: str
) -> None:
    (tmp_path / "cmdline").write_text("quiet\n")
    monkeypatch.setattr(root_spec, "_CMDLINE", str(tmp_path / "cmdline"))
    if fstab is not None:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/fstab").write_text(fstab)
    found = dataclasses.replace(FOUND, boot=BOOT)
    assert arguments(found, existing_root=True, root=str(tmp_path))[:2] == ["rw", f"boot={source}"]
