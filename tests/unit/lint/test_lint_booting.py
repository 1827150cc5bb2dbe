from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from bootc.errors import Error
from bootc.formats.initramfs import InitramfsError
from bootc.lint import booting
from support import initramfs
from support.kernels import bzimage
from support.pe import program
from support.roots import KVER, MODULES, STEP, Root, base, bootable

REFUSED = "Found what bootc install will refuse:\n"
UKI = "boot/EFI/Linux/test.efi"
CHECKS = (booting.installable, booting.kernel_version, booting.initramfs)


def uki(kernel: bytes = bzimage(KVER), names: tuple[str, ...] = (STEP,), **text: bytes) -> bytes:
    sections = {b".linux": kernel, b".initrd": initramfs.named(names)}
    sections |= {f".{name}".encode(): data for name, data in text.items()}
    return program(*sections.items())


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return bootable(tmp_path / "root")


@pytest.fixture
def sealed(tmp_path: Path) -> Root:
    return base(tmp_path / "sealed").file(UKI, uki())


def test_what_installs_and_boots(root: Root, sealed: Root) -> None:
    for image in (root, sealed):
        assert [image.found(check) for check in CHECKS] == [None] * 3


def test_an_image_without_a_kernel(tmp_path: Path) -> None:
    root = base(tmp_path / "root")
    assert [root.found(check) for check in CHECKS] == [None] * 3


@pytest.mark.parametrize("stand_in", [b"", b"vmlinuz", b"fake kernel"])
def test_stand_ins_are_not_judged(tmp_path: Path, stand_in: bytes) -> None:
    first = base(tmp_path / "a").file("usr/lib/modules/5.7.2/vmlinuz", stand_in)
    second = base(tmp_path / "b").file(UKI, stand_in)
    for image in (first, second):
        assert [image.found(check) for check in CHECKS] == [None] * 3


def test_no_initramfs(root: Root) -> None:
    root.remove(f"{MODULES}/initramfs.img")
    assert root.found(booting.installable) == (
        f"{REFUSED}  kernel {KVER} has no initramfs: {MODULES}/initramfs.img is missing "
        "(build it into the image with dracut)\n"
    )
    assert root.found(booting.initramfs) is None


def test_entries_of_an_image(root: Root, sealed: Root) -> None:
    for image in (root, sealed):
        image.file("boot/loader/entries/debian.conf", "linux /vmlinuz\n")
        assert image.found(booting.installable) == (
            f"{REFUSED}  the image carries boot entries of its own in boot/loader/entries "
            "(remove them: the installation writes boot entries)\n"
        )


def test_two_unified_kernel_images(sealed: Root) -> None:
    sealed.file("boot/EFI/Linux/recovery.efi", uki())
    assert sealed.found(booting.installable) == (
        f"{REFUSED}  the image holds 2 unified kernel images: boot/EFI/Linux/recovery.efi, {UKI} "
        "(keep one of them)\n"
    )


A, B = "ab" * 64, "cd" * 64


@pytest.mark.parametrize(
    ("line", "addon", "expected"),
    [
        (f"rw composefs.digest=v1-sha512-12:{A} composefs={B}", "quiet", None),
        # The id is computed later, and then is in the next build.
        ("rw", "quiet", None),
        (
            f"rw composefs.digest=v1-sha512-12:{A} composefs=?{B}",
            "quiet",
            "No composefs image in UKI cmdline: the arguments "
            "composefs.digest=v1-sha512-12:abababababab… and composefs=?cdcdcdcdcdcd… disagree",
        ),
        ("composefs=x", "quiet", "No composefs image in UKI cmdline: kernel argument"),
        (f"composefs={A}", f"composefs=?{A}", "the kernel argument 'composefs=?abab"),
    ],
)
def test_digests_of_a_unified_kernel_image(
    sealed: Root, line: str, addon: str, expected: str | None
) -> None:
    sealed.file(UKI, uki(cmdline=line.encode()))
    data = program((b".cmdline", addon.encode()))
    sealed.file("boot/EFI/Linux/test.efi.extra.d/x.addon.efi", data)
    found = sealed.found(booting.installable)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert found.startswith(f"{REFUSED}  {expected}")
        assert len(found.splitlines()) == 2


def test_kernel_arguments_are_judged_without_a_kernel(tmp_path: Path) -> None:
    root = base(tmp_path / "root").link("usr/lib/bootc/kargs.d/10.toml", "x")
    found = root.found(booting.installable)
    assert found is not None
    assert found.startswith(f"{REFUSED}  usr/lib/bootc/kargs.d/10.toml is not a regular file")


TOO_OLD = (
    "cannot mount an EROFS image from a file (use Linux 6.12 or later, or one whose configuration "
    "has CONFIG_EROFS_FS_BACKED_BY_FILE (usr/lib/modules/<version>/config))"
)


@pytest.mark.parametrize("release", ["6.11.9-1", "5.14.0-570.el9.x86_64", "6.1.0-30-amd64"])
def test_an_old_kernel(root: Root, sealed: Root, release: str) -> None:
    text = f"the image's kernel {release} {TOO_OLD}"
    root.file(f"{MODULES}/vmlinuz", bzimage(release))
    assert root.found(booting.kernel_version) == text
    sealed.file(UKI, uki(bzimage(release)))
    assert sealed.found(booting.kernel_version) == text
    sealed.file(UKI, uki(uname=release.encode()))
    assert sealed.found(booting.kernel_version) == text


def test_an_old_kernel_of_a_later_profile(sealed: Root) -> None:
    sections = {b".linux": bzimage(KVER), b".initrd": initramfs.named((STEP,))}
    profile = ((b".uname", b"6.12.1"), (b".profile", b"ID=old"), (b".uname", b"6.1.0"))
    sealed.file(UKI, program(*sections.items(), *profile))
    assert sealed.found(booting.kernel_version) == f"the image's kernel 6.1.0 {TOO_OLD}"


@pytest.mark.parametrize("release", ["6.12", "6.12.0-rc1", "7.0.1", "10.1-x"])
def test_a_new_kernel(root: Root, release: str) -> None:
    root.file(f"{MODULES}/vmlinuz", bzimage(release))
    assert root.found(booting.kernel_version) is None


def test_the_configuration_counts_more_than_the_version(root: Root) -> None:
    root.file(f"{MODULES}/vmlinuz", bzimage("6.1.0"))
    root.file(f"{MODULES}/config", b"CONFIG_EROFS_FS=m\nCONFIG_EROFS_FS_BACKED_BY_FILE=y\n")
    assert root.found(booting.kernel_version) is None
    root.file(f"{MODULES}/vmlinuz", bzimage("7.0.1"))
    root.file(f"{MODULES}/config", b"# CONFIG_EROFS_FS is not set\n")
    assert root.found(booting.kernel_version) == (
        "the image's kernel 7.0.1 is built without CONFIG_EROFS_FS, and cannot mount an EROFS "
        "image (use a kernel with this option: most kernels since Linux 6.12 have it)"
    )


def test_the_directory_tells_where_the_kernel_does_not(tmp_path: Path) -> None:
    root = base(tmp_path / "root").file("usr/lib/modules/6.6.3-arm64/vmlinuz", b"MZ arm64")
    assert root.found(booting.kernel_version) == f"the image's kernel 6.6.3-arm64 {TOO_OLD}"
    other = base(tmp_path / "other").file("usr/lib/modules/mine/vmlinuz", b"MZ arm64")
    assert other.found(booting.kernel_version) is None


def test_an_initramfs_without_the_step(root: Root, sealed: Root) -> None:
    text = (
        f"Found no {STEP} in the initramfs of {{}}, so that it does not mount the image; "
        "dracut's module bootc brings it"
    )
    root.file(f"{MODULES}/initramfs.img", gzip.compress(initramfs.named(["init"])))
    assert root.found(booting.initramfs) == text.format(f"{MODULES}/initramfs.img")
    sealed.file(UKI, uki(names=("init",)))
    assert sealed.found(booting.initramfs) == text.format(UKI)


def test_an_initramfs_that_cannot_be_read(root: Root, sealed: Root) -> None:
    root.file(f"{MODULES}/initramfs.img", b"\x02\x21\x4c\x18 lz4")
    with pytest.raises(InitramfsError):
        root.found(booting.initramfs)
    sealed.file(UKI, program((b".linux", bzimage(KVER))))
    with pytest.raises(Error, match=r"doesn't contain a '\.initrd' section"):
        sealed.found(booting.initramfs)


def test_directories_in_the_place_of_files(root: Root) -> None:
    root.remove(f"{MODULES}/vmlinuz").directory(f"{MODULES}/vmlinuz")
    for check in CHECKS:
        with pytest.raises(OSError, match=f"not a regular file: '{MODULES}/vmlinuz'"):
            root.found(check)
