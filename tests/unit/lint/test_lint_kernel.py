from __future__ import annotations

from pathlib import Path

import pytest

from bootc.boot.kargs import KargsError
from bootc.boot.unpacked_kernel import SeveralKernels
from bootc.errors import one_line
from bootc.lint.kernel import kargs, kernel
from support.roots import MODULES, Root, base

KARGS_D = "usr/lib/bootc/kargs.d"


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return base(tmp_path / "root")


def test_no_kernel_and_one(root: Root) -> None:
    assert root.found(kernel) is None
    root.file(f"{MODULES}/vmlinuz", "x").file("usr/lib/modules/6.1/modules.dep")
    assert root.found(kernel) is None


def test_several_kernels(root: Root) -> None:
    for name in ("6.1", "6.2", "with blank"):
        root.file(f"usr/lib/modules/{name}/vmlinuz", "x")
    with pytest.raises(SeveralKernels) as caught:
        root.found(kernel)
    assert one_line(caught.value) == (
        "Found multiple subdirectories in usr/lib/modules "
        "(hint: keep one of 6.1, 6.2, 'with blank')"
    )


def test_kernel_arguments(root: Root) -> None:
    assert root.found(kargs) is None
    root.file(f"{KARGS_D}/README", "garbage").file(f"{KARGS_D}/10.toml", 'kargs = ["a"]')
    root.file(f"{KARGS_D}/20.toml", 'kargs = ["b"]\nmatch-architectures = ["none"]')
    assert root.found(kargs) is None


@pytest.mark.parametrize("text", ["kargs", "kargs = 1", "kargs = []\nfoo = 1", "", "\x00"])
def test_arguments_that_cannot_be_parsed(root: Root, text: str) -> None:
    root.file(f"{KARGS_D}/10.toml", 'kargs = ["a"]').file(f"{KARGS_D}/a.toml", text)
    with pytest.raises(KargsError) as caught:
        root.found(kargs)
    assert one_line(caught.value).startswith(f"Parsing a.toml: {KARGS_D}/a.toml ")


@pytest.mark.parametrize("path", [KARGS_D, "usr/lib/bootc"])
def test_a_file_in_the_place_of_a_directory(root: Root, path: str) -> None:
    root.file(path, 'kargs = ["a"]')
    with pytest.raises(NotADirectoryError):
        root.found(kargs)
