from __future__ import annotations

from pathlib import Path

import pytest

from bootc.lint import machine
from support.roots import Root, base


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return base(tmp_path / "root")


def test_a_base_image_passes(root: Root) -> None:
    for check in (machine.fstab, machine.machine_id, machine.os_release, machine.skopeo):
        assert root.found(check) is None


def test_fstab(root: Root) -> None:
    root.file("etc/fstab", "# / is elsewhere\nLABEL=data /var ext4\nUUID=1 /boot/efi vfat\n")
    assert root.found(machine.fstab) is None
    root.file("etc/fstab", "UUID=1\t/ ext4 rw 0 1\n/dev/a //usr/ ext4\nLABEL=my\\040etc /etc x\n")
    assert root.found(machine.fstab) == (
        "Found mounts in /etc/fstab of what the initramfs mounts:\n"
        "  UUID=1 /\n  /dev/a //usr/\n  'LABEL=my etc' /etc\n"
    )


@pytest.mark.parametrize("text", ["", "\n", "uninitialized\n", "b" * 31])
def test_no_machine_id(root: Root, text: str) -> None:
    root.file("etc/machine-id", text)
    assert root.found(machine.machine_id) is None


def test_a_machine_id(root: Root) -> None:
    root.file("etc/machine-id", "0123456789abcdef" * 2 + "\n")
    assert root.found(machine.machine_id) == (
        "Found an id in /etc/machine-id, which all machines would share; empty the file"
    )


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"ID=x\nNAME=\xe9\n", "usr/lib/os-release is not UTF-8 at offset 10"),
        (
            b"VERSION_ID=1\n",
            "usr/lib/os-release has neither PRETTY_NAME, NAME nor ID, and boot menus no title",
        ),
        (
            b"NAME=a\x1b[31m\n",
            "The name of the system in usr/lib/os-release holds a control character",
        ),
        (b"NAME=\xc3\xa9\n", None),
    ],
)
def test_os_release(root: Root, data: bytes, text: str | None) -> None:
    root.file("usr/lib/os-release", data)
    assert root.found(machine.os_release) == text


def test_os_release_elsewhere(root: Root) -> None:
    root.remove("usr/lib/os-release")
    assert root.found(machine.os_release) is None
    root.file("etc/os-release", b"\xff")
    assert root.found(machine.os_release) == "etc/os-release is not UTF-8 at offset 0"


def test_skopeo(root: Root) -> None:
    root.file("usr/bin/bootc")
    assert root.found(machine.skopeo) == (
        "Found /usr/bin/bootc without /usr/bin/skopeo, which updates from a registry need"
    )
    root.link("usr/bin/skopeo", "x")
    assert root.found(machine.skopeo) is None
