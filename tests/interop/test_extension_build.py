"""The extensions compile without a warning, and where they cannot, the install goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from support import require

pytestmark = pytest.mark.interop

TOP = Path(__file__).parents[2]
SOURCE = TOP / "src/bootc/formats/_verity.c"
#: What the source is on another processor. The headers are read first: they cannot be.
FOREIGN = f"""
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <string.h>
#undef __x86_64__
#include "{SOURCE}"
"""
#: Load a module that is not where its name says.
LOAD = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("_verity", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(module.KERNEL)
try:
    module.sha512_blocks(b"", 4096)
except RuntimeError as exc:
    print(exc)
"""


def compile_extension(source: Path, target: Path) -> None:
    include = sysconfig.get_path("include")
    if not Path(include, "Python.h").exists():
        require.lacking(f"no Python.h in {include}")
    flags = ["-O2", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion"]
    done = subprocess.run(
        [require.tool("cc"), *flags, "-shared", "-fPIC", f"-I{include}", source, "-o", target],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("source", sorted(TOP.glob("src/**/*.c")), ids=lambda path: path.stem)
def test_no_warnings(source: Path, tmp_path: Path) -> None:
    compile_extension(source, tmp_path / f"{source.stem}.so")


def test_another_processor_has_no_kernel(tmp_path: Path) -> None:
    source = tmp_path / "foreign.c"
    source.write_text(FOREIGN)
    compile_extension(source, tmp_path / "_verity.so")
    out = subprocess.run(
        [sys.executable, "-c", LOAD, tmp_path / "_verity.so"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.splitlines() == ["None", "the extension has no kernel for this processor"]


@pytest.mark.parametrize(
    ("compiler", "built"), [(None, ["_store.abi3.so", "_verity.abi3.so"]), ("false", [])]
)
def test_a_compiler_is_optional(tmp_path: Path, compiler: str | None, built: list[str]) -> None:
    if compiler is None:
        compiler = require.tool("cc")
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "setup.py", "-q", "build_ext"),
            *("--build-lib", tmp_path, "--build-temp", tmp_path / "temp"),
        ],
        cwd=TOP,
        env=os.environ | {"CC": compiler},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "bootc").rglob("*.so")) == built
