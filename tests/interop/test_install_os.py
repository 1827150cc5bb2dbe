"""What is compiled and converted for an OS image, and what is said where that cannot be done."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import require
from support.ctools import CHROOT as SID

pytestmark = pytest.mark.interop

TOP = Path(__file__).parents[2]
PAGES = {page.stem for page in (TOP / "docs/man").glob("*.rst")}
UNITS = {path.name for path in (TOP / "data/systemd").glob("*.*")}
PACKAGE = "usr/lib/python3/dist-packages/bootc"
HASH = f"{PACKAGE}/formats/_verity.abi3.so"
EXTENSIONS = {HASH, f"{PACKAGE}/repository/_store.abi3.so"}
LOAD = """
from bootc.formats import _speed
from bootc.repository import store_batch
print(_speed.EXTENSION, store_batch.store_batch is not store_batch.store_batch_pure)
"""


def install(root: Path, **environment: str) -> list[str]:
    """Install below ``root``, and return what was said of the parts that may be missing."""
    require.tool("cc")
    done = subprocess.run(
        [TOP / "tools/install-os", root],
        env={**os.environ, "PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, *rest = done.stdout.splitlines()
    assert first == f"bootc, its units and its initramfs step: installed in {root}"
    return rest


def extensions(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in (root / PACKAGE).rglob("*.so")}


def pages(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "usr/share/man/man8").glob("*")}


def test_an_empty_root_gets_all(tmp_path: Path) -> None:
    assert install(tmp_path / "a") == [
        "compiled extensions: installed",
        "manual pages: installed",
        "shell completions: installed",
    ]
    systemd = tmp_path / "a/usr/lib/systemd"
    assert {path.name for path in (systemd / "system").iterdir()} == UNITS
    generator = systemd / "system-generators/bootc-systemd-generator"
    assert generator.stat().st_mode & 0o777 == 0o755
    share = tmp_path / "a/usr/share"
    for path in (
        "bash-completion/completions/bootc",
        "zsh/vendor-completions/_bootc",
        "fish/vendor_completions.d/bootc.fish",
    ):
        assert "upgrade" in (share / path).read_text()
    found = pages(tmp_path / "a")
    assert {name.removesuffix(".gz") for name in found} == PAGES
    assert b'.TH "bootc-pin" "8"' in gzip.decompress(found["bootc-pin.8.gz"]).replace(b"\\-", b"-")
    assert extensions(tmp_path / "a") == EXTENSIONS
    extension = tmp_path / "a" / HASH
    assert extension.stat().st_mode & 0o777 == 0o644
    # Another Python than the one it was made by, where there is another.
    packages = extension.parents[2]
    for python in {sys.executable, shutil.which("python3", path="/usr/bin") or sys.executable}:
        done = subprocess.run(
            [python, "-c", LOAD],
            env={"PYTHONPATH": str(packages), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "built True\n"
    program = "import sys; from bootc.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, "internals", "print-json-schema", "--of", "host"],
        env={"PYTHONPATH": str(packages), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        check=True,
    )
    assert done.stdout == (TOP / "src/bootc/cli/schemas/host.json").read_bytes()
    install(tmp_path / "b")
    assert pages(tmp_path / "b") == found
    assert (tmp_path / "b" / HASH).read_bytes() == extension.read_bytes()
    assert str(TOP).encode() not in extension.read_bytes()


def test_without_a_compiler(tmp_path: Path) -> None:
    install(tmp_path)
    extension, manual, _ = install(tmp_path, CC="false")
    assert extension.startswith(
        "compiled extensions: not installed (no C compiler, no Python.h, or "
    )
    assert manual == "manual pages: installed"
    assert extensions(tmp_path) == set()  # nor that of an older source


@pytest.mark.parametrize("module", ["setuptools", "docutils"])
def test_without_what_makes_them(tmp_path: Path, module: str) -> None:
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\ncase "$2" in "import {module}") exit 1;; esac\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    root = tmp_path / "root"
    install(root)
    said = install(root, PYTHON=str(python))
    lacking = {"setuptools": "compiled extensions", "docutils": "manual pages"}
    assert [f"{lacking[module]}: not installed ({python} has no {module})"] == [
        line for line in said if "not installed" in line
    ]
    assert extensions(root) == (EXTENSIONS if module == "docutils" else set())
    assert bool(pages(root)) == (module == "setuptools")


def test_an_image_for_another_processor(tmp_path: Path) -> None:
    header = bytearray(Path(sys.executable).resolve().read_bytes()[:64])
    header[18:20] = b"\xf3\x00"  # RISC-V
    python = tmp_path / "usr/bin/python3"
    python.parent.mkdir(parents=True)
    python.write_bytes(header)
    assert (
        install(tmp_path)[0]
        == "compiled extensions: not installed (the image is for another processor)"
    )
    assert extensions(tmp_path) == set()


@pytest.fixture
def sid(tmp_path: Path) -> Iterator[Path]:
    """Yield a Debian tree with a newer Python, over which can be written."""
    require.root()
    if not (SID / "usr/bin/python3").exists():
        require.lacking(f"{SID} is missing (tools/sid-chroot makes it)")
    for name in ("upper", "work", "root"):
        (tmp_path / name).mkdir()
    layers = f"lowerdir={SID},upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    root = tmp_path / "root"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, root], check=True)
    try:
        yield root
    finally:
        subprocess.run(["umount", root], check=True)


def test_the_python_of_the_image_loads_it(sid: Path) -> None:
    assert install(sid) == [
        "compiled extensions: installed",
        "manual pages: installed",
        "shell completions: installed",
    ]
    argv = ["chroot", sid, "/usr/bin/python3", "-c"]
    loaded = subprocess.run([*argv, LOAD], capture_output=True, text=True, check=True)
    assert loaded.stdout == "built True\n"
    version = "import sys; print(sys.version_info[:2])"
    other = subprocess.run([*argv, version], capture_output=True, text=True, check=True)
    assert other.stdout != f"{sys.version_info[:2]}\n"


def test_what_the_python_of_the_image_cannot_load_is_not_left_there(sid: Path) -> None:
    said = install(sid, CFLAGS="-DPyInit__verity=PyInit_other")
    assert said[0].startswith(
        "compiled extensions: not installed (the image's Python cannot load it: "
    )
    assert "ImportError" in said[0]
    assert extensions(sid) == EXTENSIONS - {HASH}
