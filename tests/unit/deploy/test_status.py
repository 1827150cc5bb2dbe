from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from bootc.boot.systemd_boot import Bootloader
from bootc.deploy.booted import BootedState, Staged
from bootc.deploy.model import Host, ImageSpec, UsrOverlay
from bootc.deploy.status import compose_host
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import BootType, Origin, Signature
from support.sysroot import BOOT_DIGEST, IMAGE, FakeSysroot, image_id

A, B, C, D = (image_id(byte) for byte in ("aa", "bb", "cc", "dd"))
BOOTED_A = BootedState(A, missing_verity_allowed=False, bootloader=Bootloader.SYSTEMD)
VERSION = "org.opencontainers.image.version"


@pytest.fixture
def system(tmp_path: Path) -> FakeSysroot:
    return FakeSysroot(tmp_path)


def host_of(system: FakeSysroot, booted: BootedState = BOOTED_A, **options: bool) -> Host:
    with system.open(**options) as sysroot:
        return compose_host(sysroot, booted)


def slots(host: Host) -> tuple[Digest | None, Digest | None, Digest | None, list[Digest]]:
    status = host.status
    staged, booted, rollback = (
        entry and entry.composefs.verity
        for entry in (status.staged, status.booted, status.rollback)
    )
    return staged, booted, rollback, [e.composefs.verity for e in status.other_deployments]


def origin_of(digest: OciDigest | None, **changes: object) -> Origin:
    origin = Origin(
        image=IMAGE, boot_type=BootType.BLS, boot_digest=BOOT_DIGEST, manifest_digest=digest
    )
    return dataclasses.replace(origin, **changes)  # type: ignore[arg-type]


def test_a_fresh_installation(system: FakeSysroot, caplog: pytest.LogCaptureFixture) -> None:
    system.add_deployment(A)
    value = host_of(system).to_json()
    digest = value["status"]["booted"]["image"].pop("imageDigest")
    assert digest.startswith("sha256:")
    image = {"image": "quay.io/example/os:43", "transport": "registry"}
    assert value == {
        "apiVersion": "org.containers.bootc/v1",
        "kind": "BootcHost",
        "metadata": {"name": "host"},
        "spec": {"image": image, "bootOrder": "default"},
        "status": {
            "staged": None,
            "booted": {
                "image": {
                    "image": image,
                    "version": None,
                    "timestamp": "2026-08-01T00:00:00Z",
                    "architecture": "amd64",
                },
                "cachedUpdate": None,
                "incompatible": False,
                "pinned": False,
                "softRebootCapable": False,
                "downloadOnly": False,
                "store": None,
                "ostree": None,
                "composefs": {
                    "verity": A.hex,
                    "bootType": "Bls",
                    "bootloader": "systemd",
                    "bootDigest": BOOT_DIGEST,
                    "missingVerityAllowed": False,
                },
            },
            "rollback": None,
            "rollbackQueued": False,
            "type": None,
            "usrOverlay": None,
            "readOnly": False,
        },
    }
    assert caplog.messages == []


def test_the_menu_gives_the_slots(system: FakeSysroot) -> None:
    system.add_deployment(A)
    for rank, deployment in ((1, D), (2, B), (3, C)):
        system.add_deployment(deployment, rank=rank)
    host = host_of(system)
    assert slots(host) == (None, A, D, [B, C])
    assert (host.status.rollback_queued, host.spec.boot_order) == (False, "default")


def test_a_queued_rollback(system: FakeSysroot) -> None:
    system.add_deployment(B)
    system.add_deployment(A, rank=1)
    host = host_of(system)
    assert slots(host) == (None, A, B, [])
    assert (host.status.rollback_queued, host.spec.boot_order) == (True, "rollback")


@pytest.mark.parametrize("locked", [False, True])
def test_a_staged_update(system: FakeSysroot, locked: bool) -> None:
    system.add_deployment(A)
    system.add_deployment(C, rank=1)
    system.add_state(B, origin_of(system.add_image(), image=ImageReference("oci", "/new")))
    system.add_entry(B, staged=True)
    system.add_entry(A, rank=1, staged=True)
    host = host_of(system, dataclasses.replace(BOOTED_A, staged=Staged(B, locked)))
    assert slots(host) == (B, A, C, [])
    assert host.status.staged is not None
    assert host.status.staged.download_only is locked
    assert host.spec.image == ImageSpec(ImageReference("oci", "/new"))
    assert not host.status.rollback_queued


def test_a_marker_without_entry_stages_nothing(system: FakeSysroot) -> None:
    system.add_deployment(A)
    system.add_state(B)
    host = host_of(system, dataclasses.replace(BOOTED_A, staged=Staged(B, False)))
    assert slots(host) == (None, A, None, [])


def test_staged_entries_without_marker_stage_nothing(system: FakeSysroot) -> None:
    system.add_deployment(A)
    system.add_deployment(B, staged=True)
    assert slots(host_of(system)) == (None, A, None, [])


def test_a_marker_that_names_what_runs(system: FakeSysroot) -> None:
    system.add_deployment(A)
    host = host_of(system, dataclasses.replace(BOOTED_A, staged=Staged(A, True)))
    assert slots(host) == (None, A, None, [])
    assert host.status.booted is not None
    assert not host.status.booted.download_only


def test_the_booted_argument_speaks_for_every_entry(system: FakeSysroot) -> None:
    system.add_deployment(A)
    system.add_deployment(B, rank=1)
    host = host_of(system, dataclasses.replace(BOOTED_A, missing_verity_allowed=True))
    for entry in (host.status.booted, host.status.rollback):
        assert entry is not None
        assert entry.composefs.missing_verity_allowed


def test_the_running_system_is_passed_on(system: FakeSysroot) -> None:
    system.add_deployment(A)
    overlay = UsrOverlay("readWrite")
    host = host_of(system, dataclasses.replace(BOOTED_A, usr_overlay=overlay), read_only=True)
    assert host.status.usr_overlay == overlay
    assert host.status.read_only


@pytest.mark.parametrize(
    ("annotations", "labels", "version"),
    [
        ({VERSION: "43.1"}, {VERSION: "43.0"}, "43.1"),
        ({}, {VERSION: "43.0"}, "43.0"),
        ({VERSION: ""}, {}, None),
    ],
)
def test_the_version_of_an_image(
    system: FakeSysroot, annotations: dict[str, str], labels: dict[str, str], version: str | None
) -> None:
    digest = system.add_image(annotations=annotations, labels=labels, created="soon")
    system.add_state(A, origin_of(digest, signature=Signature()))
    booted = host_of(system).status.booted
    assert booted is not None
    assert booted.image is not None
    assert (booted.image.version, booted.image.timestamp) == (version, None)
    assert booted.image.digest == digest
    assert booted.image.image == ImageSpec(IMAGE, Signature())


def test_without_esp_the_booted_deployment_is_known(system: FakeSysroot) -> None:
    system.add_deployment(A)
    system.add_deployment(B, rank=1)
    host = host_of(system, esp=False)
    assert slots(host) == (None, A, None, [])
    assert not host.status.rollback_queued


@pytest.mark.parametrize(
    ("name", "data", "warning"),
    [
        ("bootc_x-1-1.conf", b"\xff", "ignoring boot entry 'bootc_x-1-1.conf': boot entry is not"),
        ("a.conf", b"title x\n", "ignoring boot entry 'a.conf': boot entry has no 'version'"),
        ("a.conf", b"#" * 70_000, "a.conf: file is larger than 65536 bytes"),
        ("bootc_x-1-1.conf", b"version 1\nuki /a.efi\n", "it starts an EFI program"),
        ("bootc_x-1-1.conf", b"version 1\nlinux /v\n", "no composefs image in the kernel"),
        ("windows.conf", b"version 1\nefi /EFI/Microsoft/x.efi\n", None),
        ("memtest.conf", b"version 1\nlinux /memtest\n", None),
        ("notes.txt", b"\xff", None),
    ],
)
def test_one_bad_entry_hides_no_other(
    system: FakeSysroot,
    caplog: pytest.LogCaptureFixture,
    name: str,
    data: bytes,
    warning: str | None,
) -> None:
    system.add_deployment(A)
    system.add_deployment(B, rank=1)
    system.add_entry_file(name, data)
    assert slots(host_of(system)) == (None, A, B, [])
    assert len(caplog.messages) == (warning is not None)
    assert warning is None or warning in caplog.messages[0]


def test_odd_things_in_place_of_entries(
    system: FakeSysroot, caplog: pytest.LogCaptureFixture
) -> None:
    system.add_deployment(A)
    entries = system.esp / "loader/entries"
    (entries / "directory.conf").mkdir()
    (entries / "link.conf").symlink_to("bootc_fedora-43-1.conf")
    os.mkfifo(entries / "pipe.conf")
    (system.esp / "loader/entries.staged").write_bytes(b"")
    booted = dataclasses.replace(BOOTED_A, staged=Staged(B, False))
    assert slots(host_of(system, booted)) == (None, A, None, [])
    assert [message.split(":")[0] for message in caplog.messages] == [
        "ignoring boot entry 'directory.conf'",
        "ignoring boot entry 'link.conf'",
        "ignoring boot entry 'pipe.conf'",
    ]


def test_a_deployment_without_origin_is_left_out(
    system: FakeSysroot, caplog: pytest.LogCaptureFixture
) -> None:
    system.add_deployment(A)
    system.add_entry(B, rank=1)
    assert slots(host_of(system)) == (None, A, None, [])
    assert caplog.messages == [f"No origin file for deployment {B}"]


def test_a_malformed_origin_is_left_out(
    system: FakeSysroot, caplog: pytest.LogCaptureFixture
) -> None:
    system.add_state(A, b"[boot]\n")
    system.add_entry(A)
    host = host_of(system)
    assert slots(host) == (None, None, None, [])
    assert host.spec.image is None
    assert caplog.messages == [f"ignoring deployment {A}: origin has no boot_type in [boot]"]


@pytest.mark.parametrize("stage", ["image", "manifest_digest"])
def test_an_origin_that_names_no_image(system: FakeSysroot, stage: str) -> None:
    system.add_state(A, origin_of(system.add_image(), **{stage: None}))
    booted = host_of(system).status.booted
    assert booted is not None
    assert booted.image is None


def test_lost_documents_cost_only_what_they_said(
    system: FakeSysroot, caplog: pytest.LogCaptureFixture
) -> None:
    system.add_state(A, origin_of(OciDigest("sha256", "00" * 32)))
    booted = host_of(system).status.booted
    assert booted is not None
    assert booted.image is not None
    assert booted.image.architecture == "unknown"
    assert booted.image.image.reference == IMAGE
    assert "documents of image docker://quay.io/example/os:43 cannot be read" in caplog.messages[0]


def test_damaged_documents_cost_only_what_they_said(
    system: FakeSysroot, caplog: pytest.LogCaptureFixture
) -> None:
    digest = system.add_image()
    system.add_state(A, origin_of(digest))
    stream = system.physical / f"composefs/streams/oci-manifest-{digest}"
    target = stream.resolve()
    target.chmod(0o644)
    target.write_bytes(b"SplitStream")
    booted = host_of(system).status.booted
    assert booted is not None
    assert booted.image is not None
    assert booted.image.architecture == "unknown"
    assert "is damaged" in caplog.messages[0]
