"""``bootc container export``: where the archive goes, and what is left when it fails."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from support.roots import KVER, MODULES, Root, base, bootable

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(bootc: Run) -> Run:
    return partial(bootc, "container", "export")


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return bootable(tmp_path / "root")


def names(path: Path) -> set[str]:
    with tarfile.open(path) as archive:
        return set(archive.getnames())


def test_a_file(run: Run, root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out.tar"
    output.write_bytes(b"old")
    assert run("--output", output, root.path) == (0, "", "")
    assert {f"{MODULES}/vmlinuz", "ostree", "boot"} <= names(output)
    monkeypatch.chdir(tmp_path)
    assert run("--format=tar", "-o", "other.tar", "root") == (0, "", "")
    assert (tmp_path / "other.tar").read_bytes() == output.read_bytes()


def test_standard_output(root: Root, run: Run, tmp_path: Path) -> None:
    run("-o", tmp_path / "out.tar", root.path)
    done = subprocess.run(
        [sys.executable, "-m", "bootc", "container", "export", root.path],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        stdout=subprocess.PIPE,
    )
    assert done.stdout == (tmp_path / "out.tar").read_bytes()


def test_a_device(run: Run, root: Root) -> None:
    assert run("-o", "/dev/null", root.path) == (0, "", "")
    if Path("/dev/full").exists():
        code, _, err = run("-o", "/dev/full", root.path)
        assert (code, err) == (1, "error: Writing /dev/full: No space left on device\n")


def test_the_kernel_in_boot(run: Run, root: Root, tmp_path: Path) -> None:
    output = tmp_path / "out.tar"
    assert run("-o", output, "--kernel-in-boot", root.path) == (0, "", "")
    assert {f"boot/vmlinuz-{KVER}", f"boot/initramfs-{KVER}.img"} <= names(output)


@pytest.mark.parametrize("unified", [False, True])
def test_no_kernel_that_could_be_in_boot(run: Run, tmp_path: Path, unified: bool) -> None:
    root = base(tmp_path / "root")
    if unified:
        root.file("boot/EFI/Linux/x.efi")
    run("-o", tmp_path / "a", root.path)
    run("-o", tmp_path / "b", "--kernel-in-boot", root.path)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_failure_leaves_nothing(run: Run, root: Root, tmp_path: Path) -> None:
    root.remove(f"{MODULES}/initramfs.img")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old").write_bytes(b"old")
    for name in ("old", "new"):
        assert run("-o", tmp_path / "out" / name, "--kernel-in-boot", root.path) == (
            1,
            "",
            f"error: {MODULES}/initramfs.img is not a regular file\n",
        )
    assert [path.read_bytes() for path in (tmp_path / "out").iterdir()] == [b"old"]


def test_refusals(run: Run, root: Root, tmp_path: Path) -> None:
    assert run(tmp_path / "no") == (1, "", f"error: {tmp_path}/no: No such file or directory\n")
    assert run("--format=oci", root.path)[0] == 2
    code, _, err = run("-o", tmp_path / "no/out", root.path)
    assert (code, err) == (
        1,
        f"error: Writing {tmp_path}/no/out: {tmp_path}/no: No such file or directory\n",
    )
