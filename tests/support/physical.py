"""A physical root with one deployment, as the initramfs finds it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bootc.formats.digest import Algorithm
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.tree import Directory, External, Inline, Leaf, Stat, Symlink
from bootc.formats.verity import verity_digest
from bootc.repository import layout

#: Longer than what an image holds itself, so that it is an object.
PROGRAM = b"#!/bin/sh\necho program of the image\n" * 10


@dataclass(frozen=True, slots=True)
class PhysicalRoot:
    """Where it is, and the image of its deployment."""

    path: Path
    image_hex: str

    @property
    def state(self) -> Path:
        """State of the deployment."""
        return self.path / layout.state_dir(self.image_hex)


def image_tree(*, without: str = "") -> Directory:
    """Return the tree of a small OS image, perhaps without one of its directories."""

    def directory(**entries: Directory | Leaf) -> Directory:
        return Directory(Stat(0o755), {name.encode(): node for name, node in entries.items()})

    def file(data: bytes) -> Leaf:
        return Leaf(Stat(0o644), Inline(data))

    program = External(verity_digest(PROGRAM, Algorithm.SHA512), len(PROGRAM))
    root = directory(
        etc=directory(hostname=file(b"image\n")),
        var=directory(data=file(b"image\n")),
        sysroot=directory(),
        usr=directory(bin=directory(program=Leaf(Stat(0o755), program))),
        bin=Leaf(Stat(0o777), Symlink(b"usr/bin")),
    )
    root.entries.pop(without.encode(), None)
    return root


def make_physical_root(path: Path, *, without: str = "") -> PhysicalRoot:
    """Lay out a repository without fs-verity and the state of one deployment."""
    repository = path / layout.REPOSITORY
    image = mkfs_erofs(image_tree(without=without))
    for data in (image, PROGRAM):
        location = repository / layout.object_path(verity_digest(data, Algorithm.SHA512).hex)
        location.parent.mkdir(parents=True)
        location.write_bytes(data)
    made = PhysicalRoot(path, verity_digest(image, Algorithm.SHA512).hex)
    link = repository / layout.image_path(made.image_hex)
    link.parent.mkdir()
    link.symlink_to(layout.link_to_object(made.image_hex))

    (made.state / "etc").mkdir(parents=True)
    (made.state / "etc/hostname").write_text("state\n")
    (path / layout.OS_VAR).mkdir(parents=True)
    (path / layout.OS_VAR / "data").write_text("state\n")
    os.symlink(layout.VAR_LINK, made.state / "var")
    return made
