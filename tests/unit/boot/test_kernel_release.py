"""Which kernels can mount an image: the one that installs, and the one in the image."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from bootc.boot.image_kernel import Kernel, UkiFile, find_boot_resource
from bootc.boot.kernel_release import (
    KernelTooOld,
    check_image_kernel,
    check_release,
    check_running_kernel,
    stated_releases,
)
from bootc.errors import one_line
from bootc.formats.tree import Directory, Inline, Leaf, Stat
from support.kernels import bzimage
from support.objectdir import ObjectDirectory
from support.pe import UKI_SECTIONS, program

HAS = b"CONFIG_EROFS_FS=m\nCONFIG_EROFS_FS_BACKED_BY_FILE=y\n"
HAS_NOT = b"CONFIG_EROFS_FS=y\n# CONFIG_EROFS_FS_BACKED_BY_FILE is not set\n"
NO_EROFS = b"CONFIG_EXT4_FS=y\n# CONFIG_EROFS_FS is not set\n"
SILENT = b"CONFIG_EROFS_FS=m\n"


@pytest.mark.parametrize(
    ("release", "config", "can"),
    [
        ("6.12.0", None, True),
        ("6.12.48+deb13-amd64", None, True),
        ("6.12.0-55.9.1.el10_0.x86_64", None, True),  # RHEL 10
        ("6.100.1", None, True),
        ("7.0", None, True),
        ("10.1-rc1", None, True),
        ("6.11.11", None, False),
        ("6.1.0-41-amd64", None, False),  # Debian 12
        ("6.8.0-90-generic", None, False),  # Ubuntu 24.04
        ("5.14.0-570.el9.x86_64", None, False),  # RHEL 9
        # The configuration knows better than the version.
        ("5.14.0-999.el9.x86_64", HAS, True),
        ("6.18.1", HAS, True),
        ("6.18.1", HAS_NOT, False),
        ("6.18.1", NO_EROFS, False),
        ("6.18.1", SILENT, True),
        ("6.1.0", SILENT, False),
        ("6.1.0", b"", False),
        # Nobody can tell.
        ("custom", None, True),
        ("", None, True),
        ("custom", HAS_NOT, False),
    ],
)
def test_what_a_kernel_can(release: str, config: bytes | None, can: bool) -> None:
    if can:
        check_release(release, config, whose="the kernel")
        return
    with pytest.raises(KernelTooOld, match=f"^the kernel {release}") as caught:
        check_release(release, config, whose="the kernel")
    assert caught.value.hint is not None


def test_the_messages() -> None:
    with pytest.raises(KernelTooOld) as caught:
        check_release("6.1.0", None, whose="the running kernel")
    assert one_line(caught.value) == (
        "the running kernel 6.1.0 cannot mount an EROFS image from a file "
        "(hint: use Linux 6.12 or later, or one whose configuration has "
        "CONFIG_EROFS_FS_BACKED_BY_FILE (usr/lib/modules/<version>/config))"
    )
    with pytest.raises(KernelTooOld, match=r"^the kernel '6\.1\\x1b\[2J' cannot"):
        check_release("6.1\x1b[2J", None, whose="the kernel")
    with pytest.raises(KernelTooOld) as caught:
        check_release("6.13.0", HAS_NOT, whose="the image's kernel")
    assert caught.value.message == (
        "the image's kernel 6.13.0 is built without CONFIG_EROFS_FS_BACKED_BY_FILE, "
        "and cannot mount an EROFS image"
    )


@pytest.mark.parametrize(
    ("place", "compressed"),
    [
        ("lib/modules/6.1.0/config", False),
        ("boot/config-6.1.0", False),
        ("proc/config.gz", True),
    ],
)
def test_the_running_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, compressed: bool
) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release="6.1.0"))
    with pytest.raises(KernelTooOld, match=r"^the running kernel 6\.1\.0 cannot"):
        check_running_kernel(root=str(tmp_path))
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(HAS) if compressed else HAS)
    check_running_kernel(root=str(tmp_path))
    path.write_bytes(gzip.compress(HAS_NOT) if compressed else HAS_NOT)
    with pytest.raises(KernelTooOld, match="is built without"):
        check_running_kernel(root=str(tmp_path))
    if compressed:
        path.write_bytes(b"damaged")
        with pytest.raises(KernelTooOld, match="cannot mount an EROFS image from a file"):
            check_running_kernel(root=str(tmp_path))


def tree(**files: bytes) -> Directory:
    root = Directory()
    for path, data in files.items():
        *above, name = path.encode().split(b"/")
        directory = root
        for component in above:
            below = directory.entries.setdefault(component, Directory())
            assert isinstance(below, Directory)
            directory = below
        directory.entries[name] = Leaf(Stat(), Inline(data))
    return root


def refused(root: Directory, objects: ObjectDirectory) -> str | None:
    try:
        check_image_kernel(find_boot_resource(root), root, objects)
    except KernelTooOld as exc:
        return exc.message
    return None


def image(release: str, **more: bytes) -> Directory:
    modules = f"usr/lib/modules/{release}"
    return tree(**{f"{modules}/vmlinuz": b"", f"{modules}/initramfs.img": b"", **more})


def test_the_kernel_of_an_image(objects: ObjectDirectory) -> None:
    old = "the image's kernel 6.1.0 cannot mount an EROFS image from a file"
    assert isinstance(find_boot_resource(image("6.1.0")), Kernel)
    assert refused(image("6.12.1"), objects) is None
    assert refused(image("6.1.0"), objects) == old
    for path in ("usr/lib/modules/6.1.0/config", "boot/config-6.1.0"):
        assert refused(image("6.1.0", **{path: HAS}), objects) is None
        assert refused(image("6.1.0", **{path: SILENT}), objects) == old
    with_config = image("6.13.0", **{"usr/lib/modules/6.13.0/config": HAS_NOT})
    assert "is built without" in (refused(with_config, objects) or "")
    # Of another kernel.
    assert refused(image("6.1.0", **{"boot/config-6.1.1": HAS}), objects) == old


def uki(*releases: str) -> bytes:
    return program(*UKI_SECTIONS, *((b".uname", release.encode()) for release in releases))


@pytest.mark.parametrize(
    ("path", "releases", "modules", "old"),
    [
        ("boot/EFI/Linux/os.efi", ["6.12.1"], ["6.1.0"], None),
        ("boot/EFI/Linux/os.efi", ["6.1.0\n\0"], ["6.12.1"], "6.1.0"),
        # A profile may have a kernel of its own.
        ("boot/EFI/Linux/os.efi", ["6.12.1", "6.1.0"], [], "6.1.0"),
        # It does not say.
        ("boot/EFI/Linux/os.efi", [], ["6.1.0"], "6.1.0"),
        ("boot/EFI/Linux/os.efi", [], ["6.1.0", "6.12.0"], None),
        ("boot/EFI/Linux/os.efi", [], [], None),
        ("usr/lib/modules/6.1.0/os.efi", [], [], "6.1.0"),
    ],
)
def test_the_kernel_of_a_unified_image(
    objects: ObjectDirectory, path: str, releases: list[str], modules: list[str], old: str | None
) -> None:
    files = {f"usr/lib/modules/{release}/modules.dep": b"" for release in modules}
    root = tree(**{path: uki(*releases), **files})
    assert isinstance(find_boot_resource(root), UkiFile)
    found = refused(root, objects)
    assert found == (old and f"the image's kernel {old} cannot mount an EROFS image from a file")


@pytest.mark.parametrize(("release", "old"), [("6.1.0", "6.1.0"), ("6.12.1", None)])
def test_a_unified_image_whose_kernel_alone_states_its_release(
    objects: ObjectDirectory, release: str, old: str | None
) -> None:
    root = tree(
        **{
            "boot/EFI/Linux/os.efi": program((b".linux", bzimage(release))),
            "usr/lib/modules/6.10.0/modules.dep": b"",
        }
    )
    found = refused(root, objects)
    assert found == (old and f"the image's kernel {old} cannot mount an EROFS image from a file")


@pytest.mark.parametrize(
    ("data", "unified", "stated"),
    [
        (bzimage("6.12.1"), False, ["6.12.1"]),
        (b"MZ arm64", False, []),
        (uki("6.12.1\n\0", "6.13.0"), True, ["6.12.1", "6.13.0"]),
        (uki(), True, []),
        # The section counts more than the kernel.
        (program((b".linux", bzimage("6.1.0")), (b".uname", b"6.12.1")), True, ["6.12.1"]),
    ],
)
def test_what_a_kernel_states(data: bytes, unified: bool, stated: list[str]) -> None:
    assert stated_releases(io.BytesIO(data), unified=unified) == stated


def test_a_unified_image_that_cannot_be_read_is_for_others_to_refuse(
    objects: ObjectDirectory,
) -> None:
    assert refused(tree(**{"boot/EFI/Linux/os.efi": b"MZ"}), objects) is None
