"""What the user is told before an image is signed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootc.boot.sealed_checks import NO_LOCKDOWN, NO_PANIC
from bootc.build.seal_base import read_base
from bootc.build.seal_warnings import warnings
from bootc.events import null_sink
from support import images, initramfs, pe, sealing
from support.images import directory, file, symlink
from support.sealing import EFI, KVER

MIB = 1 << 20
MODULES = f"usr/lib/modules/{KVER}"
PROGRAM = pe.signable((b".text", b"program" * 100))
DEBIAN = file(
    f"{MODULES}/initramfs.img", initramfs.named(["conf/initramfs.conf", "scripts/functions"])
)
LOCKED = "CONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT=y\n" + "#" * 99
INSTALL = tuple(directory(home) for home in ("usr/lib/bootc/install", "etc", "etc/bootc"))
INSTALL += (directory("etc/bootc/install"),)
GOOD = "quiet lockdown=integrity panic=30"


def asked(path: str, size: str) -> images.Member:
    return file(path, f'[install]\nesp-size = "{size}"\n'.encode() + b"#" * 99)


def told(path: Path, *more: images.Member, line: str = GOOD, uki_bytes: int = MIB) -> list[str]:
    layout = images.single(path, *sealing.layers(*more, stub=PROGRAM, loader=PROGRAM))
    with images.opened(layout) as source:
        return list(warnings(read_base(source, null_sink), line, uki_bytes))


def test_an_image_without_a_fault(tmp_path: Path) -> None:
    assert told(tmp_path / "a") == []
    assert told(tmp_path / "b", DEBIAN) == []
    config = file(f"{MODULES}/config", LOCKED.encode())
    assert told(tmp_path / "c", config, line="rw") == []


@pytest.mark.parametrize("config", [None, b"# CONFIG_X is not set\n" * 9, b"\xff" * 99])
def test_lockdown(tmp_path: Path, config: bytes | None) -> None:
    more = [] if config is None else [file(f"{MODULES}/config", config)]
    assert told(tmp_path, *more, line="rw") == [NO_LOCKDOWN]


def test_a_shell_if_the_boot_fails(tmp_path: Path) -> None:
    assert told(tmp_path, DEBIAN, line="lockdown=none") == [NO_PANIC]


@pytest.mark.parametrize(
    ("more", "mib", "right"),
    [
        ((), 511, True),
        ((), 512, False),
        ((asked("usr/lib/bootc/install/1.toml", "2G"),), 512, True),
        ((asked("usr/lib/bootc/install/1.toml", "300M"),), 200, False),
        (
            (asked("usr/lib/bootc/install/1.toml", "4G"), symlink("etc/bootc/install/1.toml", "x")),
            512,
            False,
        ),
        (
            (
                asked("usr/lib/bootc/install/1.toml", "4G"),
                asked("etc/bootc/install/1.toml", "300M"),
            ),
            200,
            False,
        ),
        ((file("usr/lib/bootc/install/1.toml", os.urandom(99)),), 512, False),
        # Too large to be a configuration.
        ((asked("usr/lib/bootc/install/1.toml", '2G"#' + "x" * MIB),), 512, False),
    ],
)
def test_the_esp(tmp_path: Path, more: tuple[images.Member, ...], mib: int, right: bool) -> None:
    found = told(tmp_path, *INSTALL, *more, uki_bytes=mib * MIB)
    assert len(found) == (not right)
    assert right or found[0].startswith("Two deployments take ")


def test_layers(tmp_path: Path) -> None:
    found = told(tmp_path, file("usr/share/doc/x"), images.hardlink(f"{EFI}/x", "usr/share/doc/x"))
    assert [text.partition(":")[0] for text in found] == [
        "the layers use directories before they list them"
    ]
    assert "/usr/share, /usr/share/doc." in found[0]
