"""A kernel that is moved is never half gone."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bootc.boot.split import NotSplit, split_kernel
from bootc.errors import one_line
from bootc.fs.dir import Dir
from bootc.fs.imageroot import ImageRoot
from support import failing
from support.roots import Root

KVER = "6.12.0-100.fc41.x86_64"
MODULES = f"usr/lib/modules/{KVER}"
#: Longer than one piece of a copy.
KERNEL = b"kernel" * 400_000
FILES = {"vmlinuz": KERNEL, "initramfs.img": b"initramfs", ".vmlinuz.hmac": b"hmac"}
STAY = {"config": b"config", "modules.dep": b"modules.dep"}


@pytest.fixture
def root(tmp_path: Path) -> Root:
    root = Root(tmp_path / "root")
    for name, content in (FILES | STAY).items():
        root.file(f"{MODULES}/{name}", content)
    return root


@pytest.fixture
def output(tmp_path: Path) -> Path:
    path = tmp_path / "output"
    path.mkdir()
    return path


def split(root: Root, output: Path) -> str:
    with ImageRoot.open(os.fspath(root.path)) as image, Dir.open(output) as directory:
        return split_kernel(image, directory)


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_all_files_of_the_kernel_move_and_no_others(root: Root, output: Path) -> None:
    os.utime(root.path / MODULES / "vmlinuz", ns=(1, 1_600_000_000_123_456_789))
    (root.path / MODULES / "initramfs.img").chmod(0o600)
    assert split(root, output) == KVER
    assert content(root.path / MODULES) == STAY
    assert content(output / KVER) == FILES
    assert (output / KVER / "vmlinuz").stat().st_mtime_ns == 1_600_000_000_123_456_789
    assert (output / KVER / "initramfs.img").stat().st_mode & 0o7777 == 0o600


def test_an_output_inside_the_image(root: Root) -> None:
    root.directory("kernel")
    split(root, root.path / "kernel")
    assert content(root.path / "kernel" / KVER) == FILES


def test_without_a_checksum(root: Root, output: Path) -> None:
    root.remove(f"{MODULES}/.vmlinuz.hmac")
    split(root, output)
    assert sorted(content(output / KVER)) == ["initramfs.img", "vmlinuz"]


def test_what_was_there_is_replaced(root: Root, output: Path) -> None:
    (output / KVER).mkdir()
    (output / KVER / "vmlinuz").write_bytes(b"old")
    split(root, output)
    assert content(output / KVER) == FILES


def no_initramfs(root: Root) -> None:
    root.remove(f"{MODULES}/initramfs.img")


def kernel_behind_a_link(root: Root) -> None:
    root.remove(f"{MODULES}/vmlinuz").file("boot/k").link(f"{MODULES}/vmlinuz", "/boot/k")


def initramfs_is_a_directory(root: Root) -> None:
    root.remove(f"{MODULES}/initramfs.img").directory(f"{MODULES}/initramfs.img")


def unified(root: Root) -> None:
    root.file("boot/EFI/Linux/x.efi")


def no_kernel(root: Root) -> None:
    root.remove(f"{MODULES}/vmlinuz")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_initramfs, f"kernel {KVER} has no initramfs.img"),
        (kernel_behind_a_link, f"{MODULES}/vmlinuz is not a regular file"),
        (initramfs_is_a_directory, f"{MODULES}/initramfs.img is not a regular file"),
        (
            unified,
            "UKIs are not supported "
            "(hint: boot/EFI/Linux/x.efi is a UKI; split before you build it)",
        ),
        (no_kernel, "No kernel found in rootfs"),
    ],
)
def test_refusals_touch_nothing(root: Root, output: Path, spoil: object, message: str) -> None:
    spoil(root)  # type: ignore[operator]
    before = sorted(path for path in root.path.rglob("*"))
    with pytest.raises(NotSplit) as caught:
        split(root, output)
    assert one_line(caught.value) == message
    assert sorted(path for path in root.path.rglob("*")) == before
    assert list(output.rglob("*/*")) == []


def check_and_finish(root: Root, output: Path) -> None:
    """Every file is whole somewhere, and running it again ends it."""
    moved = content(output / KVER) if (output / KVER).exists() else {}
    left = content(root.path / MODULES)
    for name, whole in FILES.items():
        assert whole in (moved.get(name), left.get(name))
    if "vmlinuz" in left:
        assert split(root, output) == KVER
    assert content(root.path / MODULES) == STAY
    assert content(output / KVER) == FILES


def test_power_lost_at_any_change(tmp_path: Path) -> None:
    for at in range(1, 100):
        root, output = Root(tmp_path / f"{at}/root"), tmp_path / f"{at}/output"
        for name, whole in (FILES | STAY).items():
            root.file(f"{MODULES}/{name}", whole)
        output.mkdir()
        died = failing.dies(at, lambda root=root, output=output: split(root, output))
        check_and_finish(root, output)
        if not died:
            break
    assert at > 10


def test_a_disk_that_fails_at_any_change(tmp_path: Path) -> None:
    for at in range(1, 100):
        root, output = Root(tmp_path / f"{at}/root"), tmp_path / f"{at}/output"
        for name, whole in (FILES | STAY).items():
            root.file(f"{MODULES}/{name}", whole)
        output.mkdir()
        try:
            with failing.failing(at, errno.ENOSPC) as changes:
                split(root, output)
        except OSError as exc:
            assert exc.errno == errno.ENOSPC  # noqa: PT017
        check_and_finish(root, output)
        if not changes.failed:
            break
    assert at > 10
