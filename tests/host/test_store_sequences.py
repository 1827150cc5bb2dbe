"""The sequences of tests/property with images mounted meanwhile, and what a mount keeps.

Collection does not know of mounts: what nobody refers to goes, mounted or not
(docs/explanation/durability.md). Then what is open stays readable, and what is not opened yet
is an error, never other content.
"""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule, run_state_machine_as_test

from bootc.formats.digest import Digest
from bootc.formats.verity import verity_digest
from bootc.fs.dir import Dir
from bootc.fs.mounts import mounted
from bootc.kernel import fsverity
from bootc.repository.gc import collect
from bootc.repository.mounting import ImageNotFound, mount_composefs, open_verified_image
from bootc.repository.repository import Repository
from support import require
from support.examples import of_machine
from support.sequences import StoreMachine
from support.stored import IN_MEMORY, Store, object_names

pytestmark = pytest.mark.host

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
MOST_MOUNTS = 3
#: How kernels say that the object of a file is not there.
GONE = (errno.ENOENT, errno.EIO)
FILES = {"a": b"a" * 5000, "b": b"b" * 5000}


@pytest.fixture(scope="module")
def volume() -> Iterator[Dir]:
    """An ext4 file system in memory, where a sync costs little."""
    require.root()
    losetup, mkfs = require.tool("losetup"), require.tool("mkfs.ext4")
    with tempfile.NamedTemporaryFile(dir=IN_MEMORY) as image:
        image.truncate(64 << 20)
        subprocess.run([mkfs, "-q", image.name], check=True)
        done = subprocess.run(
            [losetup, "--show", "-f", image.name], check=True, stdout=subprocess.PIPE
        )
        device = done.stdout.decode().strip()
        try:
            with mounted(device, "ext4") as root:
                yield root
        finally:
            subprocess.run([losetup, "-d", device], check=True)


def mount_image(repository: Repository, image_id: str) -> int:
    image_fd = open_verified_image(repository.dir.fileno(), image_id, require_verity=False)
    try:
        with repository.dir.open_dir("objects") as objects:
            return mount_composefs(image_fd, objects.fileno(), name=image_id, verity=False)
    finally:
        os.close(image_fd)


class MountedImage:
    """An image and its detached mount, which ends when it is closed, or with this process."""

    def __init__(self, repository: Repository, image_id: str, files: Mapping[str, bytes]) -> None:
        self.image_id = image_id
        self.files = files
        #: Files that are open, by name.
        self.opened: dict[str, int] = {}
        with ExitStack() as stack:
            mount_fd = mount_image(repository, image_id)
            stack.callback(os.close, mount_fd)
            self.root = stack.enter_context(Dir(os.open(".", _DIRECTORY, dir_fd=mount_fd)))
            self._stack = stack.pop_all()

    def open_file(self, name: str) -> int:
        if name not in self.opened:
            self.opened[name] = self.root.open_file(name)
            self._stack.callback(os.close, self.opened[name])
        return self.opened[name]

    def read(self, name: str) -> bytes:
        return self.root.read_bytes(name)

    def close(self) -> None:
        self._stack.close()


class MountingMachine(StoreMachine):
    """A repository, and images of it that stay mounted whatever is done to it."""

    def __init__(self, home: str) -> None:
        super().__init__(home, fsverity)
        self.mounts: list[MountedImage] = []

    @precondition(lambda self: self.stored and len(self.mounts) < MOST_MOUNTS)
    @rule(data=st.data())
    def mount(self, data: st.DataObject) -> None:
        stored = self.any_stored(data)
        files = self.store.contents[Digest.from_hex(stored.image_id)]
        image = MountedImage(self.repository, stored.image_id, files)
        self.stack.callback(image.close)
        self.mounts.append(image)

    # One file at a time: the kernel looks for an object when a file is first opened.
    @precondition(lambda self: self.mounts)
    @rule(data=st.data(), stay=st.booleans())
    def open_file(self, data: st.DataObject, stay: bool) -> None:
        image = data.draw(st.sampled_from(self.mounts), label="mount")
        name = data.draw(st.sampled_from(sorted(image.files)))
        if self.see(image, name) and stay:
            image.open_file(name)

    @precondition(lambda self: self.mounts)
    @rule(data=st.data())
    def unmount(self, data: st.DataObject) -> None:
        image = data.draw(st.sampled_from(self.mounts), label="mount")
        self.see_all(image)
        self.mounts.remove(image)
        image.close()

    def see_all(self, image: MountedImage) -> None:
        assert image.root.names() == sorted(image.files)
        for name in image.files:
            self.see(image, name)

    def see(self, image: MountedImage, name: str) -> bool:
        """Read a file and tell whether that went well, which it must if its object is needed."""
        content = image.files[name]
        digest = verity_digest(content, self.algorithm)
        needed = image.image_id in self.live() or digest.hex in object_names(self.repository)
        try:
            found = image.read(name)
        except OSError as exc:
            if needed or exc.errno not in GONE:
                raise
            return False
        assert found == content
        return True

    @invariant()
    def what_is_open_stays_readable(self) -> None:
        for image in self.mounts:
            for name, fd in image.opened.items():
                assert os.pread(fd, 1 << 20, 0) == image.files[name]

    def teardown(self) -> None:
        try:
            for image in self.mounts:
                self.see_all(image)
        finally:
            # Unmounts, too.
            super().teardown()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_sequences(volume: Dir) -> None:
    before = descriptors()
    run_state_machine_as_test(lambda: MountingMachine(volume.path), settings=of_machine(30))
    # Nothing is mounted any more, for each mount was a descriptor.
    assert descriptors() == before


@pytest.fixture
def repository(volume: Dir) -> Iterator[Repository]:
    with (
        tempfile.TemporaryDirectory(dir=volume.path) as root,
        Dir.open(root) as parent,
        Repository.create(parent, secure=False) as repository,
    ):
        yield repository


@pytest.fixture
def image(repository: Repository) -> Iterator[MountedImage]:
    """An image that is mounted and has no reference."""
    stored = Store().add(repository, FILES)
    image = MountedImage(repository, stored.image_id, FILES)
    yield image
    image.close()


def test_a_mount_alone_keeps_what_is_open(repository: Repository, image: MountedImage) -> None:
    fd = image.open_file("a")
    collect(repository)
    assert object_names(repository) == set()
    assert os.pread(fd, 1 << 20, 0) == FILES["a"]
    # The image itself is open, too: names and attributes are there.
    assert image.root.names() == ["a", "b"]
    assert image.root.stat("b").st_size == len(FILES["b"])
    with pytest.raises(OSError, match=r"No such file|Input/output error"):
        image.read("b")
    with pytest.raises(ImageNotFound):
        mount_image(repository, image.image_id)


def test_a_mount_is_whole_again_when_its_image_is(
    repository: Repository, image: MountedImage
) -> None:
    collect(repository)
    with pytest.raises(OSError, match=r"No such file|Input/output error"):
        image.read("b")
    Store().add(repository, FILES)
    assert {name: image.read(name) for name in FILES} == FILES


def test_who_mounts_without_a_reference_names_a_root(
    repository: Repository, image: MountedImage
) -> None:
    collect(repository, roots=[image.image_id])
    assert {name: image.read(name) for name in FILES} == FILES
