"""Sealed images that protect less than they could, each beside one that is right."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from bootc.boot.sealed_checks import NO_LOCKDOWN, NO_PANIC
from bootc.cli.render.lint import finding_text
from bootc.formats.cmdline import composefs_karg
from bootc.fs.imageroot import ImageRoot
from bootc.lint import sealed
from bootc.lint.model import LintFinding
from bootc.lint.run import lint
from bootc.lint.table import LINTS
from support import initramfs, pe
from support.roots import KVER, MODULES, Root, base, bootable

UKI = "boot/EFI/Linux/os.efi"
ADDON = f"{UKI}.extra.d/more.addon.efi"
LOADER = "usr/lib/systemd/boot/efi/systemd-bootx64.efi"
DIGEST = "ab" * 64
STRICT = composefs_karg(DIGEST, optional=False)
OPTIONAL = composefs_karg(DIGEST, optional=True)
DRACUT = initramfs.named(["init", "usr/lib/bootc/initramfs-setup"])
DEBIAN = initramfs.named(["conf/initramfs.conf", "init", "scripts/functions"])
PROGRAM = pe.signable((b".text", b"program" * 9))
Lint = Callable[[ImageRoot], LintFinding | None]
EVERY: tuple[Lint, ...] = (
    sealed.esp_size,
    sealed.kargs,
    sealed.raw_kernel,
    sealed.layers,
    sealed.lockdown,
    sealed.panic,
    sealed.signatures,
)


def uki(*lines: str, initrd: bytes = DRACUT, release: str = KVER) -> bytes:
    """Return a UKI that is not signed, with a profile for each further command line."""
    sections = [
        (b".osrel", b"ID=test\nPRETTY_NAME=Test\n"),
        (b".uname", release.encode()),
        (b".cmdline", lines[0].encode()),
        (b".linux", b"kernel" * 100),
        (b".initrd", initrd),
    ]
    for line in lines[1:]:
        sections += [(b".profile", b"ID=other\n"), (b".cmdline", line.encode())]
    return pe.signable(*sections)


def addon(line: str) -> bytes:
    return pe.signable((b".cmdline", line.encode()))


def whole_seconds(root: Root) -> Root:
    """Give all files the times that they have in a layer."""
    for home, _, files in os.walk(root.path, topdown=False):
        for name in (*files, "."):
            os.utime(os.path.join(home, name), (0, 1_700_000_000), follow_symlinks=False)
    for link in ("ostree",):
        os.utime(root.path / link, (0, 1_700_000_000), follow_symlinks=False)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """Return a sealed image without a fault."""
    root = base(tmp_path / "root").directory(MODULES)
    root.file(UKI, pe.signed(uki(f"rw quiet lockdown=integrity {STRICT}")))
    root.file(LOADER, PROGRAM).file(f"{LOADER}.signed", pe.signed(PROGRAM))
    root.file("usr/lib/bootc/kargs.d/1.toml", 'kargs = ["quiet", "lockdown=integrity"]')
    return whole_seconds(root)


def test_an_image_without_a_fault(root: Root) -> None:
    assert [root.found(one) for one in EVERY] == [None] * len(EVERY)


@pytest.mark.parametrize("one", EVERY, ids=lambda one: one.__name__)
@pytest.mark.parametrize(
    "kernel",
    [
        b"",
        b"MZ",
        os.urandom(500),
        pe.signable((b".cmdline", b"\xff\xfe")),
        pe.signable((b".cmdline", f"{STRICT} {OPTIONAL}".encode())),
        uki(f"rw {OPTIONAL}"),
        uki("rw"),
    ],
)
def test_what_is_not_sealed_is_no_business_of_these_lints(
    root: Root, one: Lint, kernel: bytes
) -> None:
    root.file(UKI, kernel).file(f"{MODULES}/vmlinuz").file("usr/.wh.x").file(ADDON, b"\0")
    assert root.found(one) is None


@pytest.mark.parametrize("one", EVERY, ids=lambda one: one.__name__)
def test_images_without_a_uki_and_with_two(tmp_path: Path, root: Root, one: Lint) -> None:
    assert bootable(tmp_path / "bare").found(one) is None
    assert base(tmp_path / "none").found(one) is None
    (tmp_path / "odd").mkdir()
    assert Root(tmp_path / "odd").file("boot", b"").file("usr/lib/modules").found(one) is None
    root.file("boot/EFI/Linux/second.efi", uki(STRICT))
    assert root.found(one) is None


def test_arguments_that_nobody_signed(root: Root) -> None:
    root.file("usr/lib/bootc/kargs.d/2.toml", 'kargs = [\'a="b c"\', "x"]')
    root.file("usr/lib/bootc/kargs.d/3.toml", 'kargs = ["y"]\nmatch-architectures = ["none"]')
    header = (
        "Found kernel arguments in /usr/lib/bootc/kargs.d that the command line of the unified "
        "kernel image lacks, so no machine gets them; build it again with bootc container ukify "
        "or seal:\n"
    )
    found = root.found(sealed.kargs)
    assert found is not None
    assert found.startswith(header)
    assert found.endswith("\n  x\n")
    assert found.count("\n") == 3
    # An add-on may bring them, because somebody chose that.
    root.file(ADDON, addon('a="b c" x'))
    assert root.found(sealed.kargs) is None
    root.file(ADDON, b"no program")
    assert root.found(sealed.kargs) == found
    root.file("usr/lib/bootc/kargs.d/2.toml", "kargs = 1")
    assert root.found(sealed.kargs) is None


def test_one_profile_lacks_an_argument(root: Root) -> None:
    lines = (f"quiet lockdown=integrity {STRICT}", f"quiet {STRICT}")
    root.file(UKI, uki(*lines))
    assert (root.found(sealed.kargs) or "").endswith(":\n  lockdown=integrity\n")
    assert root.found(sealed.lockdown) == NO_LOCKDOWN


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ("", False),
        ("lockdown", False),
        ("lockdown=1", False),
        ("xlockdown=integrity", False),
        ("lockdown=confidentiality", True),
        ('lockdown="integrity"', True),
        ("lockdown=none", True),
    ],
)
def test_lockdown(root: Root, arguments: str, right: bool) -> None:
    root.file(UKI, uki(f"{arguments} {STRICT}"))
    assert root.found(sealed.lockdown) == (None if right else NO_LOCKDOWN)


@pytest.mark.parametrize(
    ("config", "right"),
    [
        ("CONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT=y\n", True),
        ("# x\nCONFIG_LOCK_DOWN_KERNEL_FORCE_INTEGRITY=y\n", True),
        ("# CONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT is not set\n", False),
        ("", False),
        (b"\xff" * 99, False),
        (b"CONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT=y\n" + bytes(4 << 20), False),
    ],
)
@pytest.mark.parametrize("place", [f"{MODULES}/config", f"boot/config-{KVER}"])
def test_a_kernel_that_locks_itself_down(
    root: Root, place: str, config: str | bytes, right: bool
) -> None:
    """Kernels of Debian and Fedora do it if Secure Boot is on, so that nothing is missing."""
    root.file(UKI, uki(STRICT)).file(place, config)
    assert root.found(sealed.lockdown) == (None if right else NO_LOCKDOWN)
    root.file(UKI, uki(STRICT, release="6.1-another"))
    assert root.found(sealed.lockdown) == NO_LOCKDOWN


@pytest.mark.parametrize(
    ("arguments", "initrd", "right"),
    [
        ("", DEBIAN, False),
        ("panic", DEBIAN, False),
        ("panic=", DEBIAN, False),
        ("panic=30 panic=", DEBIAN, False),
        ("panic=30", DEBIAN, True),
        ("panic=0", DEBIAN, True),
        ("panic=-1", DEBIAN, True),
        ("", DRACUT, True),
        ("", initramfs.named(["init", "scripts/functions"]), True),
        ("", b"", True),
        ("", b"no initramfs" * 99, True),
        ("", DEBIAN[:150], True),
        ("", initramfs.named(["kernel/x86/microcode/x.bin"]) + DEBIAN, False),
    ],
)
def test_a_shell_if_the_boot_fails(root: Root, arguments: str, initrd: bytes, right: bool) -> None:
    root.file(UKI, uki(f"{arguments} {STRICT}", initrd=initrd))
    assert root.found(sealed.panic) == (None if right else NO_PANIC)


def test_a_uki_without_kernel_and_initramfs(root: Root) -> None:
    root.file(UKI, pe.signable((b".cmdline", STRICT.encode())))
    assert root.found(sealed.panic) is None
    assert root.found(sealed.lockdown) == NO_LOCKDOWN


def test_kernels_beside_the_uki(root: Root) -> None:
    root.file(f"{MODULES}/vmlinuz").file("usr/lib/modules/a b\udcff/vmlinuz")
    root.file("usr/lib/modules/9/vmlinuz.old")
    assert root.found(sealed.raw_kernel) == (
        "Found kernels beside the unified kernel image, which other programs may boot without the "
        "seal; remove them from the image:\n"
        f"  {MODULES}/vmlinuz\n"
        "  $'usr/lib/modules/a b\\xff/vmlinuz'\n"
    )


UNSIGNED = (
    "Found EFI programs without a signature, which firmware with Secure Boot does not start; "
    "sign them:\n"
)


def test_programs_without_a_signature(root: Root) -> None:
    root.file(UKI, uki(f"rw {STRICT}")).file(ADDON, addon("a"))
    root.file("boot/loader/addons/all.addon.efi", b"no program")
    root.file("usr/lib/systemd/boot/efi/systemd-bootaa64.efi", PROGRAM)
    root.file("usr/lib/systemd/boot/efi/linuxx64.efi.stub", PROGRAM)
    assert root.found(sealed.signatures) == UNSIGNED + (
        "  usr/lib/systemd/boot/efi/systemd-bootaa64.efi\n"
        f"  {UKI}\n  more.addon.efi\n  boot/loader/addons/all.addon.efi\n"
    )
    root.remove(f"{LOADER}.signed").file(f"{LOADER}.signed/file")
    assert LOADER not in (root.found(sealed.signatures) or "")


def test_an_unsigned_loader_before_a_signed_uki_without_a_seal(root: Root) -> None:
    root.remove(f"{LOADER}.signed")
    for line in (f"rw {OPTIONAL}", f"rw {STRICT}"):
        root.file(UKI, pe.signed(uki(line)))
        assert root.found(sealed.signatures) == f"{UNSIGNED}  {LOADER}\n"


def large(root: Root, mib: int) -> Root:
    """Make the UKI so large, without data."""
    os.truncate(root.path / UKI, mib << 20)
    return root


def test_the_esp(root: Root) -> None:
    assert large(root, 511).found(sealed.esp_size) is None
    found = large(root, 512).found(sealed.esp_size)
    assert found == (
        "Two deployments take 1.0 GiB, and the EFI system partition of an installation on disks "
        "below 16.0 GiB has 1.0 GiB: updates will fail; make the initramfs smaller, or set "
        "esp-size in the table [install] of /usr/lib/bootc/install/*.toml"
    )
    found = large(root, 1100).found(sealed.esp_size)
    assert found is not None
    assert "of an installation has 1.0 GiB" in found


@pytest.mark.parametrize(
    ("name", "text", "right"),
    [
        ("usr/lib/bootc/install/1.toml", '[install]\nesp-size = "2G"', True),
        ("etc/bootc/install/1.toml", '[install]\nesp-size = "1500M"', True),
        ("usr/lib/bootc/install/1.toml", '[install]\nesp-size = "512M"', False),
        ("usr/lib/bootc/install/1.toml", "[install]\nesp-size = 2", False),
        ("usr/lib/bootc/install/1.toml", "install = 3", False),
        ("usr/lib/bootc/install/1.toml", '[install]\nesp-size = "2X"', False),
        ("usr/lib/bootc/install/1.toml", b"\xff", False),
        ("usr/lib/bootc/install/1.toml", "x=" + "[" * 50_000, False),
        ("usr/lib/bootc/install/1.conf", '[install]\nesp-size = "2G"', False),
    ],
)
def test_the_size_that_the_image_asks_for(
    root: Root, name: str, text: str | bytes, right: bool
) -> None:
    large(root, 600).file(name, text)
    assert (root.found(sealed.esp_size) is None) == right


def test_a_later_directory_replaces_a_configuration(root: Root) -> None:
    large(root, 600).file("usr/lib/bootc/install/1.toml", '[install]\nesp-size = "4G"')
    assert root.found(sealed.esp_size) is None
    root.link("etc/bootc/install/1.toml", "/dev/null")
    assert root.found(sealed.esp_size) is not None


def test_times_that_no_layer_has(root: Root) -> None:
    for path, ns in (("usr/lib/os-release", 5), ("etc", 7), ("run", 9), ("ostree", 6)):
        when = 1_700_000_000_000_000_000 + ns
        os.utime(root.path / path, ns=(0, when), follow_symlinks=False)
    root.directory("boot/EFI/new")
    os.utime(root.path / "boot", (0, 0))
    assert root.found(sealed.layers) == (
        "Found times with fractions of a second. podman, buildah and docker write whole seconds "
        "into layers, and the image gets another digest; compute the digest from the finished "
        "image, or set whole seconds:\n"
        "  /etc\n  /ostree\n  /usr/lib/os-release\n"
    )


def test_names_and_files_that_no_layer_has(root: Root) -> None:
    root.file("usr/.wh.gone").file("usr/lib/.wh..wh..opq").file("boot/.wh.boot")
    root.file("usr/wh.fine").file("usr/x.wh.")
    with socket.socket(socket.AF_UNIX) as made:
        here = os.getcwd()
        os.chdir(root.path / "usr")  # The path of a socket must be short.
        try:
            made.bind("socket\n")
        finally:
            os.chdir(here)
    whole_seconds(root)
    assert root.found(sealed.layers) == (
        "Found names and files that a layer cannot carry, so the image gets another digest; "
        "remove them:\n"
        "  /usr/.wh.gone (the name removes another file)\n"
        "  /usr/lib/.wh..wh..opq (the name removes another file)\n"
        "  $'/usr/socket\\x0a' (a socket)\n"
    )


def test_in_the_order_of_the_table(root: Root) -> None:
    """The lints run with the others, and none of them stops the build."""
    root.file(UKI, uki(STRICT)).file(f"{MODULES}/vmlinuz")
    texts: list[str] = []
    with ImageRoot.open(os.fspath(root.path)) as opened:
        counts = lint(opened, lambda one, found: texts.append(finding_text(one, found)))
    names = [text.split(": ")[1] for text in texts if ": pybootc-seal-" in text]
    assert names == [
        *("pybootc-seal-kargs", "pybootc-seal-kernel", "pybootc-seal-layers"),
        *("pybootc-seal-lockdown", "pybootc-seal-signatures"),
    ]
    assert counts.fatal == 0
    assert {one.name for one in LINTS if one.name.startswith("pybootc-seal-")} == {
        *names,
        "pybootc-seal-panic",
    }
