"""A repository with anything done to it is whole again after a repair and a pull."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bootc.cli.render.fsck import oci_report_text
from bootc.formats.imgref import ImageReference
from bootc.fs.dir import Dir
from bootc.oci.fsck import check_images
from bootc.oci.layoutdir import open_layout
from bootc.oci.pull import pull
from bootc.oci.repair import repair_images
from bootc.oci.stored import find_image
from bootc.repository.fsck import check
from bootc.repository.gc import collect
from bootc.repository.repository import Repository
from support import images
from support.images import file, layer
from support.stored import IN_MEMORY

LAYERS = (
    images.bootable(kernel=b"kernel" * 1000),
    layer(file("usr/one", b"one" * 1000), file("usr/two", b"two" * 1000)),
)
OTHERS = (LAYERS[0], layer(file("usr/three", b"three" * 1000)))


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a layout of two images, and a repository that has them."""
    top = tmp_path_factory.mktemp("store")
    layout = images.Layout(top / "layout")
    with Dir.open(top) as parent, Repository.create(parent, secure=False) as repository:
        for tag, layers in (("a", LAYERS), ("b", OTHERS)):
            layout.image(layers, tag=tag)
            fetch(repository, top / "layout", tag)
        repository.sync()
    return top


def fetch(repository: Repository, layout: Path, tag: str) -> str:
    reference = ImageReference.parse(f"oci:{layout}:{tag}")
    with open_layout(reference, images.ARCHITECTURE) as source:
        return pull(repository, source, tag=tag).image_id.hex


# -- what is done to a file or a link; the second argument chooses


def remove(path: Path, number: int) -> None:
    path.unlink()


def truncate(path: Path, number: int) -> None:
    if not path.is_symlink():
        os.truncate(path, number % (path.stat().st_size + 1))


def change(path: Path, number: int) -> None:
    if path.is_symlink():
        target = os.readlink(path)
        path.unlink()
        path.symlink_to(target[:-1] + "0123456789abcdef"[number % 16])
        return
    data = bytearray(path.read_bytes())
    if data:
        data[number % len(data)] ^= 1 + number % 255
        path.write_bytes(data)


def zero(path: Path, number: int) -> None:
    if not path.is_symlink():
        path.write_bytes(bytes(path.stat().st_size))


def replace(make: Callable[[Path], object]) -> Callable[[Path, int], None]:
    def act(path: Path, number: int) -> None:
        path.unlink()
        make(path)

    return act


def swap(path: Path, number: int) -> None:
    """Exchange it with another of the same directory: good content, wrong name."""
    others = sorted(other for other in path.parent.iterdir() if not other.is_dir())
    other = others[number % len(others)]
    if other != path:
        aside = path.parent.parent / ".tmp-swap"
        path.rename(aside)
        other.rename(path)
        aside.rename(other)


DEEDS = st.sampled_from(
    [
        remove,
        truncate,
        change,
        zero,
        swap,
        replace(lambda path: path.write_bytes(b"something")),
        replace(Path.mkdir),
        replace(os.mkfifo),
        replace(lambda path: path.symlink_to("/etc/passwd")),
        replace(lambda path: path.symlink_to(path.name)),
    ]
)


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(st.integers(0, 10_000), DEEDS, st.integers(0, 1 << 30)), max_size=5),
    st.booleans(),
)
def test_anything_heals(
    pristine: Path, deeds: list[tuple[int, Callable[[Path, int], None], int]], collects: bool
) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as name:
        top = Path(name)
        shutil.copytree(pristine / "composefs", top / "composefs", symlinks=True)
        with Dir.open(pristine) as before, Repository.open(before, require_verity=False) as good:
            wanted = {tag: find_image(good, tag).made(1, bootable=True) for tag in ("a", "b")}
        places = sorted(
            path
            for path in (top / "composefs").rglob("*")
            if path.name != "meta.json" and (path.is_symlink() or path.is_file())
        )
        for place, act, number in deeds:
            path = places[place % len(places)]
            if path.is_symlink() or path.is_file():
                act(path, number)
        with (
            Dir.open(top) as parent,
            Repository.open(parent, require_verity=False, writable=True) as repository,
        ):
            repair_images(repository, check_images(repository, check(repository)))
            if collects:
                collect(repository)
            for tag, image in wanted.items():
                assert image is not None
                assert fetch(repository, pristine / "layout", tag) == image.hex
            # What was put aside is garbage now, and what is in the way of nobody stays.
            collect(repository)
            report = check_images(repository, check(repository))
            assert report.ok, oci_report_text(report)
            for tag, image in wanted.items():
                assert find_image(repository, tag).made(1, bootable=True) == image
