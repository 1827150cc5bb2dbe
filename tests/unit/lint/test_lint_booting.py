from __future__ import annotations

import gzip
import os
import stat
from pathlib import Path

import pytest

from bootc.formats.initramfs import InitramfsError
from bootc.fs.imageroot import ImageRoot
from bootc.lint import booting
from support import initramfs
from support.kernels import bzimage
from support.pe import program
from support.roots import KVER, MODULES, STEP, Root, base, bootable

REFUSED = "Found what bootc install will refuse:\n"
UKI = "boot/EFI/Linux/test.efi"
CHECKS = (booting.installable, booting.kernel_version, booting.initramfs)
SEAL = b"rw composefs=" + b"ab" * 64
OTHER_SEAL = b"rw composefs=" + b"cd" * 64


def uki(
    kernel: bytes = bzimage(KVER),
    names: tuple[str, ...] = (STEP,),
    *profiles: tuple[bytes, bytes],
    without: str = "",
    **text: bytes,
) -> bytes:
    sections = {b".osrel": b"ID=test\nNAME=Test\n", b".cmdline": SEAL}
    sections |= {b".linux": kernel, b".initrd": initramfs.named(names)}
    sections |= {f".{name}".encode(): data for name, data in text.items()}
    sections.pop(without.encode(), None)
    return program(*sections.items(), *profiles)


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


GARBAGE = (b"", b"M", b"vmlinuz", b"#!/bin/sh", bytes(1 << 18))


@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_file_that_is_not_a_kernel_image(root: Root, sealed: Root, garbage: bytes) -> None:
    root.file(f"{MODULES}/vmlinuz", garbage)
    found = [root.found(check) for check in CHECKS]
    assert found == [None, f"Found no kernel image in {MODULES}/vmlinuz", None]
    sealed.file(UKI, uki(garbage))
    found = [sealed.found(check) for check in CHECKS]
    empty = f"{REFUSED}  Reading {UKI} of the image: UKI section '.linux' is empty\n"
    wrong = f"Found no kernel image in section .linux of {UKI}"
    assert found == [None, wrong, None] if garbage else [empty, None, None]


@pytest.mark.parametrize("place", [UKI, f"{MODULES}/test.efi"])
@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_file_that_is_not_a_unified_kernel_image(
    tmp_path: Path, place: str, garbage: bytes
) -> None:
    image = base(tmp_path / "root").file(place, garbage)
    installable, *others = (image.found(check) for check in CHECKS)
    assert others == [None, None]
    assert installable is not None
    assert installable.startswith(
        f"{REFUSED}  Reading {place} of the image: UKI is not valid EFI executable: "
    )


WRONG_UKIS = {
    "no command line": (uki(without=".cmdline"), "UKI doesn't contain a '.cmdline' section"),
    "no image": (uki(cmdline=b"rw quiet"), "No composefs image in UKI cmdline ("),
    "a malformed image": (uki(cmdline=b"composefs=1"), "No composefs image in UKI cmdline: "),
    "a profile without": (
        uki(bzimage(KVER), (STEP,), (b".profile", b"ID=x"), (b".cmdline", b"rw")),
        "profile 0 (x): No composefs image in UKI cmdline (",
    ),
    "a profile with another": (
        uki(bzimage(KVER), (STEP,), (b".profile", b"ID=x"), (b".cmdline", OTHER_SEAL)),
        "No composefs image in UKI cmdline: profile 0 (x): ",
    ),
    "no name": (uki(without=".osrel"), "UKI doesn't contain a '.osrel' section"),
    "no initramfs": (uki(without=".initrd"), "UKI doesn't contain a '.initrd' section"),
    "no kernel": (uki(without=".linux"), "UKI doesn't contain a '.linux' section"),
}


@pytest.mark.parametrize("place", [UKI, f"{MODULES}/test.efi"])
@pytest.mark.parametrize("fault", WRONG_UKIS)
def test_a_unified_kernel_image_that_boots_no_deployment(
    tmp_path: Path, place: str, fault: str
) -> None:
    data, message = WRONG_UKIS[fault]
    found = base(tmp_path / "root").file(place, data).found(booting.installable)
    assert found is not None
    assert found.startswith(f"{REFUSED}  Reading {place} of the image: {message}")


def test_all_faults_of_a_unified_kernel_image(tmp_path: Path) -> None:
    bad = program((b".cmdline", b"rw"), (b".cmdline", b"ro"), (b".linux", b""))
    root = base(tmp_path / "root").file(UKI, bad).file("boot/EFI/Linux/other.efi", b"MZ")
    root.file(f"{UKI}.extra.d/x.addon.efi", program((b".cmdline", SEAL)))
    with ImageRoot.open(str(root.path)) as image:
        listings = booting.installable(image)
    assert isinstance(listings, tuple)
    # Without the limit of a text.
    found = "".join(f"{item}\n" for listing in listings for item in listing.items)
    for part in (
        "the image holds 2 unified kernel images",
        "other.efi of the image: UKI is not valid EFI executable: ",
        "test.efi of the image: No composefs image in UKI cmdline (",
        "test.efi of the image: UKI doesn't contain a '.osrel' section\n",
        "test.efi of the image: UKI section '.linux' is empty\n",
        "test.efi of the image: UKI doesn't contain a '.initrd' section\n",
        "x.addon.efi of the image: the kernel argument",
        f"{UKI}: UKI has 2 sections '.cmdline'\n",
    ):
        assert found.count(part) == 1, part
    assert found.lower().count("no composefs image") == 1


def test_an_addon_that_names_an_image(sealed: Root) -> None:
    sealed.file(f"{UKI}.extra.d/x.addon.efi", program((b".cmdline", SEAL)))
    found = sealed.found(booting.installable)
    assert found is not None
    assert found.startswith(f"{REFUSED}  Reading UKI add-on x.addon.efi of the image: ")


def test_a_unified_kernel_image_among_the_modules(tmp_path: Path) -> None:
    root = base(tmp_path / "root").file(f"{MODULES}/x.efi", uki(bzimage("6.1.0"), ("init",)))
    installable, version, step = (root.found(check) for check in CHECKS)
    assert installable is None
    assert version == f"the image's kernel 6.1.0 {TOO_OLD}"
    assert step is not None
    assert step.startswith(f"Found no {STEP} in the initramfs of {MODULES}/x.efi, ")


def test_a_name_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    root = base(tmp_path / "root").file("boot/EFI/Linux/\x1b[2J.efi", b"x")
    found = root.found(booting.installable)
    assert found is not None
    assert "\\x1b[2J.efi" in found
    assert found.replace("\n", "").isprintable()


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
        (
            f"rw composefs.digest=v1-sha512-12:{A} composefs=?{B}",
            "quiet",
            f"Reading {UKI} of the image: No composefs image in UKI cmdline: the arguments "
            "composefs.digest=v1-sha512-12:abababababab… and composefs=?cdcdcdcdcdcd… disagree",
        ),
        (
            f"composefs={A} composefs.digest=v1-sha512-12:x",
            "quiet",
            f"Reading {UKI} of the image: No composefs image in UKI cmdline: kernel argument "
            "'composefs.digest=v1-sha512-12:x' is malformed",
        ),
        (
            f"composefs={A}",
            f"composefs=?{A}",
            "Reading UKI add-on x.addon.efi of the image: the kernel argument 'composefs=?abab",
        ),
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
    profile = ((b".uname", b"6.12.1"), (b".profile", b"ID=old"), (b".uname", b"6.1.0"))
    sealed.file(UKI, uki(bzimage(KVER), (STEP,), *profile))
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
    modules = "usr/lib/modules/6.6.3-arm64"
    root = base(tmp_path / "root").file(f"{modules}/vmlinuz", b"MZ arm64")
    root.file(f"{modules}/initramfs.img")
    assert root.found(booting.kernel_version) == f"the image's kernel 6.6.3-arm64 {TOO_OLD}"
    other = base(tmp_path / "other").file("usr/lib/modules/mine/vmlinuz", b"MZ arm64")
    other.file("usr/lib/modules/mine/initramfs.img")
    assert other.found(booting.kernel_version) is None


def test_an_initramfs_without_the_step(root: Root, sealed: Root) -> None:
    text = (
        f"Found no {STEP} in the initramfs of {{}}, so it does not mount the image; "
        "dracut's module bootc adds the file"
    )
    root.file(f"{MODULES}/initramfs.img", gzip.compress(initramfs.named(["init"])))
    assert root.found(booting.initramfs) == text.format(f"{MODULES}/initramfs.img")
    sealed.file(UKI, uki(names=("init",)))
    assert sealed.found(booting.initramfs) == text.format(UKI)


def test_an_initramfs_that_cannot_be_read(root: Root) -> None:
    root.file(f"{MODULES}/initramfs.img", b"\x02\x21\x4c\x18 lz4")
    with pytest.raises(InitramfsError):
        root.found(booting.initramfs)


@pytest.mark.parametrize("kind", [stat.S_IFDIR, stat.S_IFIFO, stat.S_IFSOCK])
def test_other_files_in_the_place_of_a_kernel(root: Root, kind: int) -> None:
    path = root.remove(f"{MODULES}/vmlinuz").path / MODULES / "vmlinuz"
    path.mkdir() if kind == stat.S_IFDIR else os.mknod(path, kind | 0o600)
    assert [root.found(check) for check in CHECKS] == [
        f"{REFUSED}  {MODULES}/vmlinuz is not a regular file\n",
        None,
        None,
    ]
