"""Random trees give the image the C tools give, and real tools accept it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from bootc.errors import Error
from bootc.formats.digest import Algorithm
from bootc.formats.dumpfile import parse_dumpfile, write_dumpfile
from bootc.formats.dumptext import DIGEST, MODE, MTIME, NLINK, PATH, PAYLOAD, RDEV
from bootc.formats.erofs.reader import read_erofs
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.libcomposefs import dumpfile as c_dumpfile
from bootc.formats.libcomposefs import erofs as c_erofs
from bootc.formats.tree import Directory
from support import require
from support.ctools import c_tool
from support.trees import holds_whiteouts, text_of, trees

pytestmark = pytest.mark.interop

#: The files a test writes are overwritten by its next example.
PER_EXAMPLE = settings(
    deadline=None,
    max_examples=500 if os.environ.get("CI") else 60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


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
@given(tree=trees(), version=st.sampled_from([0, 1]))
def test_dumps_are_the_same(
    composefs_info: list[str], tmp_path: Path, tree: Directory, version: int
) -> None:
    image = tmp_path / "image"
    raw = mkfs_erofs(tree, version=version)
    image.write_bytes(raw)
    ours = b"".join(c_dumpfile.write_dumpfile(c_erofs.read_erofs(raw)))
    assert run([*composefs_info, "dump", str(image)]) == ours


@st.composite
def c_dumps(draw: st.DrawFn) -> bytes:
    """Dumpfiles that only the C tools take, or that they read in another way."""
    lines = [line.rstrip(b"\n").split(b" ") for line in write_dumpfile(draw(trees()))]
    directories = [line for line in lines if line[MODE].startswith(b"4")]
    others = draw(st.permutations([line for line in lines if not line[MODE].startswith(b"4")]))
    whiteouts = [line for line in others if line[MODE].startswith(b"2") and line[RDEV] == b"0"]
    if whiteouts:
        others.append([b"/h" * 9, b"0", b"@20644", *[b"-"] * 4, b"0.0", whiteouts[0][0], b"-"])
        directories += [[b"/h" * i, b"0", b"40755", *[b"0"] * 4, b"1.1"] for i in range(1, 9)]
    for line in directories + others:
        line[NLINK] = draw(st.sampled_from([b"0", b"1", b"2", b"65535", b"65536", b"4294967295"]))
        if line[MODE].startswith(b"@"):
            continue
        if draw(st.booleans()):
            line[MTIME] = b"-" + line[MTIME]
        if line[DIGEST : DIGEST + 1] not in ([], [b"-"]):
            line[PAYLOAD] = draw(st.sampled_from([line[PAYLOAD], b"-", b"else/where"]))
        if draw(st.booleans()):
            line[PATH] = line[PATH].replace(b"/", b"//") if line[PATH] != b"/" else b"/"
        while line[-1] == b"-" and len(line) > PAYLOAD and not line[MODE].startswith(b"1006"):
            line.pop()
    return b"\n".join(b" ".join(line) for line in directories + others)


@PER_EXAMPLE
@given(c_dumps())
def test_we_do_as_the_c_tools_do(mkcomposefs: list[str], dump: bytes) -> None:
    for low, high in [(0, 1), (0, 0), (1, 1)]:
        bounds = [f"--min-version={low}", f"--max-version={high}"]
        done = subprocess.run(
            [*mkcomposefs, *bounds, "-", "-"], input=dump, capture_output=True, check=False
        )
        event("taken" if done.returncode == 0 else "refused")
        assert (done.stdout if done.returncode == 0 else None) == image_as_c(dump, low, high)


def image_as_c(dump: bytes, low: int, high: int) -> bytes | None:
    """Return our image, or None if we refuse."""
    try:
        tree = c_dumpfile.parse_dumpfile(dump.split(b"\n"))
        version = c_erofs.format_version(tree.root, low, high)
        return c_erofs.mkfs_erofs(tree, version=version)
    except Error:
        return None


@PER_EXAMPLE
@given(
    version=st.sampled_from([0, 1, 2]),
    tree=st.sampled_from(Algorithm).flatmap(lambda a: trees(a, version_2=True)),
)
def test_fsck_accepts_our_images(tmp_path: Path, version: int, tree: Directory) -> None:
    image = tmp_path / "image"
    image.write_bytes(mkfs_erofs(tree, version=version))
    run([require.tool("fsck.erofs"), str(image)])
