"""Roots of images as directories, as small as they pass all lints."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from bootc.cli.render.lint import details
from bootc.fs.imageroot import ImageRoot
from bootc.lint.model import LintFinding
from support import initramfs
from support.kernels import bzimage

KVER = "6.12.1-test"
MODULES = f"usr/lib/modules/{KVER}"
STEP = "usr/lib/bootc/initramfs-setup"


class Root:
    """A root under construction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def directory(self, *paths: str) -> Root:
        for path in paths:
            (self.path / path).mkdir(parents=True, exist_ok=True)
        return self

    def file(self, path: str, content: bytes | str = b"") -> Root:
        target = self.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return self

    def link(self, path: str, target: str) -> Root:
        (self.path / path).parent.mkdir(parents=True, exist_ok=True)
        (self.path / path).symlink_to(target)
        return self

    def remove(self, path: str) -> Root:
        target = self.path / path
        if target.is_dir() and not target.is_symlink():
            target.rmdir()
        else:
            target.unlink()
        return self

    def found(self, check: Callable[[ImageRoot], LintFinding | None]) -> str | None:
        """Return what a lint says about it."""
        with ImageRoot.open(os.fspath(self.path)) as root:
            finding = check(root)
        return None if finding is None else details(finding)


def base(path: Path) -> Root:
    """Return a root without a kernel."""
    root = Root(path)
    root.directory("dev", "proc", "sys", "run", "tmp", "var/log", "boot", "sysroot", "etc")
    root.link("ostree", "sysroot/ostree")
    root.file("usr/lib/ostree/prepare-root.conf", "[composefs]\nenabled = yes\n")
    root.file("usr/lib/os-release", 'ID=test\nPRETTY_NAME="Test 1"\n')
    return root


def bootable(path: Path) -> Root:
    """Return a root that an installation would take."""
    root = base(path)
    root.file(f"{MODULES}/vmlinuz", bzimage(KVER))
    root.file(f"{MODULES}/initramfs.img", initramfs.named(["init", STEP]))
    return root
