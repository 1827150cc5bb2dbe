"""A digest store on real file systems: blocks are shared where they can be."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.cli import main as cli
from bootc.formats.digest import Algorithm
from bootc.formats.verity import verity_digest
from bootc.fs.dir import Dir
from bootc.fs.mounts import mounted
from support import require

pytestmark = pytest.mark.host

SIZE = 40 << 20


@pytest.fixture(params=["btrfs", "xfs", "ext4"])
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Dir, str]]:
    """A directory of a file system of its own, and its type."""
    require.root()
    fstype: str = request.param
    image = tmp_path / "volume"
    with open(image, "wb") as file:
        file.truncate(320 << 20)
    subprocess.run([require.tool(f"mkfs.{fstype}"), "-q", image], check=True)
    losetup = require.tool("losetup")
    done = subprocess.run([losetup, "--show", "-f", image], check=True, stdout=subprocess.PIPE)
    device = done.stdout.decode().strip()
    try:
        with mounted(device, fstype) as root:
            yield root, fstype
    finally:
        subprocess.run([losetup, "-d", device], check=True)


def used(root: Dir) -> int:
    root.sync()
    state = os.fstatvfs(root.fileno())
    return (state.f_blocks - state.f_bfree) * state.f_frsize


def mkcomposefs(*arguments: object) -> int:
    return cli.main(["internals", "mkcomposefs", *map(str, arguments)])


def test_blocks_are_shared(volume: tuple[Dir, str]) -> None:
    root, fstype = volume
    content = os.urandom(SIZE)
    digest = verity_digest(content, Algorithm.SHA256)
    top = Path(root.path)
    (top / "source").mkdir()
    (top / "source/file").write_bytes(content)
    before = used(root)
    assert mkcomposefs("--digest-store", top / "store", top / "source", "/dev/null") == 0
    grown = used(root) - before
    stored = top / "store" / digest.object_path
    assert stored.read_bytes() == content
    assert grown < SIZE // 4 if fstype in ("btrfs", "xfs") else grown >= SIZE


@pytest.mark.parametrize("volume", ["ext4"], indirect=True)
def test_a_full_store_leaves_no_part_of_an_object(
    volume: tuple[Dir, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, _ = volume
    source, image = tmp_path / "source", tmp_path / "image"
    source.mkdir()
    with open(source / "file", "wb") as file:
        for _ in range(400):
            file.write(b"x" * (1 << 20))
    assert mkcomposefs("--digest-store", f"{root.path}/store", source, image) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"Storing an object in {root.path}/store: " in error
    assert "No space left on device" in error
    assert os.listdir(f"{root.path}/store") == []
    assert not image.exists()
