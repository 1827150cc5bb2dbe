from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from bootc.deploy.host.statedir_lifecycle import (
    create_state,
    create_var,
    remove_leftover,
    remove_state,
    set_state_aside,
)
from bootc.errors import one_line
from bootc.formats.digest import Algorithm, Digest, OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import BootType, Origin
from bootc.formats.tree import Directory, External, Inline, Leaf, Stat, Symlink
from bootc.formats.verity import verity_digest
from bootc.fs import removal
from bootc.fs.dir import Dir
from bootc.fs.tree_write import ContentChanged
from support.failing import dies
from support.protection import IMMUTABLE, set_flags, unprotect

IMAGE_ID = Digest(Algorithm.SHA512, bytes(range(64)))
ORIGIN = Origin(
    image=ImageReference("registry", "example.com/os:42"),
    boot_type=BootType.BLS,
    boot_digest="ab" * 32,
    manifest_digest=OciDigest("sha256", "cd" * 32),
)


#: Too large to be in the tree itself.
MANAGER = b"[Manager]\n" * 10


def meta(mode: int) -> Stat:
    return Stat(mode, os.getuid(), os.getgid())


def etc_of_image() -> Directory:
    manager = External(verity_digest(MANAGER, Algorithm.SHA512), len(MANAGER))
    systemd = Directory(meta(0o755), {b"system.conf": Leaf(meta(0o644), manager)})
    return Directory(
        meta(0o751),
        {
            b"hostname": Leaf(meta(0o644), Inline(b"pristine\n")),
            b".updated": Leaf(meta(0o644), Inline(b"stamp")),
            b"systemd": systemd,
            b"mtab": Leaf(meta(0o777), Symlink(b"../proc/self/mounts")),
        },
    )


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    (path / "var/log").mkdir(parents=True)
    (path / "var/tmp").mkdir()
    (path / "var/tmp").chmod(0o1777)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


def create(root: Path, etc: Directory, served: bytes = MANAGER) -> None:
    def open_content(content: External) -> int:
        path = root / "content"
        path.write_bytes(served)
        fd = os.open(path, os.O_RDONLY)
        path.unlink()
        return fd

    with Dir.open(root) as root_dir:
        create_state(root_dir, etc, open_content, IMAGE_ID, ORIGIN)


def test_the_state_of_a_deployment(root: Path) -> None:
    create(root, etc_of_image())

    state = root / "state/deploy" / IMAGE_ID.hex
    assert sorted(os.listdir(state)) == sorted([f"{IMAGE_ID.hex}.origin", "etc", "var"])
    assert (state / "etc/hostname").read_text() == "pristine\n"
    assert (state / "etc/systemd/system.conf").read_text() == MANAGER.decode()
    assert os.readlink(state / "etc/mtab") == "../proc/self/mounts"
    assert stat.S_IMODE((state / "etc").stat().st_mode) == 0o751
    assert os.readlink(state / "var") == "../../os/default/var"


def test_the_origin_is_what_other_implementations_read(root: Path) -> None:
    create(root, etc_of_image())

    origin = root / "state/deploy" / IMAGE_ID.hex / f"{IMAGE_ID.hex}.origin"
    assert stat.S_IMODE(origin.stat().st_mode) == 0o644
    assert origin.read_text() == (
        "[origin]\n"
        "container-image-reference = ostree-unverified-image:docker://example.com/os:42\n"
        "\n"
        "[boot]\n"
        "boot_type = bls\n"
        f"digest = {'ab' * 32}\n"
        "\n"
        "[image]\n"
        f"manifest_digest = sha256:{'cd' * 32}\n"
    )


def test_the_update_stamp_is_not_written(root: Path) -> None:
    etc = etc_of_image()
    create(root, etc)
    assert not (root / "state/deploy" / IMAGE_ID.hex / "etc/.updated").exists()
    assert b".updated" in etc.entries


def test_existing_state_is_left_alone(root: Path) -> None:
    create(root, etc_of_image())
    hostname = root / "state/deploy" / IMAGE_ID.hex / "etc/hostname"
    hostname.write_text("changed\n")

    with pytest.raises(FileExistsError) as caught:
        create(root, etc_of_image())

    assert hostname.read_text() == "changed\n"
    assert f"Creating the state of deployment {IMAGE_ID.hex}" in one_line(caught.value)


def test_no_origin_when_content_is_damaged(root: Path) -> None:
    with pytest.raises(ContentChanged) as caught:
        create(root, etc_of_image(), b"damaged" * 10)

    assert f"Creating the state of deployment {IMAGE_ID.hex}: Writing 'systemd/system.conf'" in (
        one_line(caught.value)
    )
    assert not (root / "state/deploy" / IMAGE_ID.hex / f"{IMAGE_ID.hex}.origin").exists()


def test_var_of_the_image_becomes_var_of_all(root: Path, image: Path) -> None:
    with Dir.open(root) as root_dir, Dir.open(image) as image_dir:
        create_var(root_dir, image_dir)

    var = root / "state/os/default/var"
    assert sorted(os.listdir(var)) == ["log", "tmp"]
    assert stat.S_IMODE((var / "tmp").stat().st_mode) == 0o1777


def test_the_link_to_var_leads_there(root: Path, image: Path) -> None:
    create(root, etc_of_image())
    with Dir.open(root) as root_dir, Dir.open(image) as image_dir:
        create_var(root_dir, image_dir)
    assert (root / "state/deploy" / IMAGE_ID.hex / "var/log").is_dir()


def test_an_image_without_var(root: Path, image: Path) -> None:
    os.rename(image / "var", image / "was-var")
    with (
        Dir.open(root) as root_dir,
        Dir.open(image) as image_dir,
        pytest.raises(FileNotFoundError) as caught,
    ):
        create_var(root_dir, image_dir)
    assert caught.value.errno == errno.ENOENT
    assert "Creating /var" in one_line(caught.value)


# -- removing


def deployments(root: Path) -> list[str]:
    return sorted(os.listdir(root / "state/deploy"))


def test_state_is_removed(root: Path) -> None:
    create(root, etc_of_image())
    with Dir.open(root) as root_dir:
        remove_state(root_dir, IMAGE_ID)
        remove_state(root_dir, IMAGE_ID)
        set_state_aside(root_dir, IMAGE_ID)
    assert deployments(root) == []


@pytest.mark.root
@pytest.mark.parametrize("path", ["", "etc", "etc/systemd", "etc/hostname", f"{IMAGE_ID}.origin"])
def test_state_that_chattr_protects_is_removed(root: Path, path: str) -> None:
    create(root, etc_of_image())
    set_flags(root / "state/deploy" / IMAGE_ID.hex / path, IMMUTABLE)
    with Dir.open(root) as root_dir:
        remove_state(root_dir, IMAGE_ID)
    assert deployments(root) == []


def test_a_part_of_state_is_never_taken_for_a_deployment(root: Path) -> None:
    """Power lost at every change: all of it, or none under its name."""
    create(root, etc_of_image())
    whole = sorted(p.relative_to(root) for p in root.rglob("*"))

    def remove() -> None:
        with Dir.open(root) as root_dir:
            remove_state(root_dir, IMAGE_ID)

    for number in range(1, 60):
        died = dies(number, remove)
        left = deployments(root)
        if left == [IMAGE_ID.hex]:
            assert sorted(p.relative_to(root) for p in root.rglob("*")) == whole
        else:
            assert all(name.startswith(f".removed-{IMAGE_ID.hex}-") for name in left)
            # Its place is free.
            create(root, etc_of_image())
        with Dir.open(root) as root_dir:
            for name in left:
                if name != IMAGE_ID.hex:
                    remove_leftover(root_dir, name)
        assert deployments(root) == [IMAGE_ID.hex]
        if not died:
            break
    assert 5 < number < 59


@pytest.mark.root
def test_state_set_aside_waits_for_its_removal(root: Path) -> None:
    create(root, etc_of_image())
    set_flags(root / "state/deploy" / IMAGE_ID.hex, IMMUTABLE)
    with Dir.open(root) as root_dir:
        set_state_aside(root_dir, IMAGE_ID)
        create(root, etc_of_image())
        set_state_aside(root_dir, IMAGE_ID)
        (one, other) = deployments(root)
        assert one != other
        for name in (one, other):
            assert name.startswith(f".removed-{IMAGE_ID.hex}-")
            remove_leftover(root_dir, name)
    assert deployments(root) == []


def test_what_cannot_be_removed_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create(root, etc_of_image())
    unlink = removal._unlink

    def failing(directory: int, name: str) -> bool:
        if name == "hostname":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return unlink(directory, name)

    monkeypatch.setattr(removal, "_unlink", failing)
    with Dir.open(root) as root_dir, pytest.raises(OSError, match="Input/output") as caught:
        remove_state(root_dir, IMAGE_ID)
    (left,) = deployments(root)
    assert one_line(caught.value) == (
        f"Removing the state of deployment {IMAGE_ID}: {root}/state/deploy/{left}/etc/hostname: "
        "Input/output error"
    )
    assert [p.name for p in (root / "state/deploy").rglob("*") if p.is_file()] == ["hostname"]


@pytest.mark.root
def test_deployments_that_chattr_protects_are_not_ours_to_change(root: Path) -> None:
    create(root, etc_of_image())
    set_flags(root / "state/deploy", IMMUTABLE)
    try:
        with Dir.open(root) as root_dir, pytest.raises(PermissionError) as caught:
            remove_state(root_dir, IMAGE_ID)
    finally:
        unprotect(root / "state")
    assert "the directory it is in is immutable or append-only" in one_line(caught.value)
    assert deployments(root) == [IMAGE_ID.hex]
