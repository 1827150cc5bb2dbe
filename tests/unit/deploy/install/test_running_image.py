"""The image of the container that an installer runs in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.deploy.install import running_image
from bootc.deploy.install.request import InstallRefused
from bootc.deploy.install.running_image import find_running_image, mount_host_directories
from bootc.formats.imgref import ImageReference
from bootc.fs import host_mounts, mounts
from bootc.fs.imageroot import ImageRoot
from bootc.fs.mounts import Mount

IMAGE_ID = "5f" * 32
WHOLE = f"""engine="podman-5.4.2"
name="eager_hopper"
id="{"0a" * 32}"
image="registry.example.com/os:1"
imageid="{IMAGE_ID}"
rootless=0
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ImageRoot]:
    """The root directory of a container that root runs."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(running_image, "_is_in_user_namespace", lambda: False)
    (tmp_path / "run").mkdir()
    with ImageRoot.open(str(tmp_path)) as opened:
        yield opened


def tell(root: ImageRoot, text: str) -> None:
    Path(root.dir.path, "run/.containerenv").write_text(text)


def test_podman_tells_the_image_by_its_id(root: ImageRoot) -> None:
    tell(root, WHOLE)
    found = find_running_image(root)
    # The name may have moved to another image since the container was started.
    assert found.source == ImageReference("containers-storage", IMAGE_ID)
    assert found.target == ImageReference("registry", "registry.example.com/os:1")


@pytest.mark.parametrize("name", ["", IMAGE_ID, f"sha256:{IMAGE_ID}", IMAGE_ID[:12]])
def test_an_image_that_was_run_by_its_id_has_no_name_for_updates(
    root: ImageRoot, name: str
) -> None:
    tell(root, WHOLE.replace("registry.example.com/os:1", name))
    found = find_running_image(root)
    assert (found.source.name, found.target) == (IMAGE_ID, None)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("rootless=0", "rootless=1", "Cannot install from rootless podman"),
        ("podman-5.4.2", "buildah-1.39", "does not say that podman runs this container"),
        # podman without --privileged leaves the file empty.
        (WHOLE, "", "must be executed with full privileges"),
        (WHOLE, "\n", "must be executed with full privileges"),
        (WHOLE, "\0\xff=\n", "does not say that podman runs this container"),
        (IMAGE_ID, "", "does not say which image this container was made of"),
        (IMAGE_ID, "../../etc/shadow", "does not say which image this container was made of"),
        (IMAGE_ID, IMAGE_ID[1:], "does not say which image this container was made of"),
    ],
)
def test_another_container_is_refused(root: ImageRoot, old: str, new: str, words: str) -> None:
    tell(root, WHOLE.replace(old, new))
    with pytest.raises(InstallRefused, match=words):
        find_running_image(root)


def test_outside_of_a_container_the_source_must_be_named(root: ImageRoot) -> None:
    words = "Either --source-imgref must be defined or this command must be executed inside"
    with pytest.raises(InstallRefused, match=words) as caught:
        find_running_image(root)
    assert caught.value.hint is not None
    assert "--source-imgref docker://" in caught.value.hint
    assert "podman run --privileged --pid=host IMAGE bootc install to-disk" in caught.value.hint


def test_a_user_namespace_is_refused(root: ImageRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_image, "_is_in_user_namespace", lambda: True)
    tell(root, WHOLE)
    with pytest.raises(InstallRefused, match="Cannot install from rootless podman"):
        find_running_image(root)


def test_an_ordinary_user_is_refused(root: ImageRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    tell(root, WHOLE)
    with pytest.raises(InstallRefused, match="must be executed as the root user"):
        find_running_image(root)


def test_a_name_that_looks_like_an_id_is_a_name(root: ImageRoot) -> None:
    tell(root, WHOLE.replace("registry.example.com/os:1", "cafebabecafe"))
    found = find_running_image(root)
    assert found.name == "cafebabecafe"


SOURCE = ImageReference("containers-storage", IMAGE_ID)


class TestHostDirectories:
    @pytest.fixture
    def done(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[object]:
        """What was mounted: from the host, or the kernel's device nodes."""
        done: list[object] = []
        monkeypatch.setattr(host_mounts, "attach_from_host", done.append)
        monkeypatch.setattr(host_mounts, "mount_devices", lambda: done.append("devices"))
        monkeypatch.setattr(running_image, "EFIVARS", "/nonexistent")
        storage = tmp_path / "containers"
        (storage / "storage/overlay-images" / IMAGE_ID).mkdir(parents=True)
        monkeypatch.setattr(running_image, "_STORAGE", str(storage))
        return done

    def test_they_come_from_the_host(
        self, done: list[object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(host_mounts, "is_host_visible", lambda: True)
        mount_host_directories(SOURCE)
        assert done == [("/var/lib/containers", "/dev", "/run/udev", "/var/tmp")]

    def test_the_user_may_have_mounted_the_storage(
        self, done: list[object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(host_mounts, "is_host_visible", lambda: False)
        storage = Mount(1, "8:1", running_image._STORAGE, "ext4", "/dev/sda1")
        monkeypatch.setattr(mounts, "read_mounts", lambda: [storage])
        mount_host_directories(SOURCE)
        assert done == ["devices"]

    def test_without_either_the_container_is_refused(
        self, done: list[object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(host_mounts, "is_host_visible", lambda: False)
        monkeypatch.setattr(mounts, "read_mounts", list)
        with pytest.raises(InstallRefused, match="podman --pid=host flag") as refused:
            mount_host_directories(SOURCE)
        storage = running_image._STORAGE
        assert f"-v {storage}:{storage}" in str(refused.value.hint)
        assert done == []

    @pytest.mark.parametrize("lost", ["overlay-images", "."])
    def test_a_storage_without_the_image_is_refused(
        self, done: list[object], monkeypatch: pytest.MonkeyPatch, lost: str
    ) -> None:
        monkeypatch.setattr(host_mounts, "is_host_visible", lambda: True)
        shutil.rmtree(Path(running_image._STORAGE, "storage", lost))
        with pytest.raises(InstallRefused, match="does not have the image of this container"):
            mount_host_directories(SOURCE)
