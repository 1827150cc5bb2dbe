"""Whatever change fails, and whenever the power does, of an image written to a layout directory.

The images that were there before are whole, and the new one is whole or is not there.
"""

from __future__ import annotations

import errno
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from bootc.formats.imgref import ImageReference
from bootc.oci.layout_write import OutputExists, layout_written
from bootc.oci.layoutdir import LayoutError, open_layout
from support import images
from support.failing import dies, failing

OLD, NEW = images.bootable(images.file("old", b"old" * 99)), images.bootable()
LIMIT = 100


def write(path: Path) -> None:
    with layout_written(ImageReference.parse(f"oci:{path}:new")) as layout:
        images.put_image(layout, NEW)


def content_of(path: Path, tag: str) -> bytes | None:
    """Return the layer of an image, checked with all that leads to it; None without the image."""
    reference = ImageReference.parse(f"oci:{path}:{tag}")
    if not (path / "index.json").exists():
        return None
    with suppress(LayoutError), open_layout(reference, images.ARCHITECTURE) as source:
        data = b""
        with source.blob(source.layers[0]) as blob:
            while piece := blob.read(1 << 20):
                data += piece
        return data
    # Nothing but the name may be missing.
    assert tag not in (path / "index.json").read_text()
    return None


def files(path: Path) -> set[str]:
    return {str(one.relative_to(path)) for one in path.rglob("*")}


@pytest.mark.parametrize("existing", [False, True], ids=["new", "existing"])
@pytest.mark.parametrize("error", [None, errno.ENOSPC, errno.EIO], ids=["power", "full", "bad"])
def test_every_change(tmp_path: Path, error: int | None, existing: bool) -> None:
    base = tmp_path / "base"
    if existing:
        images.single(base, OLD, tag="old", compression="")
    for number in range(1, LIMIT):
        path = tmp_path / str(number)
        if existing:
            shutil.copytree(base, path)
        before = files(path)
        if error is None:
            failed = dies(number, lambda path=path: write(path))  # type: ignore[misc]
        else:
            with failing(number, error) as changes, suppress(OSError):
                write(path)
            failed = changes.failed
        assert content_of(path, "new") in (None, NEW)
        if existing:
            assert content_of(path, "old") == OLD
        if error is not None and content_of(path, "new") is None:
            assert files(path) <= before
        # The same again completes it.
        with suppress(OutputExists):
            write(path)
        assert content_of(path, "new") == NEW
        if not failed:
            assert number > 10
            return
    pytest.fail(f"still not done after {LIMIT} changes")
