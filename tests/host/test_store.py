"""A repository on a file system of its own: it survives unmounting, and a full disk."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.errors import one_line
from bootc.formats.digest import Algorithm, Digest
from bootc.formats.verity import verity_digest
from bootc.fs.dir import Dir
from bootc.fs.mounts import mounted
from bootc.kernel import fsverity
from bootc.repository.importing import Importer, Method
from bootc.repository.repository import Repository
from bootc.repository.sealing import VerityMissing
from support import require

pytestmark = pytest.mark.host


@pytest.fixture(params=["ext4", "xfs", "btrfs"])
def device(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A loop device with an empty file system, and its type."""
    require.root()
    fstype: str = request.param
    image = tmp_path / "image"
    with open(image, "wb") as file:
        file.truncate(320 << 20)
    subprocess.run([require.tool(f"mkfs.{fstype}"), "-q", image], check=True)
    losetup = require.tool("losetup")
    done = subprocess.run([losetup, "--show", "-f", image], check=True, stdout=subprocess.PIPE)
    device = done.stdout.decode().strip()
    yield device, fstype
    subprocess.run([losetup, "-d", device], check=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Dir]:
    """A file system of 1 MiB."""
    require.root()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path], check=True)
    with Dir.open(tmp_path) as root:
        yield root
    subprocess.run(["umount", tmp_path], check=True)


def test_what_is_stored_is_there_after_mounting_again(device: tuple[str, str]) -> None:
    contents = [os.urandom(size) for size in (0, 1, 4096, 100_000)]
    with mounted(*device) as root, Repository.create(root, secure=False) as repository:
        digests = [repository.objects.put(content) for content in contents]
        repository.streams.write("oci-config-sha256:1", b"stream")
        repository.streams.set_ref("oci/tag", "oci-config-sha256:1")
        image = repository.images.add(b"image")
    with (
        mounted(*device, read_only=True) as root,
        Repository.open(root, require_verity=False) as repository,
    ):
        assert [repository.objects.read(digest) for digest in digests] == contents
        assert repository.streams.refs("oci") == {"oci/tag": "oci-config-sha256:1"}
        assert repository.streams.read("oci-config-sha256:1") == b"stream"
        assert repository.images.names() == [image.hex]
        with pytest.raises(OSError, match="Read-only file system") as caught:
            Repository.open(root, require_verity=False, writable=True)
        assert caught.value.errno == errno.EROFS


# btrfs has fs-verity wherever the kernel does.
@pytest.mark.parametrize("device", ["ext4", "xfs"], indirect=True)
def test_a_file_system_without_verity_is_named(device: tuple[str, str]) -> None:
    path, fstype = device
    with mounted(path, fstype) as root, pytest.raises(VerityMissing) as caught:
        Repository.create(root, secure=True)
    # The kernel is the cause if it could not do better on any ext4.
    by_kernel = fstype == "ext4" and fsverity.is_in_kernel() is False
    cause = "the running kernel" if by_kernel else f"file system ({fstype}) that"
    assert f"{cause} does not support fs-verity" in caught.value.message


def stored(root: Dir) -> list[str]:
    objects = f"{root.path}/composefs/objects"
    return sorted(
        os.path.relpath(os.path.join(where, name), objects)
        for where, _, names in os.walk(objects)
        for name in names
    )


def test_a_full_disk_leaves_whole_objects_only(small: Dir) -> None:
    with Repository.create(small, secure=False) as repository:
        kept: dict[Digest, bytes] = {}

        def store_much() -> None:
            for number in range(100):
                content = bytes([number]) * 50_000
                kept[repository.objects.put(content)] = content

        with pytest.raises(OSError, match="No space left") as caught:
            store_much()
        assert one_line(caught.value) == (
            f"Storing an object in {small.path}/composefs/objects: No space left on device"
        )
        assert len(kept) > 10
        repository.objects.flush()
        assert stored(small) == sorted(digest.object_path for digest in kept)
        assert {digest: repository.objects.read(digest) for digest in kept} == kept
        # The space of the object that did not fit is free again.
        usage = os.statvfs(small.fileno())
        assert usage.f_bavail * usage.f_bsize > 0
        assert repository.objects.put(b"small") == verity_digest(b"small", Algorithm.SHA512)


def test_a_full_disk_while_streaming(small: Dir) -> None:
    with Repository.create(small, secure=False) as repository:
        with (
            pytest.raises(OSError, match="No space left"),
            repository.objects.writer() as writer,
        ):
            writer.write(bytes(4 << 20))
        assert stored(small) == []


def test_a_full_disk_keeps_the_old_stream(small: Dir) -> None:
    with Repository.create(small, secure=False) as repository:
        repository.streams.write("x", b"old")
        with pytest.raises(OSError, match="No space left"):
            repository.streams.write("x", os.urandom(2 << 20))
        assert repository.streams.read("x") == b"old"


def test_a_disk_too_full_for_a_repository(small: Dir) -> None:
    subprocess.run(
        ["dd", "if=/dev/zero", f"of={small.path}/ballast"], stderr=subprocess.DEVNULL, check=False
    )
    with pytest.raises(OSError, match="No space left") as caught:
        Repository.create(small, secure=False)
    assert one_line(caught.value).startswith(f"Creating the repository {small.path}/composefs: ")
    os.unlink(f"{small.path}/ballast")
    Repository.create(small, secure=False).close()


def fill(root: Dir, leave_bytes: int) -> str:
    """Take all space but some; return the file to remove."""
    usage = os.statvfs(root.fileno())
    path = f"{root.path}/ballast"
    with open(path, "wb") as file:
        file.write(bytes(max(usage.f_bavail * usage.f_bsize - leave_bytes, 0)))
    return path


@pytest.mark.parametrize("pages", range(12))
def test_a_disk_that_fills_up_at_any_step(small: Dir, pages: int) -> None:
    with Repository.create(small, secure=False) as repository:
        kept = repository.objects.put(b"kept")
        repository.streams.write("old", b"old stream")
        repository.streams.set_ref("ref", "old")
        image = repository.images.add(b"old image")
    ballast = fill(small, pages * 4096)

    def change() -> None:
        with Repository.open(small, require_verity=False, writable=True) as repository:
            for number in range(4):
                repository.objects.put(b"%d" % number)
            repository.streams.write("old", b"new stream")
            repository.streams.write("new", b"another")
            repository.streams.set_ref("ref", "new")
            repository.streams.set_ref("deep/er/ref", "new")
            repository.images.add(b"new image")

    failure = None
    try:
        change()
    except OSError as exc:
        failure = exc
    assert (failure is None) or failure.errno == errno.ENOSPC
    with Repository.open(small, require_verity=False) as repository:
        assert repository.objects.read(kept) == b"kept"
        assert repository.streams.read("old") in (b"old stream", b"new stream")
        for content_id in repository.streams.refs().values():
            assert repository.streams.read(content_id) in (b"old stream", b"new stream", b"another")
        assert image.hex in repository.images.names()
    for path in stored(small):
        content = Path(small.path, "composefs/objects", path).read_bytes()
        assert verity_digest(content, Algorithm.SHA512).object_path == path
    os.unlink(ballast)
    change()
    with Repository.open(small, require_verity=False) as repository:
        assert repository.streams.refs() == {"ref": "new", "deep/er/ref": "new"}
        assert repository.streams.read("old") == b"new stream"


@pytest.mark.parametrize("device", ["xfs", "btrfs"], indirect=True)
def test_a_file_of_the_same_file_system_shares_its_blocks(device: tuple[str, str]) -> None:
    content = os.urandom(300_000)
    with mounted(*device) as root, Repository.create(root, secure=False) as repository:
        Path(root.path, "source").write_bytes(content)
        importer = Importer(repository.objects, zerocopy=True)
        with open(f"{root.path}/source", "rb") as source:
            first = importer.add(source.fileno())
            repository.objects.flush()
            second = importer.add(source.fileno())
        assert first.method is Method.REFLINKED
        assert second.method is Method.ALREADY_PRESENT
        assert first.digest == verity_digest(content, Algorithm.SHA512)
        Path(root.path, "source").write_bytes(b"changed")
        assert repository.objects.read(first.digest) == content
