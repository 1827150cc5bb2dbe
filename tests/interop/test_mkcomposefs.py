"""Random trees give the image the C tools give, and real tools accept it.

The C tools come from the chroot that ``tools/sid-chroot`` makes. They run by its
dynamic loader rather than by chroot(2): no root, no /proc, no temporary copies.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bootc.formats.digest import Algorithm
from bootc.formats.dumpfile import parse_dumpfile, write_dumpfile
from bootc.formats.erofs.reader import read_erofs
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.tree import Directory
from support import require
from support.trees import holds_whiteouts, text_of, trees

pytestmark = pytest.mark.interop

CHROOT = Path(__file__).parents[2] / "build" / "sid-chroot"
#: The files a test writes are overwritten by its next example.
PER_EXAMPLE = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def c_tool(name: str) -> list[str]:
    """Return the command line that runs a program of the chroot."""
    program = CHROOT / "usr" / "bin" / name
    loaders = sorted((CHROOT / "usr").glob("lib*/ld-linux-*.so.*"))
    libraries = sorted((CHROOT / "usr" / "lib").glob("*-linux-gnu"))
    if not (program.exists() and loaders and libraries):
        require.lacking(f"{program} is absent (tools/sid-chroot makes it)")
    return [str(loaders[0]), "--library-path", str(libraries[0]), str(program)]


def run(argv: list[str], data: bytes = b"") -> bytes:
    done = subprocess.run(argv, input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="backslashreplace")
    return done.stdout


@pytest.fixture(scope="module")
def mkcomposefs() -> list[str]:
    return [*c_tool("mkcomposefs"), "--from-file"]


@pytest.fixture(scope="module")
def composefs_info() -> list[str]:
    return c_tool("composefs-info")


@PER_EXAMPLE
@given(tree=trees())
def test_images_are_the_same(mkcomposefs: list[str], tree: Directory) -> None:
    dump = b"".join(write_dumpfile(tree))
    assert run([*mkcomposefs, "--min-version=1", "-", "-"], dump) == mkfs_erofs(tree, version=1)
    assert run([*mkcomposefs, "--max-version=0", "-", "-"], dump) == mkfs_erofs(tree, version=0)


@PER_EXAMPLE
@given(tree=trees())
def test_c_reads_our_images(composefs_info: list[str], tmp_path: Path, tree: Directory) -> None:
    image = tmp_path / "image"
    image.write_bytes(mkfs_erofs(tree))
    dump = run([*composefs_info, "dump", str(image)])
    seen = parse_dumpfile(dump.splitlines(keepends=True))
    for _, node in seen.walk():
        # The tool shows the marks that version 1 adds to directories with whiteouts.
        if holds_whiteouts(node):
            assert node.stat.xattrs.pop(b"trusted.overlay.opaque") == b"x"
            assert node.stat.xattrs.pop(b"user.overlay.opaque") == b"x"
    assert text_of(seen) == text_of(tree)


@PER_EXAMPLE
@given(tree=trees())
def test_we_read_c_images(mkcomposefs: list[str], tree: Directory) -> None:
    image = run([*mkcomposefs, "-", "-"], b"".join(write_dumpfile(tree)))
    assert text_of(read_erofs(image)) == text_of(tree)


@PER_EXAMPLE
@given(tree=st.sampled_from(Algorithm).flatmap(trees))
def test_fsck_accepts_our_images(tmp_path: Path, tree: Directory) -> None:
    image = tmp_path / "image"
    image.write_bytes(mkfs_erofs(tree))
    run([require.tool("fsck.erofs"), str(image)])
