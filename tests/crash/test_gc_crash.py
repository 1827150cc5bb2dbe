"""Whatever change fails, and whenever the power does, of a pull and of a collection.

For every n the n-th change fails; then the repository must open, all it held before must
be whole, everything with a link must be, and doing the same again must end as if nothing
had happened.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from bootc.errors import Error
from bootc.formats.imgref import ImageReference
from bootc.fs.dir import Dir
from bootc.kernel import fsverity
from bootc.oci.layoutdir import open_layout
from bootc.oci.pull import pull
from bootc.repository.gc import GcReport, collect
from bootc.repository.repository import Repository
from bootc.repository.sealing import Verity
from support import images
from support.failing import dies, failing, without_nameless_files
from support.stored import IN_MEMORY, check_registered
from support.verity import FakeVerity

#: The power (None), a full disk, a bad one.
FAILURES = pytest.mark.parametrize(
    "error", [None, errno.ENOSPC, errno.EIO], ids=["power", "full", "bad"]
)
NOTHING = GcReport(0, 0, 0, 0, 0, ())
#: More changes than any of these operations makes: the loop's end is a failure.
LIMIT = 400

Work = Callable[[Repository], object]
#: Asked for fs-verity; no file system here has it.
_verity: Verity = FakeVerity(error=errno.EOPNOTSUPP)


@pytest.fixture(scope="module")
def quick() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        yield Path(path)


@pytest.fixture
def where(quick: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=quick))


@pytest.fixture(scope="module")
def layout(quick: Path) -> images.Layout:
    layout = images.Layout(quick / "layout")
    for tag in ("old", "new"):
        layout.image(
            [
                images.layer(images.directory("usr"), images.file("usr/same", b"same" * 100)),
                images.layer(images.file("usr/own", tag.encode() * 100)),
                # The store has asked the kernel for fs-verity by now, so these are one batch.
                images.layer(
                    *(images.file(f"usr/{tag}{n}", f"{tag}{n}".encode() * 100) for n in range(3))
                ),
            ],
            tag=tag,
        )
    return layout


@pytest.fixture(scope="module")
def base(layout: images.Layout, quick: Path) -> Path:
    """A physical root whose repository holds one image."""
    base = quick / "base"
    base.mkdir()
    on(base, puller(layout, "old"))
    return base


@pytest.fixture(scope="module")
def garbage(layout: images.Layout, base: Path, quick: Path) -> Path:
    """A physical root whose repository holds that image and what is left of another."""
    garbage = quick / "garbage"
    shutil.copytree(base, garbage, symlinks=True)
    kept = set(os.listdir(garbage / "composefs/streams/refs/oci"))
    on(garbage, puller(layout, "new"))
    refs = garbage / "composefs/streams/refs/oci"
    for name in set(os.listdir(refs)) - kept:
        (refs / name).unlink()
    (refs / "dangling").symlink_to("../../oci-manifest-sha256:none")
    (garbage / "composefs/objects/.tmp-object-0123456789ab").write_bytes(b"half")
    return garbage


def puller(layout: images.Layout, tag: str) -> Work:
    def work(repository: Repository) -> object:
        reference = ImageReference.parse(layout.reference(tag))
        with open_layout(reference, images.ARCHITECTURE) as source:
            return pull(repository, source, bootable=False)

    return work


def on(root: Path, work: Work) -> object:
    """Do something with the repository of a physical root."""
    with (
        Dir.open(root) as parent,
        Repository.create(parent, secure=False, verity=_verity) as repository,
    ):
        return work(repository)


def fails(root: Path, work: Work, number: int, error: int | None) -> bool:
    """Do something whose n-th change fails; tell whether it came to that."""
    if error is None:
        return dies(number, lambda: on(root, work))
    with failing(number, error) as changes, suppress(OSError, Error):
        on(root, work)
    return changes.failed


def interrupted(base: Path, work: Work, error: int | None, where: Path) -> Iterator[Path]:
    """Yield copies of a root on which ``work`` failed at its first, second … change."""
    for number in range(1, LIMIT):
        root = where / str(number)
        shutil.copytree(base, root, symlinks=True)
        if not fails(root, work, number, error):
            assert number > 10
            return
        yield root
        shutil.rmtree(root)
    pytest.fail(f"still not done after {LIMIT} changes")


def state(root: Path) -> dict[str, str | bytes]:
    """Return all files and links of a repository."""
    found: dict[str, str | bytes] = {}
    for where, below, names in os.walk(root / "composefs"):
        for name in itertools.chain(names, below):
            path = Path(where, name)
            if path.is_symlink():
                found[str(path.relative_to(root))] = os.readlink(path)
            elif path.is_file():
                found[str(path.relative_to(root))] = path.read_bytes()
    return found


@FAILURES
@pytest.mark.parametrize("files", ["batches", "tmpfile", "named"])
def test_a_pull_that_fails_anywhere(
    base: Path,
    layout: images.Layout,
    where: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: int | None,
    files: str,
) -> None:
    nameless = files != "named"
    if files == "batches":  # which only the real kernel gets
        monkeypatch.setitem(globals(), "_verity", fsverity)
    work = puller(layout, "new")
    before = state(base)
    complete = where / "complete"
    shutil.copytree(base, complete, symlinks=True)
    on(complete, work)
    after = state(complete)
    assert after.items() > before.items()
    with nullcontext() if nameless else without_nameless_files():
        for root in interrupted(base, work, error, where):
            found = state(root)
            assert found.items() >= before.items()
            on(root, check_registered)
            if error is None and nameless:
                # An object of the right name has the right content, even behind a full journal.
                assert found.items() <= after.items() | leftovers(found)
            on(root, work)
            assert state(root).items() - leftovers(state(root)) == after.items()
            on(root, collect)
            assert state(root) == after


def leftovers(found: dict[str, str | bytes]) -> set[tuple[str, str | bytes]]:
    return {(k, v) for k, v in found.items() if "/.tmp-object-" in k or "/.symlink-" in k}


@FAILURES
def test_what_a_failed_pull_leaves_is_collected(
    base: Path, layout: images.Layout, where: Path, error: int | None
) -> None:
    before = state(base)
    with without_nameless_files():
        for root in interrupted(base, puller(layout, "new"), error, where):
            planned = on(root, lambda repository: collect(repository, dry_run=True))
            assert on(root, collect) == planned
            assert state(root) == before


@FAILURES
def test_a_collection_that_fails_anywhere(
    base: Path, garbage: Path, layout: images.Layout, where: Path, error: int | None
) -> None:
    before = state(base)
    roots = 0
    for root in interrupted(garbage, collect, error, where):
        roots += 1
        found = state(root)
        assert found.items() >= before.items()
        # Everything that still has a link is whole: a pull would not look twice.
        on(root, check_registered)
        again = root.with_name(f"{root.name}-again")
        shutil.copytree(root, again, symlinks=True)
        on(again, puller(layout, "new"))
        on(again, check_registered)
        shutil.rmtree(again)
        on(root, collect)
        assert state(root) == before
        assert on(root, collect) == NOTHING
    # A reference, links of manifest, configuration, layer and image, the sync, the leftover.
    assert roots > 6
