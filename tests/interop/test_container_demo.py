"""The steps of a public Containerfile, on the root of the demo image as umoci unpacks it."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from bootc.cli.main import main
from support import require

pytestmark = pytest.mark.interop

DEMO = Path(os.environ.get("BOOTC_DEMO_IMAGE", Path(__file__).parents[2] / "build/demo"))

Run = Callable[..., str]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require.root()
    if not (DEMO / "oci/index.json").exists():
        require.lacking(f"there is no demo image in {DEMO} (make demo builds it)")
    path = tmp_path_factory.mktemp("demo") / "root"
    umoci = [require.tool("umoci"), "raw", "unpack", "--image", f"{DEMO}/oci:v1", path]
    subprocess.run(umoci, check=True, capture_output=True)
    return path


@pytest.fixture
def root(unpacked: Path, tmp_path: Path) -> Path:
    """A root of links to the files of the other: change none of them in place."""
    path = tmp_path / "root"
    subprocess.run(["cp", "-al", unpacked, path], check=True)
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(verb: str, *arguments: object) -> str:
        assert main(["container", verb, *map(str, arguments)]) == 0
        return capsys.readouterr().out

    return run


def test_all_lints_pass(run: Run, unpacked: Path) -> None:
    out = run("lint", "--rootfs", unpacked, "--fatal-warnings")
    assert out == "Checks passed: 13\nChecks skipped: 1\n"


def test_what_the_clean_up_of_a_build_forgets(run: Run, root: Path) -> None:
    kver = next((root / "usr/lib/modules").iterdir()).name
    (root / "var/log/dpkg.log").write_text("2026-01-01 install\n")
    (root / f"boot/vmlinuz-{kver}").write_text("kernel")
    (root / "run/lock").mkdir()
    (root / "etc/machine-id").unlink(missing_ok=True)
    (root / "etc/machine-id").write_text("0123456789abcdef" * 2 + "\n")
    (root / "bin").unlink()
    (root / "bin").mkdir()
    (root / "bin/tool").touch()
    initramfs = root / f"usr/lib/modules/{kver}/initramfs.img"
    names = zstandard.ZstdDecompressor().decompressobj().decompress(initramfs.read_bytes())
    initramfs.unlink()
    initramfs.write_bytes(names.replace(b"bootc/initramfs-setup\0", b"bootc/initramfs-other\0"))
    out = run("lint", "--rootfs", root)
    assert [line.split(":")[1].strip() for line in out.splitlines() if ": " in line][:6] == [
        "nonempty-boot",
        "nonempty-run-tmp",
        "var-log",
        "pybootc-initramfs",
        "pybootc-machine-id",
        "pybootc-usr-merge",
    ]
    assert out.endswith(
        "Checks passed: 10\nChecks skipped: 1\nWarnings: 3\nWarnings of pybootc: 3\n"
    )


def test_a_sealed_build(run: Run, root: Path, tmp_path: Path) -> None:
    found = json.loads(run("inspect", "--rootfs", root, "--json"))
    kver = found["kernel"]["version"]
    assert found == {
        "kargs": ["console=tty0", "console=ttyS0,115200"],
        "kernel": {"version": kver, "unified": False},
    }
    kernel = (root / f"usr/lib/modules/{kver}/vmlinuz").read_bytes()
    run("split-kernel-and-rootfs", "--rootfs", root, "--output", tmp_path / "kernel")
    assert (tmp_path / f"kernel/{kver}/vmlinuz").read_bytes() == kernel
    assert json.loads(run("inspect", "--rootfs", root, "--json"))["kernel"] is None
    assert run("lint", "--rootfs", root, "--fatal-warnings").startswith("Checks passed: 13\n")


def test_an_archive_has_the_id_of_the_image(run: Run, unpacked: Path, tmp_path: Path) -> None:
    archive, again = tmp_path / "root.tar", tmp_path / "again"
    run("export", "--kernel-in-boot", "-o", archive, unpacked)
    with tarfile.open(archive) as opened:
        assert [name for name in opened.getnames() if name.startswith("boot/vmlinuz-")]
    again.mkdir()
    tar = [require.tool("tar"), "--xattrs", "--xattrs-include=*", "--numeric-owner", "-p", "-x"]
    subprocess.run([*tar, "-C", again, "-f", archive], check=True)
    # What is in /boot is emptied at installation.
    expected = run("compute-composefs-digest", unpacked)
    os.utime(again / "boot", ns=(0, (unpacked / "boot").stat().st_mtime_ns))
    assert run("compute-composefs-digest", again) == expected
