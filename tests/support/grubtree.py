"""Debian's GRUB, out of the tree that ``tools/grub-tree`` makes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bootc.fs.dir import Dir
from support import require
from support.images import Member, directory, file

TREE = Path(__file__).parents[2] / "build" / "grub"
#: The modules, the programs, and a library that the demo image lacks.
_FILES = (
    "usr/lib/grub/i386-pc/*.img",
    "usr/lib/grub/i386-pc/*.mod",
    "usr/lib/grub/i386-pc/moddep.lst",
    "usr/bin/grub-mkimage",
    "usr/lib/x86_64-linux-gnu/libdevmapper.so.*",
    "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
    "usr/lib/shim/shimx64.efi.signed",
    "usr/lib/shim/mmx64.efi.signed",
    "usr/lib/shim/BOOTX64.CSV",
)
_IN_EVERY_IMAGE = {".", "usr", "usr/bin", "usr/lib", "usr/lib/x86_64-linux-gnu"}


def find() -> Path:
    """Return the root of the tree."""
    if not (TREE / "usr/bin/grub-mkimage").exists():
        require.lacking(f"{TREE} is not built (tools/grub-tree)")
    return TREE


def check_script(path: Path) -> None:
    """Have GRUB's own parser check a script."""
    tree = find()
    loader = tree / "lib64/ld-linux-x86-64.so.2"
    libraries = tree / "usr/lib/x86_64-linux-gnu"
    program = tree / "usr/bin/grub-script-check"
    argv = [loader, "--library-path", libraries, program, path]
    subprocess.run([str(word) for word in argv], check=True)


def members() -> tuple[Member, ...]:
    """Return the files of GRUB that an image needs to install it, with their directories."""
    tree = find()
    paths = [path for pattern in _FILES for path in sorted(tree.glob(pattern))]
    names = [str(path.relative_to(tree)) for path in paths]
    parents = {str(parent) for name in names for parent in Path(name).parents}
    directories = [directory(name) for name in sorted(parents - _IN_EVERY_IMAGE)]
    files = [
        file(name, path.read_bytes(), mode=path.stat().st_mode & 0o777)
        for name, path in zip(names, paths, strict=True)
    ]
    return (*directories, *files)


@contextmanager
def mounted(tree: Path, directory: Path) -> Iterator[Dir]:
    """Mount the tree below a directory, so that what is mounted in it disappears with it."""
    place = directory / "grub-tree"
    place.mkdir()
    subprocess.run(["mount", "--bind", "-o", "ro", str(tree), str(place)], check=True)
    try:
        with Dir.open(place) as image:
            yield image
    finally:
        subprocess.run(["umount", "--recursive", str(place)], check=True)
