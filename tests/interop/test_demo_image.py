"""The finished demo image: what bootc needs of an image, and what its author promises.

Reads the OCI layout that ``examples/debian/build`` left in ``build/demo``, or below
the directory ``$BOOTC_DEMO_IMAGE`` names, with nothing of ours in between.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tomllib
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from support import require

pytestmark = pytest.mark.interop

DEMO = Path(os.environ.get("BOOTC_DEMO_IMAGE", Path(__file__).parents[2] / "build/demo"))
LAYOUT = DEMO / "oci"
MIB = 1 << 20


def blob(digest: str) -> Path:
    return LAYOUT / "blobs" / digest.replace(":", "/")


@dataclass(frozen=True)
class Layer:
    """A layer, decompressed."""

    diff_id: str
    archive: tarfile.TarFile

    def names(self) -> list[str]:
        return [os.path.normpath(member.name) for member in self.archive]

    def whiteouts(self) -> list[str]:
        return [name for name in self.names() if os.path.basename(name).startswith(".wh.")]


class Tree:
    """Layers on top of each other: name to member, and the archive that has its content."""

    def __init__(self, layers: list[Layer]) -> None:
        self.members: dict[str, tuple[tarfile.TarInfo, tarfile.TarFile]] = {}
        for layer in layers:
            for whiteout in layer.whiteouts():
                directory, name = os.path.split(whiteout)
                self._delete(os.path.join(directory, name.removeprefix(".wh.")))
            for member in layer.archive:
                name = os.path.normpath(member.name)
                if not os.path.basename(name).startswith(".wh."):
                    self.members[name] = (member, layer.archive)

    def _delete(self, path: str) -> None:
        for name in list(self.members):
            if name == path or name.startswith(path + "/"):
                del self.members[name]

    def __contains__(self, name: str) -> bool:
        return name in self.members

    def read(self, name: str) -> bytes:
        member, archive = self.members[name]
        content = archive.extractfile(member)
        assert content is not None, name
        return content.read()

    def text(self, name: str) -> str:
        return self.read(name).decode()

    def target(self, name: str) -> str:
        member, _ = self.members[name]
        assert member.issym(), name
        return member.linkname

    def children(self, path: str) -> list[str]:
        return sorted(name for name in self.members if os.path.dirname(name) == path)

    def size_bytes(self) -> int:
        return sum(member.size for member, _ in self.members.values() if member.isreg())


@dataclass(frozen=True)
class Image:
    """One tag of the layout."""

    manifest: dict[str, Any]
    config: dict[str, Any]
    layers: list[Layer]
    tree: Tree


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Image]]:
    if not (LAYOUT / "index.json").exists():
        require.lacking(f"{LAYOUT} is not built (examples/debian/build makes it)")
    with ExitStack() as opened:
        yield _read_layout(tmp_path_factory.mktemp("layers"), opened)


def _read_layout(scratch: Path, opened: ExitStack) -> dict[str, Image]:
    layers: dict[str, Layer] = {}
    found = {}
    for entry in json.loads((LAYOUT / "index.json").read_bytes())["manifests"]:
        manifest = json.loads(blob(entry["digest"]).read_bytes())
        for descriptor in manifest["layers"]:
            digest = descriptor["digest"]
            if digest not in layers:
                layers[digest] = _decompressed(blob(digest), scratch / digest[-16:], opened)
        own = [layers[descriptor["digest"]] for descriptor in manifest["layers"]]
        found[entry["annotations"]["org.opencontainers.image.ref.name"]] = Image(
            manifest,
            json.loads(blob(manifest["config"]["digest"]).read_bytes()),
            own,
            Tree(own),
        )
    return found


def _decompressed(source: Path, target: Path, opened: ExitStack) -> Layer:
    with gzip.open(source) as compressed, target.open("wb") as plain:
        shutil.copyfileobj(compressed, plain, MIB)
    with target.open("rb") as plain:
        diff_id = "sha256:" + hashlib.file_digest(plain, "sha256").hexdigest()
    return Layer(diff_id, opened.enter_context(tarfile.open(target)))


@pytest.fixture(scope="module")
def v1(images: dict[str, Image]) -> Image:
    return images["v1"]


@pytest.fixture(scope="module")
def v2(images: dict[str, Image]) -> Image:
    return images["v2"]


def kernel_directory(tree: Tree) -> str:
    (directory,) = tree.children("usr/lib/modules")
    return directory


def os_release(tree: Tree) -> dict[str, str]:
    lines = tree.text("usr/lib/os-release").splitlines()
    return {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines)}


def test_one_layout_holds_both_versions(images: dict[str, Image]) -> None:
    assert sorted(images) == ["v1", "v2"]


@pytest.mark.parametrize("tag", ["v1", "v2"])
def test_skopeo_reads_the_image_and_its_labels(images: dict[str, Image], tag: str) -> None:
    command = [require.tool("skopeo"), "inspect", f"oci:{LAYOUT}:{tag}"]
    inspected = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert inspected["Labels"] == {
        "containers.bootc": "1",
        "org.opencontainers.image.title": "Debian demo image",
        "org.opencontainers.image.version": tag.removeprefix("v"),
    }
    assert inspected["Architecture"] == "amd64"
    assert len(inspected["Layers"]) == len(images[tag].layers)


@pytest.mark.parametrize("tag", ["v1", "v2"])
def test_layers_are_what_the_configuration_says(images: dict[str, Image], tag: str) -> None:
    image = images[tag]
    assert image.config["rootfs"]["diff_ids"] == [layer.diff_id for layer in image.layers]


def test_there_are_three_layers_and_whiteouts(v1: Image) -> None:
    assert len(v1.layers) == 3
    assert "usr/lib/udev/.wh.hwdb.d" in v1.layers[2].whiteouts()
    assert "usr/lib/udev/hwdb.d" not in v1.tree
    assert "usr/lib/udev/hwdb.bin" in v1.tree


def test_nothing_is_deleted_below_a_link(v2: Image) -> None:
    """umoci writes that for a directory that became a link, and readers of layers differ on it."""
    links = {name for name, (member, _) in v2.tree.members.items() if member.issym()}
    for layer in v2.layers:
        assert [name for name in layer.whiteouts() if os.path.dirname(name) in links] == []


def test_version_2_is_version_1_and_one_small_layer(v1: Image, v2: Image) -> None:
    assert v2.manifest["layers"][:-1] == v1.manifest["layers"]
    assert v2.manifest["layers"][-1]["size"] < 4096
    assert os_release(v1.tree)["VERSION_ID"] == "1"
    assert os_release(v2.tree)["VERSION_ID"] == "2"
    assert v2.layers[-1].whiteouts() == ["usr/share/demo/.wh.removed.txt"]
    assert v1.tree.children("usr/share/demo") == [
        "usr/share/demo/changed.txt",
        "usr/share/demo/removed.txt",
    ]
    assert v2.tree.children("usr/share/demo") == [
        "usr/share/demo/added.txt",
        "usr/share/demo/changed.txt",
    ]
    assert v1.tree.text("etc/demo.conf") != v2.tree.text("etc/demo.conf")


def test_it_is_lean(v1: Image) -> None:
    assert v1.tree.size_bytes() < 350 * MIB


def test_the_kernel_is_where_bootc_looks_and_boot_is_empty(v1: Image) -> None:
    directory = kernel_directory(v1.tree)
    assert directory.endswith("-cloud-amd64")
    # The magic of the Linux x86 boot protocol's header.
    assert v1.tree.read(f"{directory}/vmlinuz")[0x202:0x206] == b"HdrS"
    assert v1.tree.members["boot"][0].isdir()
    assert v1.tree.children("boot") == []


def test_the_initramfs_finds_the_disk_and_mounts_the_image(v1: Image) -> None:
    directory = kernel_directory(v1.tree)
    initramfs = v1.tree.read(f"{directory}/initramfs.img")
    assert len(initramfs) < 40 * MIB
    archive = subprocess.run(
        [require.tool("zstd"), "-dc"], input=initramfs, capture_output=True, check=True
    ).stdout
    listed = subprocess.run(
        [require.tool("cpio"), "-t", "--quiet"], input=archive, capture_output=True, check=True
    )
    names = set(listed.stdout.decode().split())
    modules = {os.path.basename(name).partition(".")[0] for name in names if ".ko" in name}
    # ext4 and NVMe are built into this kernel.
    assert modules >= {"erofs", "overlay", "vfat", "efivarfs", "btrfs", "virtio_blk"}
    assert names >= {
        "usr/bin/python3",
        "usr/lib/bootc/initramfs-setup",
        "usr/lib/python3/dist-packages/bootc/initramfs/setup_root.pyc",
        "usr/lib/systemd/system/bootc-root-setup.service",
        "usr/lib/systemd/system/initrd-root-fs.target.requires/bootc-root-setup.service",
        "usr/lib/systemd/system-generators/systemd-gpt-auto-generator",
        "usr/lib/systemd/systemd-fsck",
        "usr/sbin/fsck.ext4",
        "usr/lib/udev/rules.d/99-systemd.rules",
    }


def test_the_tree_is_laid_out_for_a_read_only_root(v1: Image) -> None:
    for name in ("boot", "dev", "etc", "proc", "run", "sys", "sysroot", "tmp", "usr", "var"):
        assert v1.tree.members[name][0].isdir(), name
    links = {
        "home": "var/home",
        "root": "var/roothome",
        "srv": "var/srv",
        "opt": "var/opt",
        "mnt": "var/mnt",
        "media": "run/media",
        "usr/local": "../var/usrlocal",
        "ostree": "sysroot/ostree",
        "usr/lib/bootc/storage": "../../../sysroot/ostree/bootc/storage",
        "var/lib/dpkg": "../../usr/lib/sysimage/dpkg",
        "etc/os-release": "../usr/lib/os-release",
        "usr/sbin/init": "../lib/systemd/systemd",
    }
    assert {name: v1.tree.target(name) for name in links} == links
    assert v1.tree.children("run") == []
    assert v1.tree.children("dev") == []


def test_the_configuration_bootc_reads_is_there(v1: Image) -> None:
    prepare_root = ConfigParser()
    prepare_root.read_string(v1.tree.text("usr/lib/ostree/prepare-root.conf"))
    assert prepare_root.getboolean("composefs", "enabled")
    assert tomllib.loads(v1.tree.text("usr/lib/bootc/kargs.d/10-console.toml")) == {
        "kargs": ["console=tty0", "console=ttyS0,115200"]
    }
    assert tomllib.loads(v1.tree.text("usr/lib/bootc/install/00-debian.toml")) == {
        "install": {
            "root-fs-type": "ext4",
            "bootloader": "systemd",
            "discoverable-partitions": True,
        }
    }


@pytest.mark.parametrize(
    "program",
    [
        "usr/bin/bootc",
        "usr/bin/python3.13",
        "usr/bin/skopeo",
        "usr/bin/bootctl",
        "usr/sbin/sfdisk",
        "usr/sbin/mkfs.vfat",
        "usr/sbin/mkfs.ext4",
        "usr/lib/systemd/boot/efi/systemd-bootx64.efi",
    ],
)
def test_the_installer_has_its_tools(v1: Image, program: str) -> None:
    assert program in v1.tree


def test_there_is_no_password_and_no_identity_in_it(v1: Image) -> None:
    passwords = {
        fields[0]: fields[1]
        for fields in (line.split(":") for line in v1.tree.text("etc/shadow").splitlines())
    }
    assert passwords["root"] == "*"
    assert {value for value in passwords.values() if value.startswith("$") or not value} == set()
    assert v1.tree.read("etc/machine-id") == b""
    assert v1.tree.text("etc/hostname") == "demo\n"
    assert "etc/resolv.conf" not in v1.tree
    assert "etc/apt/sources.list" not in v1.tree


def test_no_file_is_newer_than_the_image_says(v1: Image) -> None:
    created = datetime.fromisoformat(v1.config["created"]).timestamp()
    assert max(member.mtime for member, _ in v1.tree.members.values()) == created


def test_the_live_disk_is_of_this_image(v1: Image) -> None:
    directory = kernel_directory(v1.tree)
    for name in ("vmlinuz", "initramfs.img"):
        assert (DEMO / name).read_bytes() == v1.tree.read(f"{directory}/{name}")
    dumped = subprocess.run(
        [require.tool("debugfs"), "-R", "cat /usr/lib/os-release", str(DEMO / "live.img")],
        capture_output=True,
        check=True,
    )
    assert dumped.stdout == v1.tree.read("usr/lib/os-release")
