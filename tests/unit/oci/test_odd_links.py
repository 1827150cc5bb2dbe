"""Anything at all in the place of a stream, an image or a reference: found, moved, healed.

Each kind of thing is put into each place. A check finds it, a repair moves it to quarantine,
and a pull makes the link again; a pull heals without a repair, too.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from bootc.cli.render.fsck import oci_report_text, report_text
from bootc.oci.fsck import check_images
from bootc.oci.layoutdir import LayoutSource
from bootc.oci.pull import Pulled, pull
from bootc.oci.stored import find_image
from bootc.repository.fsck import check
from bootc.repository.gc import collect
from bootc.repository.links import BrokenReference
from bootc.repository.repair import repair
from bootc.repository.repository import Repository
from support.layers import sound

TAG = "os"


@pytest.fixture
def pulled(repository: Repository, pulled: Pulled) -> Pulled:
    repository.images.set_ref("booted", pulled.image_id)
    return pulled


def regular_file(path: Path) -> None:
    path.write_bytes(b"something")


def empty_file(path: Path) -> None:
    path.touch()


def directory(path: Path) -> None:
    path.mkdir()


def full_directory(path: Path) -> None:
    path.mkdir()
    (path / "below").write_bytes(b"something")


def bound_socket(path: Path) -> None:
    short = Path(f"/tmp/bootc-test-{os.getpid()}.socket")  # 108 bytes are the limit
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short))
    short.rename(path)


def device(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))


def link_to(target: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.symlink_to(target)

    make.__name__ = f"link to {target[:20]}"
    return make


THINGS = (
    regular_file,
    empty_file,
    directory,
    full_directory,
    os.mkfifo,
    bound_socket,
    device,
    link_to("/etc/passwd"),
    link_to("/"),
    link_to("../../outside"),
    link_to("nowhere"),
    link_to("../objects"),
    link_to("../objects/ab/cd"),
    link_to("x" * 200),
)

# -- where


def of_manifest(pulled: Pulled) -> str:
    return f"streams/oci-manifest-{pulled.manifest_digest}"


def of_config(pulled: Pulled) -> str:
    return f"streams/oci-config-{pulled.config_digest}"


def of_layer(pulled: Pulled) -> str:
    return f"streams/oci-layer-{pulled.config.diff_ids[1]}"


def of_image(pulled: Pulled) -> str:
    return f"images/{pulled.image_id}"


def of_tag(pulled: Pulled) -> str:
    return f"streams/refs/oci/{TAG}"


def of_image_name(pulled: Pulled) -> str:
    return "images/refs/booted"


def of_tags(pulled: Pulled) -> str:
    return "streams/refs/oci"


def of_references(pulled: Pulled) -> str:
    return "streams/refs"


def of_streams(pulled: Pulled) -> str:
    return "streams"


def of_images(pulled: Pulled) -> str:
    return "images"


ENTRIES = (of_manifest, of_config, of_layer, of_image, of_tag, of_image_name)


DIRECTORIES = (of_tags, of_references, of_streams, of_images)


def put(repository: Repository, path: str, make: Callable[[Path], None]) -> None:
    """Put something in the place of what is there."""
    place = Path(repository.dir.path, path)
    if place.is_dir() and not place.is_symlink():
        place.rename(place.with_name(".tmp-file-away"))
        # Nobody's: it would be found as an entry.
        os.rename(place.with_name(".tmp-file-away"), Path(repository.dir.path, "..", "away"))
    else:
        place.unlink()
    make(place)


CASES = [
    pytest.param(
        (where, make),
        marks=[pytest.mark.root] if make is device else [],
        id=f"{where.__name__}-{make.__name__}",
    )
    for where in (*ENTRIES, *DIRECTORIES)
    for make in THINGS
    # A directory is what belongs there.
    if where in ENTRIES or make not in (directory, full_directory)
]


@pytest.fixture(params=CASES)
def spoiled(
    request: pytest.FixtureRequest, repository: Repository, source: LayoutSource, pulled: Pulled
) -> str:
    where, make = request.param
    path = where(pulled)
    put(repository, path, make)
    return path


def heal(repository: Repository, source: LayoutSource) -> Pulled:
    again = pull(repository, source, tag=TAG)
    repository.images.set_ref("booted", again.image_id)
    return again


def test_repair_and_pull(
    repository: Repository, source: LayoutSource, pulled: Pulled, spoiled: str
) -> None:
    report = check(repository)
    before = os.lstat(Path(repository.dir.path, spoiled))
    if stat.S_ISDIR(before.st_mode) and "/refs/" in spoiled:
        # References may lie in directories; what is in this one may be odd.
        spoiled = f"{spoiled}/below"
        if not os.path.lexists(Path(repository.dir.path, spoiled)):
            assert report.ok
            return
        before = os.lstat(Path(repository.dir.path, spoiled))
    assert any(f.path == spoiled for f in report.findings), report_text(report)
    repaired = repair(repository, report)
    # Put right, or away, and not lost.
    relinked = spoiled in repaired.relinked
    away = Path(repository.dir.path, "quarantine")
    kept = [os.lstat(path).st_ino for path in away.iterdir()] if away.exists() else []
    waits = any(f.path == spoiled for f in repaired.left)
    assert relinked or waits or before.st_ino in kept
    if waits:
        # A reference to what is not there, and nothing else.
        assert "/refs/" in spoiled
        assert stat.S_ISLNK(before.st_mode)
    # A collection goes on.
    collect(repository, dry_run=True)
    assert heal(repository, source).image_id == pulled.image_id
    assert sound(repository), oci_report_text(check_images(repository, check(repository)))
    assert find_image(repository, TAG).made(1, bootable=True) == pulled.image_id


def test_pull_alone(
    repository: Repository, source: LayoutSource, pulled: Pulled, spoiled: str
) -> None:
    assert heal(repository, source).image_id == pulled.image_id
    assert sound(repository), oci_report_text(check_images(repository, check(repository)))
    assert find_image(repository, TAG).made(1, bootable=True) == pulled.image_id


def test_a_directory_of_other_references_is_not_moved(
    repository: Repository, source: LayoutSource, pulled: Pulled
) -> None:
    repository.streams.set_ref("oci/group/one", f"oci-manifest-{pulled.manifest_digest}")
    with pytest.raises(BrokenReference, match="is a directory that other references are in"):
        pull(repository, source, tag="group")
    assert sorted(repository.streams.refs()) == ["oci/group/one", f"oci/{TAG}"]
