"""``bootc container split-kernel-and-rootfs``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from support.roots import KVER, MODULES, base, bootable

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(bootc: Run) -> Run:
    return partial(bootc, "container", "split-kernel-and-rootfs")


def test_a_kernel(run: Run, tmp_path: Path) -> None:
    root = bootable(tmp_path / "root")
    output = tmp_path / "new/output"
    kernel = (root.path / MODULES / "vmlinuz").read_bytes()
    assert run("--rootfs", root.path, "--output", output) == (0, "", "")
    assert sorted(path.name for path in (output / KVER).iterdir()) == ["initramfs.img", "vmlinuz"]
    assert (output / KVER / "vmlinuz").read_bytes() == kernel
    assert run("--rootfs", root.path, "--output", output) == (
        1,
        "",
        "error: No kernel found in rootfs\n",
    )


def test_a_unified_kernel_image(run: Run, tmp_path: Path) -> None:
    root = base(tmp_path / "root").file("boot/EFI/Linux/a b.efi")
    assert run("--rootfs", root.path, "--output", tmp_path / "out") == (
        1,
        "",
        "error: UKIs are not supported "
        "(hint: 'boot/EFI/Linux/a b.efi' is a UKI; split before you build it)\n",
    )


@pytest.mark.parametrize("lacking", ["vmlinuz", "initramfs.img"])
def test_a_refusal_leaves_no_directories(run: Run, tmp_path: Path, lacking: str) -> None:
    root = bootable(tmp_path / "root")
    root.remove(f"{MODULES}/{lacking}")
    output = tmp_path / "new/er/output"
    code, _, err = run("--rootfs", root.path, "--output", output)
    assert (code, "kernel" in err) == (1, True)
    assert not (tmp_path / "new").exists()
    (tmp_path / "new/er").mkdir(parents=True)
    assert run("--rootfs", root.path, "--output", output)[0] == 1
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new/er"]
    assert list((tmp_path / "new/er").iterdir()) == []


def test_wrong_usage(run: Run, tmp_path: Path) -> None:
    assert run("--rootfs", tmp_path)[0] == 2
    (tmp_path / "file").touch()
    assert run("--rootfs", tmp_path, "--output", tmp_path / "file/x") == (
        1,
        "",
        f"error: Making {tmp_path}/file/x: {tmp_path}/file/x: Not a directory\n",
    )
