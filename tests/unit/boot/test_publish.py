from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.boot.discover import Kernel
from bootc.boot.publish import (
    DamagedKernel,
    NoSpaceOnEsp,
    publish_kernel,
    publish_primary_entry,
)
from bootc.errors import one_line
from bootc.formats.bls import BlsError, Entry
from bootc.formats.digest import Algorithm, Digest
from bootc.formats.tree import External, Inline, Leaf, Stat
from bootc.formats.verity import verity_digest
from bootc.fs.dir import Dir

DEPLOYMENT = Digest.from_hex("ab" * 64)
VMLINUZ = b"kernel " * 300_000
VMLINUZ_DIGEST = verity_digest(VMLINUZ, Algorithm.SHA512)
INITRD = b"initramfs"
ARTIFACTS = f"EFI/Linux/bootc_composefs-{DEPLOYMENT}"


class ObjectDirectory:
    """Objects in a directory, by the hex of their digest."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, digest: Digest) -> int:
        return os.open(self.path / digest.hex, os.O_RDONLY)

    def kernel(self, *, size_bytes: int = len(VMLINUZ)) -> Kernel:
        (self.path / VMLINUZ_DIGEST.hex).write_bytes(VMLINUZ)
        vmlinuz = External(VMLINUZ_DIGEST, size_bytes)
        return Kernel("6.12", Leaf(Stat(), vmlinuz), Leaf(Stat(), Inline(INITRD)))


@pytest.fixture
def objects(tmp_path: Path) -> ObjectDirectory:
    (tmp_path / "objects").mkdir()
    return ObjectDirectory(tmp_path / "objects")


@pytest.fixture
def esp(tmp_path: Path) -> Iterator[Dir]:
    (tmp_path / "esp").mkdir()
    with Dir.open(tmp_path / "esp") as directory:
        yield directory


def test_the_kernel_is_copied_and_digested(esp: Dir, objects: ObjectDirectory) -> None:
    digest = publish_kernel(esp, DEPLOYMENT, objects.kernel(), objects)
    assert digest == hashlib.sha256(VMLINUZ + INITRD).hexdigest()
    assert esp.read_bytes(f"{ARTIFACTS}/vmlinuz") == VMLINUZ
    assert esp.read_bytes(f"{ARTIFACTS}/initrd") == INITRD
    with esp.open_dir(ARTIFACTS) as directory:
        assert directory.names() == ["initrd", "vmlinuz"]


def test_publishing_again_replaces_what_a_cut_left(esp: Dir, objects: ObjectDirectory) -> None:
    with esp.ensure_dir(ARTIFACTS) as directory:
        for name in ("vmlinuz", ".tmp-file-vmlinuz"):
            os.close(directory.open_file(name, os.O_WRONLY | os.O_CREAT))
    publish_kernel(esp, DEPLOYMENT, objects.kernel(), objects)
    assert esp.read_bytes(f"{ARTIFACTS}/vmlinuz") == VMLINUZ
    with esp.open_dir(ARTIFACTS) as directory:
        assert directory.names() == ["initrd", "vmlinuz"]


@pytest.mark.parametrize("stored", [b"", VMLINUZ[:-1], VMLINUZ[:-1] + b"!"])
def test_a_damaged_kernel_is_refused(esp: Dir, objects: ObjectDirectory, stored: bytes) -> None:
    kernel = objects.kernel()
    (objects.path / VMLINUZ_DIGEST.hex).write_bytes(stored)
    with pytest.raises(DamagedKernel, match="vmlinuz in the repository is not the one"):
        publish_kernel(esp, DEPLOYMENT, kernel, objects)
    with esp.open_dir(ARTIFACTS) as directory:
        assert directory.names() == []


def test_too_small_a_partition_is_named_before_anything_is_written(
    esp: Dir, objects: ObjectDirectory
) -> None:
    kernel = objects.kernel(size_bytes=1 << 60)
    with pytest.raises(NoSpaceOnEsp, match=r"has \d+ bytes free, but the kernel needs 1\d{18}"):
        publish_kernel(esp, DEPLOYMENT, kernel, objects)
    assert esp.names() == []


def test_a_missing_object_says_what_was_being_done(esp: Dir, objects: ObjectDirectory) -> None:
    kernel = objects.kernel()
    os.unlink(objects.path / VMLINUZ_DIGEST.hex)
    with pytest.raises(FileNotFoundError) as caught:
        publish_kernel(esp, DEPLOYMENT, kernel, objects)
    assert one_line(caught.value).startswith("Writing the kernel to the EFI system partition: ")


def test_the_entry_is_written(esp: Dir) -> None:
    entry = Entry(version="1", linux="/v")
    publish_primary_entry(esp, "bootc_x-1-1.conf", entry)
    assert esp.read_bytes("loader/entries/bootc_x-1-1.conf") == b"version 1\nlinux /v\n"
    with esp.open_dir("loader/entries") as directory:
        assert directory.names() == ["bootc_x-1-1.conf"]


def test_an_entry_that_cannot_be_written_leaves_nothing(esp: Dir) -> None:
    with pytest.raises(BlsError):
        publish_primary_entry(esp, "a.conf", Entry(version="1\n2", linux="/v"))
    assert esp.names() == []


def test_a_file_in_the_way_is_named(esp: Dir) -> None:
    os.close(esp.open_file("loader", os.O_WRONLY | os.O_CREAT))
    with pytest.raises(OSError, match="loader") as caught:
        publish_primary_entry(esp, "a.conf", Entry(version="1", linux="/v"))
    assert caught.value.errno == errno.ENOTDIR
    assert caught.value.__notes__ == ["Writing boot entry a.conf"]
