from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootc.formats.cmdline import composefs_karg
from bootc.formats.dumpfile import write_dumpfile
from bootc.fs.dir import Dir
from bootc.lint import sealing
from bootc.oci.local import directory_tree
from bootc.oci.mismatch import Mismatch
from bootc.oci.names import XattrMode
from bootc.oci.trees import image_id_of
from support.pe import program
from support.roots import Root, base

UKI = "boot/EFI/Linux/test.efi"
OTHER = "ef" * 64
MADE = 4_000_000_000
UNKNOWN = f"The reason:\n  {Mismatch().text}\n"
WRONG = "Found no image of this tree that the unified kernel image names:\n"


@pytest.fixture
def root(tmp_path: Path) -> Root:
    root = (
        base(tmp_path / "root")
        .directory("boot/EFI/Linux")
        .file("usr/program", b"too long for the image itself" * 9)
    )
    os.utime(root.path / "boot", (0, 0))
    try:
        os.setxattr(root.path / "usr/program", "user.mark", b"kept")
    except OSError:
        pytest.skip(f"{tmp_path} has no extended attributes")
    return root


def digest(root: Root, version: int, xattrs: XattrMode = XattrMode.ALLOWLIST_ONLY) -> str:
    with Dir.open(root.path) as directory:
        return image_id_of(directory_tree(directory, xattrs=xattrs).root, version=version).hex


def seal(root: Root, *arguments: str) -> None:
    """Put a unified kernel image into ``/boot``, which no id depends on."""
    root.file(UKI, program((b".cmdline", " ".join(["rw", *arguments]).encode())))
    os.utime(root.path / UKI, (0, MADE))
    # As in a layer, where times are whole seconds: an id keeps the fraction.
    os.utime(root.path / "boot", (0, 0))


def test_every_kind_of_image_is_found(root: Root) -> None:
    v1, v2 = digest(root, 1), digest(root, 2)
    user = digest(root, 2, XattrMode.KEEP_USER_XATTRS)
    assert len({v1, v2, user}) == 3
    named = composefs_karg(v1, optional=False, version="v1")
    for arguments in (
        [f"composefs={v1}"],
        [named, f"composefs={v2}"],
        [f"composefs={v2}", named],
        [f"composefs=?{user}"],
        [named, f"composefs={user}"],
        [],
    ):
        seal(root, *arguments)
        assert root.found(sealing.uki_digests) is None


def test_a_digest_of_another_tree_is_named(root: Root) -> None:
    v1, v2 = digest(root, 1), digest(root, 2)
    seal(root, f"composefs.digest=v1-sha512-12:{v1}", f"composefs={OTHER}")
    assert root.found(sealing.uki_digests) == f"{WRONG}  composefs={OTHER}\n{UNKNOWN}"
    both = [f"composefs.digest=?v1-sha512-12:{v1}", f"composefs=?{v2}"]
    seal(root, *both)
    root.file("usr/later\n", b"changed after the kernel image was made")
    root.file("usr/old", b"older")
    os.utime(root.path / "usr/later\n", (0, MADE + 1))
    os.utime(root.path / "usr/old", (0, MADE))
    root.link("usr/link", "later")
    os.utime(root.path / "usr/link", (0, MADE + 2), follow_symlinks=False)
    assert root.found(sealing.uki_digests) == (
        WRONG
        + "".join(f"  {one}\n" for one in both)
        + UNKNOWN
        + "Files that are newer than the unified kernel image:\n"
        "  /usr/link\n"
        "  $'/usr/later\\x0a'\n"
    )


def test_a_digest_of_whole_seconds(root: Root) -> None:
    """The builder measured the layers, and the tree on the disk has more."""
    times = {path: path.lstat().st_mtime_ns for path in root.path.rglob("*")}
    for path, when in times.items():
        os.utime(path, ns=(0, when // 10**9 * 10**9), follow_symlinks=False)
    measured = digest(root, 1)
    for path, when in times.items():
        os.utime(path, ns=(0, when // 10**9 * 10**9 + 5), follow_symlinks=False)
    root.file(UKI, program((b".cmdline", f"rw composefs={measured}".encode())))
    os.utime(root.path / "boot", ns=(0, 5))
    os.utime(root.path / UKI, (0, 1 << 40))
    found = root.found(sealing.uki_digests)
    assert found is not None
    assert found.startswith(f"{WRONG}  composefs={measured}\nThe reason:\n")
    assert "equal when modification times are cut to whole seconds: " in found
    assert "newer" not in found


def test_the_dumpfile_of_the_build_tells(root: Root) -> None:
    with Dir.open(root.path) as directory:
        measured = directory_tree(directory).root.copy()
    expected = image_id_of(measured, version=1).hex
    root.file("boot/EFI/Linux/test.efi", b"").file("usr/program", b"another")
    root.file("boot/test.dump", b"".join(write_dumpfile(measured)))
    seal(root, f"composefs={expected}")
    found = root.found(sealing.uki_digests)
    assert found is not None
    assert "the digest is that of the tree in boot/test.dump; " in found
    assert "/usr/program" in found


@pytest.mark.parametrize("data", [b"", b"MZ", program((b".cmdline", b"composefs=x"))])
def test_what_other_lints_report(root: Root, data: bytes) -> None:
    root.file(UKI, data)
    assert root.found(sealing.uki_digests) is None
    root.file("boot/EFI/Linux/second.efi", data)
    assert root.found(sealing.uki_digests) is None
