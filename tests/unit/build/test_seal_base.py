"""Images that can be sealed, and those that cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootc.boot.image_kernel import ImageNotBootable
from bootc.build.seal_base import BaseImage, SealRefused, parse_epoch, read_base
from bootc.errors import Error, UsageError
from bootc.events import null_sink
from bootc.formats.pe import PeError
from support import images, pe, sealing
from support.images import MTIME, directory, file, symlink
from support.sealing import EFI, KVER, LOADER

STUB = pe.signable((b".text", b"stub" * 100))
PROGRAM = pe.signable((b".text", b"loader" * 100))
MODULES = f"usr/lib/modules/{KVER}"


def read(path: Path, *more: images.Member, loader: bytes | None = PROGRAM) -> BaseImage:
    layout = images.single(path, *sealing.layers(*more, stub=STUB, loader=loader))
    with images.opened(layout) as source:
        base = read_base(source, null_sink)
        # All files that sealing needs are read at once, before the source is closed.
        leaves = [base.kernel.vmlinuz, base.kernel.initramfs, base.os_release]
        assert all(base.read(leaf) for leaf in leaves)
        return base


def kernel(version: str) -> list[images.Member]:
    home = f"usr/lib/modules/{version}"
    names = ("vmlinuz", "initramfs.img")
    return [directory(home), *(file(f"{home}/{name}", b"k" * 99) for name in names)]


def test_what_sealing_needs(tmp_path: Path) -> None:
    base = read(tmp_path / "layout")
    assert base.kernel.kver == KVER
    assert base.kargs == ("quiet", "lockdown=integrity")
    assert base.epoch == MTIME
    assert base.loader is not None
    assert base.loader[0] == LOADER
    assert base.read(base.loader[1]) == PROGRAM
    assert base.stub is not None
    assert base.read(base.stub) == STUB


def test_a_loader_that_is_signed(tmp_path: Path) -> None:
    """It may be signed in place, or have a signed copy, which bootctl prefers."""
    signed = pe.signed(PROGRAM)
    base = read(tmp_path / "copy", file(f"{LOADER}.signed", signed))
    assert base.loader is None
    assert base.signed_loader is not None
    assert base.signed_loader[0] == f"{LOADER}.signed"
    assert base.read(base.signed_loader[1]) == signed
    base = read(tmp_path / "place", loader=signed)
    assert base.loader is None
    assert base.signed_loader is not None
    assert base.signed_loader[0] == LOADER


def test_an_image_without_systemd_boot(tmp_path: Path) -> None:
    base = read(tmp_path / "layout", loader=None)
    assert (base.loader, base.signed_loader) == (None, None)


def test_an_os_release_that_is_a_link(tmp_path: Path) -> None:
    more = (
        *(file("usr/lib/.wh.os-release"), directory("etc"), directory("usr/share")),
        *(file("usr/share/os", b"ID=linked\n" * 20), symlink("usr/link", "/usr/share")),
        symlink("etc/os-release", "../usr/share/os"),
    )
    base = read(tmp_path / "layout", *more)
    assert base.read(base.os_release) == b"ID=linked\n" * 20


@pytest.mark.parametrize(
    ("more", "kind", "message"),
    [
        ([file(f"{MODULES}/.wh.vmlinuz")], ImageNotBootable, "no kernel"),
        ([file(f"{MODULES}/.wh.initramfs.img")], ImageNotBootable, "has no initramfs"),
        (
            kernel("9"),
            ImageNotBootable,
            "holds 2 kernels",
        ),
        ([file("boot/EFI/Linux/a.efi", STUB)], SealRefused, "already: boot/EFI/Linux/a.efi"),
        ([file(f"{MODULES}/a.efi", STUB)], SealRefused, f"already: {MODULES}/a.efi"),
        ([file("usr/lib/.wh.os-release")], SealRefused, "no /usr/lib/os-release"),
        (
            [
                *(file("usr/lib/.wh.os-release"), directory("etc")),
                *(symlink("etc/os-release", "x"), symlink("etc/x", "os-release")),
            ],
            SealRefused,
            "no /usr/lib/os-release",
        ),
        ([file(f"{LOADER}.signed", PROGRAM)], SealRefused, "signed of the image is not signed"),
        ([file(LOADER, b"not a program" * 99)], PeError, "not an EFI program"),
        ([file("usr/lib/bootc/kargs.d/2.toml", b"kargs = 1")], Error, "2.toml needs 'kargs'"),
        (
            [file(f"{MODULES}/.wh.vmlinuz"), *kernel("6:1")],
            SealRefused,
            "cannot have a file named like the kernel 6:1",
        ),
    ],
)
def test_images_that_cannot_be_sealed(
    tmp_path: Path, more: list[images.Member], kind: type[Error], message: str
) -> None:
    with pytest.raises(kind) as caught:
        read(tmp_path / "layout", *more)
    assert message in caught.value.message


def test_no_stub(tmp_path: Path) -> None:
    assert read(tmp_path / "layout", file(f"{EFI}/.wh.linuxx64.efi.stub")).stub is None


def test_the_epoch() -> None:
    assert (parse_epoch(""), parse_epoch("0"), parse_epoch("253402300799")) == (
        *(None, 0),
        253402300799,
    )
    for text in ("-1", "1.5", "x", "\u0661", "253402300800", "9" * 30):
        with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
            parse_epoch(text)
