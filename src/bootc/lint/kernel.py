"""Lints of the kernel and its arguments."""

from __future__ import annotations

import os

from bootc.boot.kargs import KARGS_D, parse_kargs_d
from bootc.boot.unpacked_kernel import find_kernel_version
from bootc.errors import doing
from bootc.formats.shellquote import shell_quoted
from bootc.fs.imageroot import ImageRoot
from bootc.lint.model import LintFinding

_MAX_BYTES = 1 << 20


def kernel(root: ImageRoot) -> LintFinding | None:
    """Fail if there are several kernels. An image without a kernel passes."""
    find_kernel_version(root)
    return None


def kargs(root: ImageRoot) -> LintFinding | None:
    """Fail if a file of kernel arguments cannot be parsed."""
    directory = root.open_dir(KARGS_D)
    if directory is None:
        return None
    with directory:
        names = [name for name in directory.names() if name.endswith(".toml")]
    for name in names:
        path = f"{KARGS_D}/{name}"
        with doing(f"Parsing {shell_quoted(name)}"):
            data = root.read(path, _MAX_BYTES)
            if data is not None:
                parse_kargs_d(shell_quoted(path), data, os.uname().machine, checked=False)
    return None
