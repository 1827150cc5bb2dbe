from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.deploy.host.boot_state import (
    MarkerError,
    NotBootedFromImage,
    Staged,
    booted_image,
    deployment_ids,
    parse_staged,
    read_booted_state,
    read_cached_update,
    read_staged,
    write_cached_update,
)
from bootc.deploy.host.model import ImageSpec, ImageStatus, Timestamp
from bootc.formats.cmdline import composefs_images
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import Signature
from bootc.fs.dir import Dir
from bootc.fs.mounts import Mount
from bootc.repository import layout
from support.sysroot import image_id

A = image_id("aa")
MOMENT = Timestamp.parse("2026-08-01T00:00:00.5Z")
DIGEST = OciDigest("sha256", "11" * 32)
IMAGE = ImageReference("registry", "quay.io/example/os:43")


def mount(path: str, source: str) -> Mount:
    return Mount(mount_id=1, device="0:30", path=path, fstype="overlay", source=source)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (f"composefs:{A}", A),
        (f"transient:composefs={A}", A),
        (f"composefs:{'ab' * 32}", Digest.from_hex("ab" * 32)),
        ("composefs", None),
        ("composefs:aa", None),
        (f"composefs:{A}x", None),
        (f"x-composefs:{A}", None),
        ("/dev/vda3", None),
    ],
)
def test_the_root_names_its_image(source: str, expected: Digest | None) -> None:
    assert booted_image([mount("/", source), mount("/usr", "composefs:bb")]) == expected


B, C = image_id("bb"), image_id("cc")
BOTH = f"rw composefs.digest=?v1-sha512-12:{A} composefs=?{B}"


@pytest.mark.parametrize(
    ("mounted", "line", "states", "expected"),
    [
        (A, None, [], (A,)),
        (A, f"composefs={A}", [], (A,)),
        (A, BOTH, [A], (A, B)),
        # The second image is mounted: the deployment is the same.
        (B, BOTH, [A], (A, B)),
        (B, BOTH, [A, B], (A, B)),
        (B, f"composefs=?{B} composefs.digest=?v1-sha512-12:{A}", [A], (A, B)),
        # The state has the other id, which the initramfs takes as well.
        (B, BOTH, [B], (B, A)),
        (A, BOTH, [B], (B, A)),
        (A, BOTH, [], (A, B)),
        # After a soft reboot the root is that of another deployment.
        (C, BOTH, [A, C], (C,)),
    ],
)
def test_which_deployment_is_booted(
    tmp_path: Path,
    mounted: Digest,
    line: str | None,
    states: list[Digest],
    expected: tuple[Digest, ...],
) -> None:
    for state in states:
        (tmp_path / "sysroot" / layout.state_dir(state.hex)).mkdir(parents=True)
    named = None if line is None else composefs_images(line)
    assert deployment_ids(mounted, named, str(tmp_path)) == expected


def test_the_topmost_root_counts() -> None:
    mounts = [mount("/", "/dev/vda3"), mount("/", f"composefs:{A}")]
    assert booted_image(mounts) == A
    assert booted_image(mounts[::-1]) is None
    assert booted_image([]) is None


def test_the_staged_marker() -> None:
    text = json.dumps({"depl_id": A.hex, "finalization_locked": True})
    assert parse_staged(text.encode()) == Staged(A, locked=True)
    assert parse_staged(text.replace("true", "false").encode()) == Staged(A, locked=False)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b'{"depl_id":1,"finalization_locked":true}',
        b'{"depl_id":"aa","finalization_locked":true}',
        b"[" * 100_000,
    ],
)
def test_a_malformed_marker(data: bytes) -> None:
    with pytest.raises(MarkerError, match=r"^it is no marker of a staged deployment: "):
        parse_staged(data)


def test_the_marker_where_it_is(tmp_path: Path) -> None:
    with Dir.open(tmp_path) as directory:
        assert read_staged(directory) is None
        marker = tmp_path / "staged-deployment"
        marker.write_text(json.dumps({"depl_id": A.hex, "finalization_locked": False}))
        assert read_staged(directory) == Staged(A, locked=False)
        marker.write_bytes(b" " * 70_000)
        with pytest.raises(OSError, match="larger than 65536 bytes"):
            read_staged(directory)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Dir]:
    with Dir.open(tmp_path) as directory:
        yield directory


@pytest.mark.parametrize(
    "update",
    [
        ImageStatus(ImageSpec(IMAGE), DIGEST, "amd64"),
        ImageStatus(ImageSpec(IMAGE, Signature()), DIGEST, "amd64", "44", MOMENT),
        ImageStatus(ImageSpec(IMAGE, Signature("fedora")), DIGEST, "amd64", None, MOMENT),
    ],
)
def test_an_update_comes_back(run: Dir, update: ImageStatus) -> None:
    assert read_cached_update(run) is None
    write_cached_update(run, update)
    write_cached_update(run, update)
    assert read_cached_update(run) == update
    assert json.loads(run.read_bytes("cached-update.json")) == update.to_json()


def test_a_note_of_any_size_is_not_read(run: Dir) -> None:
    Path(run.path, "cached-update.json").write_bytes(b" " * 70_000)
    with pytest.raises(OSError, match="larger than 65536 bytes"):
        read_cached_update(run)


def test_an_update_that_is_no_file(run: Dir) -> None:
    os.mkfifo(Path(run.path, "cached-update.json"))
    with pytest.raises(OSError, match="not a regular file"):
        read_cached_update(run)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a root that no image is mounted at, outside of any container."""
    monkeypatch.delenv("container", raising=False)
    (tmp_path / "proc").mkdir()
    return tmp_path


def test_other_systems_are_none_of_ours(root: Path) -> None:
    (root / "proc/cmdline").write_text("root=/dev/vda3 rw\n")
    assert read_booted_state(root=str(root)) is None


def test_an_image_that_should_run_and_does_not(root: Path) -> None:
    (root / "proc/cmdline").write_text(f"rw composefs={A}\n")
    with pytest.raises(NotBootedFromImage, match=f"names image {A}, but {root} is not"):
        read_booted_state(root=str(root))


@pytest.mark.parametrize("mark", ["run/.containerenv", ".dockerenv"])
def test_a_container_shows_the_command_line_of_its_host(root: Path, mark: str) -> None:
    (root / "proc/cmdline").write_text(f"rw composefs={A}\n")
    (root / mark).parent.mkdir(exist_ok=True)
    (root / mark).touch()
    assert read_booted_state(root=str(root)) is None


def test_a_container_may_say_so_in_its_environment(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "proc/cmdline").write_text(f"rw composefs={A}\n")
    monkeypatch.setenv("container", "podman")
    assert read_booted_state(root=str(root)) is None


def test_without_proc_nothing_is_claimed(root: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        read_booted_state(root=str(root))
    assert caught.value.__notes__ == ["Reading how this system was booted"]
