"""README's demo, and what somebody changed on its disk behind its back is noticed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from stations import BYSTANDER, Demonstration, FirstBoot, LiveBoot

from bootc.formats.digest import Algorithm
from bootc.formats.imgref import ImageReference
from bootc.formats.verity import verity_digest
from bootc.oci.source import open_source
from support.images import compute_image_id
from support.schemas import problems
from testbed.demo_os import DemoOs, installed
from testbed.machine import Machine
from testbed.tamper import Ext4, root_filesystem

pytestmark = [pytest.mark.boot, pytest.mark.timeout(3600)]

REFUSALS = {
    "mounted": "Device /dev/vdb is mounted",
    "too small": "/dev/vdc",
    "not a block device": "Not a block device: /etc/hostname",
    "not there": "/dev/vdz",
    "no such image": "demo:none",
    "no registry": "10.0.2.2:1",
    "unbootable": "kernel",
}


#: What README installs.
REFERENCE = "registry.example.com/os:v1"
SWITCH_ROOT = "Reached target initrd-switch-root.target"
PROGRESS = re.compile(r"\w.* …$|\w.*: \d+ %$|\w.*: done \(.* s\)$")


class TestDemonstration:
    def test_every_command_of_it_succeeds(self, demonstration: Demonstration) -> None:
        assert demonstration.status == 0, demonstration.said[-4000:]
        said = demonstration.said.splitlines()
        assert "Installation complete!" in said
        assert [line.partition(" runs ")[2] for line in said if " runs version" in line] == [
            f"version {version}, its root is composefs:{root}"
            for version, root in zip("121", roots(demonstration), strict=True)
        ]

    def test_it_says_what_the_machine_runs_on(self, demonstration: Demonstration) -> None:
        words = r"\[ *[0-9.]+ s\] Virtual machines (use KVM|are emulated \(TCG\): .+|run with .+)"
        said = demonstration.said.splitlines()
        assert len([line for line in said if re.fullmatch(words, line)]) == 1

    def test_the_end_says_what_is_on_the_disk_and_how_to_go_on(
        self, demonstration: Demonstration
    ) -> None:
        first, second, _ = (root[:12] for root in roots(demonstration))
        done, booted, rollback, *rest = demonstration.said.splitlines()[-8:]
        words = r"Done in \d+ min \d+ s\. \S+/disk\.img follows (\S+), and has:"
        assert re.fullmatch(words, done)[1] == REFERENCE
        assert booted.startswith("  booted    version 1, image sha256:")
        assert booted.endswith(f"root composefs:{first}…")
        assert rollback.startswith("  rollback  version 2, image sha256:")
        assert rollback.endswith(f"root composefs:{second}…, pinned")
        assert rest[0] == "Next:"
        assert rest[1].startswith("  make boot ")

    def test_the_rollback_brings_the_first_one_back(self, demonstration: Demonstration) -> None:
        first, second, third = roots(demonstration)
        assert (first == third, first == second) == (True, False)


class TestLiveMachine:
    def test_status_is_empty(self, live_boot: LiveBoot) -> None:
        assert live_boot.status.stdout == "System is not deployed via bootc.\n"
        assert live_boot.status.rc == 0
        host = json.loads(live_boot.status_json.stdout)
        check_host(host)
        assert host["spec"]["image"] is None
        assert {host["status"][slot] for slot in ("booted", "staged", "rollback")} == {None}

    @pytest.mark.parametrize(("case", "words"), REFUSALS.items())
    def test_what_cannot_be_installed_is_refused_in_one_line(
        self, live_boot: LiveBoot, case: str, words: str
    ) -> None:
        result = live_boot.refusals[case]
        assert result.rc == 1, result
        # Progress may come before it, where the fault is found late.
        errors = [line for line in result.stderr.splitlines() if not PROGRESS.match(line)]
        assert len(errors) == 1, result.stderr
        assert errors[0].startswith("error: ")
        assert words in errors[0]

    def test_does_not_overwrite_an_installation_unasked(self, live_boot: LiveBoot) -> None:
        assert live_boot.again.rc == 1
        assert "Detected existing partitions on /dev/vda" in live_boot.again.stderr


class TestFirstBoot:
    def test_is_running(self, first_boot: FirstBoot) -> None:
        assert (first_boot.state, first_boot.failed_units) == ("running", "")

    def test_root_is_the_image_that_was_built(self, first_boot: FirstBoot, demo_os: DemoOs) -> None:
        with open_source(ImageReference.parse(f"oci:{demo_os.layout}:v1")) as source:
            expected = compute_image_id(source)
        assert first_boot.root_source == f"composefs:{expected.hex}"

    def test_the_kernel_vouches_for_the_image(self, first_boot: FirstBoot) -> None:
        image = first_boot.image_id
        assert first_boot.image_link == f"../objects/{image[:2]}/{image[2:]}"
        assert first_boot.measured[f"{image[:2]}/{image[2:]}"] == image
        assert first_boot.meta_has_verity

    def test_the_kernel_vouches_for_every_object(self, first_boot: FirstBoot) -> None:
        assert len(first_boot.measured) > 1000
        wrong = {
            name: digest
            for name, digest in first_boot.measured.items()
            if digest != name.replace("/", "")
        }
        assert wrong == {}

    def test_mounts(self, first_boot: FirstBoot) -> None:
        kind, options = first_boot.mounts["/"].split()
        assert kind == "overlay"
        assert {"ro", "verity=require"} <= set(options.split(","))
        for path, access in (("/sysroot", "ro"), ("/etc", "rw"), ("/var", "rw")):
            kind, options = first_boot.mounts[path].split()
            assert (path, kind, options.split(",")[0]) == (path, "ext4", access)

    def test_the_system_is_read_only_and_its_state_is_not(self, first_boot: FirstBoot) -> None:
        for place in ("/usr", "/", "/sysroot"):
            assert "Read-only file system" in first_boot.writes[place].stderr
        for place in ("/etc", "/var"):
            assert first_boot.writes[place].rc == 0

    def test_status(self, first_boot: FirstBoot, demo_os: DemoOs) -> None:
        host = json.loads(first_boot.status_json)
        check_host(host)
        assert yaml.safe_load(first_boot.status_yaml) == host
        # Canonical: keys sorted, no white space, no line end.
        assert first_boot.status_json == json.dumps(
            host, sort_keys=True, separators=(",", ":"), ensure_ascii=False
        )
        image = {"image": REFERENCE, "transport": "registry"}
        assert host["spec"] == {"bootOrder": "default", "image": image}
        booted = host["status"]["booted"]
        assert booted["image"]["image"] == image
        assert booted["image"]["architecture"] == "amd64"
        assert booted["image"]["imageDigest"] == manifest_digest(demo_os, "v1")
        assert booted["composefs"] == {
            "verity": first_boot.image_id,
            "bootType": "Bls",
            "bootloader": "systemd",
            "bootDigest": booted["composefs"]["bootDigest"],
            "missingVerityAllowed": False,
        }
        assert re.fullmatch("[0-9a-f]{64}", booted["composefs"]["bootDigest"])
        assert host["status"]["rollback"]["image"]["imageDigest"] == manifest_digest(demo_os, "v2")
        assert host["status"]["staged"] is None

    def test_status_for_people(self, first_boot: FirstBoot, demo_os: DemoOs) -> None:
        lines = first_boot.status_human.splitlines()
        assert lines[0] == f"● Booted image: {REFERENCE}"
        assert f"        Digest: {manifest_digest(demo_os, 'v1')} (amd64)" in lines
        assert f"        Verity: {first_boot.image_id}" in lines


def test_state_outlives_a_reboot(
    first_boot: FirstBoot, demonstration: Demonstration, logs: Path
) -> None:
    assert first_boot.state == "running"
    hardware = installed(demonstration.disk, demonstration.firmware_vars)
    with Machine(hardware, keep_console=logs / "second-boot.txt") as machine:
        machine.wait_ready()
        assert machine.wait_running() == "running"
        assert machine.run("cat /etc/written /var/written").stdout == "kept\nkept\n"
        assert machine.run("findmnt -no SOURCE /").stdout.strip() == first_boot.root_source
        machine.power_off()


class TestTampering:
    """Each test boots a copy of the healthy disk with something changed on it."""

    def test_the_console_of_a_healthy_boot_tells_of_the_new_root(
        self, first_boot: FirstBoot
    ) -> None:
        assert SWITCH_ROOT in first_boot.console

    def test_a_changed_superblock_stops_the_boot(
        self, copied: tuple[Path, Path], first_boot: FirstBoot, logs: Path
    ) -> None:
        root = root_filesystem(copied[0])
        root.flip_byte(object_path(first_boot.image_id), 1024 + 20)
        assert_boot_is_refused(copied, logs / "superblock.txt", "fs-verity: data corrupted")

    def test_a_changed_root_hash_stops_the_boot(
        self, copied: tuple[Path, Path], first_boot: FirstBoot, logs: Path
    ) -> None:
        root = root_filesystem(copied[0])
        image = object_path(first_boot.image_id)
        root.flip_byte(image, verity_descriptor(root, image) + 16)
        assert_boot_is_refused(copied, logs / "root-hash.txt", "fs-verity: digest mismatch")

    def test_another_object_under_the_name_of_the_image_stops_the_boot(
        self, copied: tuple[Path, Path], first_boot: FirstBoot, logs: Path
    ) -> None:
        other = verity_digest(first_boot.bystander, Algorithm.SHA512).hex
        link = f"/composefs/images/{first_boot.image_id}"
        root_filesystem(copied[0]).debugfs(
            f'rm "{link}"', f'symlink "{link}" "../objects/{other[:2]}/{other[2:]}"', write=True
        )
        assert_boot_is_refused(copied, logs / "other-object.txt", "fs-verity: digest mismatch")

    def test_a_repository_without_verity_stops_the_boot(
        self, copied: tuple[Path, Path], first_boot: FirstBoot, logs: Path
    ) -> None:
        root = root_filesystem(copied[0])
        for path in ("/composefs/meta.json", object_path(first_boot.image_id)):
            content = root.read(path)
            root.replace(path, content)
            assert root.read(path) == content
        assert_boot_is_refused(copied, logs / "no-verity.txt", "not protected by fs-verity")

    def test_changed_metadata_stop_the_boot(
        self, copied: tuple[Path, Path], first_boot: FirstBoot, logs: Path
    ) -> None:
        root = root_filesystem(copied[0])
        image = object_path(first_boot.image_id)
        root.flip_byte(image, len(root.read(image)) // 2)
        assert_boot_is_refused(copied, logs / "middle.txt", "fs-verity: data corrupted")

    def test_a_changed_file_cannot_be_read(
        self, copied: tuple[Path, Path], first_boot: FirstBoot, logs: Path
    ) -> None:
        digest = verity_digest(first_boot.bystander, Algorithm.SHA512).hex
        root = root_filesystem(copied[0])
        root.flip_byte(object_path(digest), len(first_boot.bystander) // 2)
        with Machine(installed(*copied), keep_console=logs / "object.txt") as machine:
            machine.wait_ready()
            assert machine.wait_running() == "running"
            result = machine.run(f"cat {BYSTANDER}", check=False)
            assert result.rc == 1
            assert "Input/output error" in result.stderr
            assert first_boot.bystander.startswith(result.stdout_bytes)


def roots(demonstration: Demonstration) -> list[str]:
    """The image that each boot of the installed machine ran."""
    return re.findall(r"its root is composefs:([0-9a-f]{128})$", demonstration.said, re.MULTILINE)


def assert_boot_is_refused(copied: tuple[Path, Path], console: Path, cause: str) -> None:
    """The machine ends in the emergency target, says why, and never enters the root."""
    with Machine(installed(*copied), keep_console=console) as machine:
        machine.wait_console(r"(?s)You are in emergency mode.*Press Enter to continue")
        text = machine.console_text()
    assert re.search(rf"bootc: .*{cause}", text), text[-4000:]
    assert SWITCH_ROOT not in text
    assert "the root account is locked" in text


def object_path(digest: str) -> str:
    return f"/composefs/objects/{digest[:2]}/{digest[2:]}"


def verity_descriptor(root: Ext4, path: str) -> int:
    """Where ext4 keeps a file's fs-verity descriptor (Documentation/filesystems/ext4/verity.rst).

    The Merkle tree begins at the first multiple of 64 KiB past the content, its
    levels from the root down; the descriptor follows at the next block.
    """
    size = len(root.read(path))
    tree, blocks = 0, -(-size // 4096)
    while blocks > 1:
        blocks = -(-blocks * 64 // 4096)
        tree += blocks
    return -(-size // 65536) * 65536 + tree * 4096


def manifest_digest(demo_os: DemoOs, tag: str) -> str:
    index = json.loads((demo_os.layout / "index.json").read_text())
    for descriptor in index["manifests"]:
        if descriptor["annotations"]["org.opencontainers.image.ref.name"] == tag:
            digest: str = descriptor["digest"]
            return digest
    raise LookupError(tag)


def check_host(host: dict[str, Any]) -> None:
    """Compare a host document with the schema, and its values with what the demo leaves."""
    assert problems("host", host) == []
    for slot in ("staged", "booted", "rollback"):
        entry = host["status"][slot]
        if entry is not None:
            # By the demo, whose two versions have the same kernel.
            assert entry["pinned"] is (slot == "rollback")
            assert entry["softRebootCapable"] is (slot == "rollback")
            assert entry["cachedUpdate"] is None
            assert (entry["incompatible"], entry["downloadOnly"]) == (False, False)
