"""Something is mounted in the state of a deployment that nothing needs any more."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bootc.deploy import cleanup
from bootc.deploy.cleanup import CleanupIncomplete
from bootc.errors import one_line
from bootc.formats.origin import BootType
from bootc.fs.descent import MountPoint
from support import osimages, require
from support.bench import Bench
from support.bootdirs import SYSTEMD
from support.osimages import Images

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return Images(tmp_path_factory.mktemp("images"), BootType.BLS)


@pytest.fixture
def bench(tmp_path: Path, images: Images) -> Bench:
    """Return a machine that runs NEW and can go back to OLD."""
    require.root()
    return Bench(SYSTEMD, tmp_path, images, osimages.OLD, osimages.NEW)


@contextmanager
def mounted(bench: Bench, kind: str) -> Iterator[Path]:
    """Mount something in the state of OLD; yield the file in it."""
    etc = bench.machine.state(bench.id(osimages.OLD)) / "etc"
    other = bench.machine.path / "other"
    other.mkdir()
    (other / "key").write_text("the only copy")
    place = {"file": etc / "key", "state": etc.parent}.get(kind, etc / "ssl")
    if kind == "file":
        place.write_text("")
        argv = ["mount", "--bind", other / "key", place]
    else:
        if kind != "state":
            place.mkdir()
            (place / "covered").write_text("")
        argv = ["mount", "--bind", other, place]
    if kind == "tmpfs":
        argv = ["mount", "-t", "tmpfs", "none", place]
    subprocess.run(argv, check=True)
    identity = place.stat().st_dev, place.stat().st_ino
    if kind == "tmpfs":
        (place / "key").write_text("the only copy")
    try:
        yield place
    finally:
        # It may have another name by now.
        for path in [place, *(bench.machine.physical / "state").rglob(place.name)]:
            if path.exists() and (path.stat().st_dev, path.stat().st_ino) == identity:
                subprocess.run(["umount", path], check=True)


def read(place: Path) -> str:
    return (place / "key" if place.is_dir() else place).read_text()


def contents(path: Path) -> list[str]:
    return sorted(str(p.relative_to(path)) for p in path.rglob("*"))


def left_over(bench: Bench) -> list[str]:
    findings = bench.machine.status()["status"].get("findings", [])
    return [finding["text"] for finding in findings if finding["kind"] == "leftover"]


def objects(bench: Bench) -> int:
    return len(list((bench.machine.physical / "composefs/objects").glob("*/*")))


@pytest.mark.parametrize("kind", ["bind", "tmpfs", "file"])
def test_what_is_mounted_stays_and_keeps_nothing_else(bench: Bench, kind: str) -> None:
    old = bench.id(osimages.OLD)
    state = bench.machine.state(old)
    with mounted(bench, kind) as place:
        before = contents(state)
        bench.update(osimages.TURNED)
        bench.update(osimages.RENAMED)
        with pytest.raises(CleanupIncomplete) as caught:
            bench.machine.command(cleanup.collect_garbage)
        # All of it is there, under its own name.
        assert read(place) == "the only copy"
        assert contents(state) == before
        wanted = (
            f"Removing the state of deployment {old}: {place}: something is mounted on it; "
            "unmount that first (findmnt lists what is mounted)"
        )
        assert one_line(caught.value) == wanted
        (text,) = left_over(bench)
        assert text.startswith(wanted)
        assert bench.shown() == ["renamed", "turned"]
        kept = objects(bench)
    bench.machine.command(cleanup.collect_garbage)
    assert sorted(bench.machine.states()) == sorted(
        map(bench.id, (osimages.TURNED, osimages.RENAMED))
    )
    assert objects(bench) == kept
    assert bench.findings() == []


@pytest.mark.parametrize("kind", ["bind", "tmpfs", "file"])
def test_going_back_to_what_something_is_mounted_in(bench: Bench, kind: str) -> None:
    with mounted(bench, kind) as place:
        bench.update(osimages.TURNED)
        bench.update(osimages.OLD)
        assert bench.shown() == ["old", "turned"]
        (left,) = (name for name in bench.machine.states() if name.startswith("."))
        moved = bench.machine.state(left) / "etc" / place.name
        assert read(moved) == "the only copy"
        assert not place.exists()
        # All is gone that is not mounted, or on the way there.
        assert contents(bench.machine.state(left))[:2] == ["etc", f"etc/{place.name}"]
        (text,) = left_over(bench)
        assert f"{moved}: something is mounted on it" in text
    bench.machine.command(cleanup.collect_garbage)
    assert len(bench.machine.states()) == 2
    assert bench.findings() == []


def test_what_something_is_mounted_on_cannot_be_moved(bench: Bench) -> None:
    with mounted(bench, "state") as place:
        bench.update(osimages.TURNED)
        assert read(place) == "the only copy"
        assert any(f"{place}: something is mounted on it" in text for text in left_over(bench))
        with pytest.raises(MountPoint) as caught:
            bench.upgrade(osimages.OLD)
        assert f"{place}: something is mounted on it" in one_line(caught.value)
        bench.update(osimages.RENAMED)
        assert read(place) == "the only copy"
    bench.update(osimages.OLD)
    assert bench.shown() == ["old", "renamed"]
    assert bench.findings() == []
