from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from bootc.deploy.state import create_state, create_var
from bootc.errors import one_line
from bootc.formats.digest import Algorithm, Digest, OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import BootType, Origin
from bootc.formats.tree import Directory, External, Inline, Leaf, Stat, Symlink
from bootc.formats.verity import verity_digest
from bootc.fs.dir import Dir
from bootc.fs.materialise import ContentChanged

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
