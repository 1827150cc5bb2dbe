"""A repository on a file system with real fs-verity: filled, damaged, checked, healed.

In a live machine that is resumed once, on a disk of its own. Damage below the file system is
done from outside while the guest has it unmounted.
"""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from stations import SMALL, measure

from bootc.formats.digest import Algorithm
from bootc.formats.verity import verity_digest
from support import images
from testbed.agent import Result
from testbed.machine import Machine
from testbed.saved import Saved
from testbed.tamper import Ext4

pytestmark = [pytest.mark.boot, pytest.mark.timeout(2400)]

#: Where the guest has the disk and the image.
DISK, MOUNT_POINT = SMALL, "/run/store"
IMAGE = "/run/image"
REPOSITORY = f"{MOUNT_POINT}/r"
BLOCK_BYTES = 4096
LARGE = random.Random(4).randbytes(300_000)
VICTIM = verity_digest(LARGE, Algorithm.SHA512).hex
OBJECT = f"objects/{VICTIM[:2]}/{VICTIM[2:]}"
LAYER = images.layer(
    images.directory("usr"),
    images.file("usr/large", LARGE),
    images.file("usr/small", b"more than what an inode holds " * 10),
    images.file("usr/tiny", b"tiny"),
)


@dataclass(frozen=True)
class Store:
    """A repository in a running machine, fresh and filled."""

    machine: Machine
    disk: Path

    def cfs(self, arguments: str) -> Result:
        """Run ``bootc internals cfs`` on the repository."""
        return self.machine.run(
            f"bootc internals cfs --repo {REPOSITORY} {arguments}", check=False, timeout_s=300
        )

    def mkfs(self) -> None:
        """Make an empty file system for another repository."""
        self.machine.run(
            f"mkdir -p {MOUNT_POINT}; umount -q {MOUNT_POINT};"
            f" mkfs.ext4 -q -F -O verity -b {BLOCK_BYTES} {DISK} && mount {DISK} {MOUNT_POINT}"
        )

    def pull(self) -> Result:
        """Pull the image, also again."""
        return self.cfs(f"oci pull oci:{IMAGE}:v1 test")

    def flip_byte(self, path: str, position: int) -> None:
        """Change a byte on the medium."""
        self.machine.run(f"umount {MOUNT_POINT}")
        Ext4(self.disk, 0, BLOCK_BYTES).flip_byte(f"/r/{path}", position)
        self.machine.run(f"mount {DISK} {MOUNT_POINT}")

    def replace(self, path: str, content: bytes) -> None:
        """Put a file without fs-verity in another's place."""
        self.machine.run(f"cd {REPOSITORY} && cat >.new && mv -f .new {path}", input_bytes=content)

    def damage(self) -> list[str]:
        """Return the kinds of what a check finds, the victim being named."""
        result = self.cfs("fsck")
        assert result.rc == 1, result
        _, status, findings = result.stdout.partition("status: ")
        assert status, result
        assert VICTIM in findings.replace("/", ""), result
        count, *lines = findings.splitlines()
        assert count == f"{len(lines)} error(s)"
        return [line.removeprefix("  - fsck: ").partition(":")[0] for line in lines]

    def check_health(self) -> None:
        """Everything is there, and the kernel vouches for it under its own name."""
        result = self.cfs("fsck")
        assert (result.rc, result.stdout.splitlines()[-1]) == (0, "status: ok"), result
        measured = measure(self.machine, REPOSITORY)
        assert VICTIM in measured.values()
        assert all(digest == name.replace("/", "") for name, digest in measured.items())
        content = self.machine.run(f"cat {REPOSITORY}/{OBJECT}").stdout_bytes
        assert content == LARGE


@pytest.fixture(scope="module")
def live(
    live_machine: Saved, logs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    directory = tmp_path_factory.mktemp("store")
    layout = images.single(directory / "oci", LAYER, tag="v1")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(layout.path, ".")
    hardware = live_machine.copy(directory)
    (disk,) = (disk.path for disk in hardware.disks if disk.serial == "small")
    with Machine(hardware, keep_console=logs / "store.txt", resume=live_machine) as machine:
        machine.wait_ready()
        machine.run(f"mkdir {IMAGE} && tar -xC {IMAGE}", input_bytes=packed.getvalue())
        yield Store(machine, disk)
    for part in hardware.disks:
        part.path.unlink()


@pytest.fixture
def store(live: Store) -> Store:
    live.mkfs()
    assert live.cfs("init").rc == 0
    assert live.pull().rc == 0
    return live


def test_made_and_filled(live: Store) -> None:
    live.mkfs()
    made = live.cfs("init")
    assert (made.rc, made.stdout.splitlines()) == (
        0,
        [
            f"Initialized composefs repository at {REPOSITORY}",
            "  algorithm: fsverity-sha512-12",
            "  verity:    required",
        ],
    )
    pulled = live.pull()
    assert pulled.rc == 0, pulled
    words = [line.split()[0] for line in pulled.stdout.splitlines()]
    assert words == ["manifest", "config", "verity", "tagged", "objects"]
    again = live.pull()
    assert (again.rc, "objects  0 new + " in again.stdout) == (0, True), again
    live.check_health()


def test_a_byte_changed_on_the_medium_is_found_and_healed(store: Store) -> None:
    store.flip_byte(OBJECT, 200_000)
    assert "object-verity-failed" in store.damage()
    repaired = store.cfs("fsck --repair")
    assert (repaired.rc, f"quarantined: {VICTIM}" in repaired.stdout) == (1, True), repaired
    assert store.pull().rc == 0
    store.check_health()


def test_a_missing_object_is_found_and_healed(store: Store) -> None:
    store.machine.run(f"rm {REPOSITORY}/{OBJECT}")
    assert "missing-object-ref" in store.damage()
    repaired = store.cfs("fsck --repair")
    assert (repaired.rc, f"missing: {VICTIM}" in repaired.stdout) == (1, True), repaired
    assert store.pull().rc == 0
    store.check_health()


def test_an_intact_object_without_verity_is_found_and_sealed_again(store: Store) -> None:
    store.replace(OBJECT, LARGE)
    assert store.damage() == ["object-verity-missing"]
    repaired = store.cfs("fsck --repair")
    assert (repaired.rc, f"resealed: {VICTIM}" in repaired.stdout) == (0, True), repaired
    store.check_health()


def test_other_content_without_verity_is_found_and_healed(store: Store) -> None:
    store.replace(OBJECT, LARGE[::-1])
    assert "object-digest-mismatch" in store.damage()
    repaired = store.cfs("fsck --repair")
    assert (repaired.rc, f"quarantined: {VICTIM}" in repaired.stdout) == (1, True), repaired
    assert store.pull().rc == 0
    store.check_health()


def test_other_content_with_verity_is_found_and_healed(store: Store) -> None:
    store.replace(OBJECT, LARGE[::-1])
    store.machine.run(f"fsverity enable --hash-alg=sha512 {REPOSITORY}/{OBJECT}")
    assert "object-digest-mismatch" in store.damage()
    assert store.cfs("fsck --repair").rc == 1
    assert store.pull().rc == 0
    store.check_health()


def test_a_file_system_without_verity_is_refused(store: Store) -> None:
    store.machine.run(
        f"umount {MOUNT_POINT} && mkfs.ext4 -q -F -O ^verity {DISK} && mount {DISK} {MOUNT_POINT}"
    )
    result = store.cfs("init")
    assert result.rc == 1
    assert "fs-verity" in result.stderr
    assert store.machine.run(f"ls -A {REPOSITORY}", check=False).stdout == ""
