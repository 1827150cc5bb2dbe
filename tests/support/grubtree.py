"""Debian's GRUB, out of the trees that ``tools/grub-tree`` makes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bootc.fs.dir import Dir
from support import require
from support.images import Member, directory, file

BUILD = Path(__file__).parents[2] / "build"
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


@dataclass(frozen=True, slots=True)
class GrubTree:
    """The tree of a Debian suite with its GRUB.

    Attributes:
        suite: The suite, as ``tools/grub-tree`` takes it.
        name: The tree's directory in ``build``.
        version: The version of GRUB, without Debian's revision.
        has_bli: GRUB's signed program has the module ``bli`` built in: GRUB tells the system its
            own name and its partition in variables of the firmware.
    """

    suite: str
    name: str
    version: str
    has_bli: bool

    def find(self) -> Path:
        """Return the root of the tree."""
        tree = BUILD / self.name
        if not (tree / "usr/bin/grub-mkimage").exists():
            require.lacking(f"{tree} is not built (tools/grub-tree {self.suite})")
        return tree

    def check_script(self, path: Path) -> None:
        """Have GRUB's own parser check a script."""
        tree = self.find()
        loader = tree / "lib64/ld-linux-x86-64.so.2"
        libraries = tree / "usr/lib/x86_64-linux-gnu"
        program = tree / "usr/bin/grub-script-check"
        argv = [loader, "--library-path", libraries, program, path]
        subprocess.run([str(word) for word in argv], check=True)

    def members(self) -> tuple[Member, ...]:
        """Return the files of GRUB that an image needs to install it, with their directories."""
        tree = self.find()
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
    def mounted(self, directory: Path) -> Iterator[Dir]:
        """Mount the tree below a directory, so that what is mounted in it disappears with it."""
        tree, place = self.find(), directory / "grub-tree"
        place.mkdir()
        subprocess.run(["mount", "--bind", "-o", "ro", str(tree), str(place)], check=True)
        try:
            with Dir.open(place) as image:
                yield image
        finally:
            subprocess.run(["umount", "--recursive", str(place)], check=True)


TRIXIE = GrubTree("trixie", "grub", "2.12", has_bli=False)
SID = GrubTree("sid", "grub-sid", "2.14", has_bli=True)
TREES = (TRIXIE, SID)
