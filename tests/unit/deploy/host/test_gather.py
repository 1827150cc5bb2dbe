"""What is read of a system, whatever state it is in."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from bootc.boot.findings import Finding, FindingKind
from bootc.boot.loader import Bootloader, LoaderTraces
from bootc.deploy.host.boot_state import BootedState, Staged, write_cached_update
from bootc.deploy.host.facts import Facts, ImageFacts
from bootc.deploy.host.gather import gather, image_facts, image_status
from bootc.deploy.host.model import ImageSpec, ImageStatus, Timestamp
from bootc.deploy.host.notes import FinalizeFailure
from bootc.deploy.host.statedir import StateDir
from bootc.deploy.host.status import compose_host
from bootc.deploy.plan.cleanup import plan_gc
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.ocispec import ImageConfig, Manifest
from bootc.formats.origin import BootType, Origin, Signature
from bootc.fs.dir import Dir
from support.bootdirs import MENU_BOOT_TYPES, MENU_LOADERS
from support.sysroot import BOOT_DIGEST, IMAGE, FakeSysroot, image_id

A, B, C, D = (image_id(byte) for byte in ("aa", "bb", "cc", "dd"))
BOOTED_A = BootedState(A, missing_verity_allowed=False, loader=LoaderTraces(Bootloader.SYSTEMD))
VERSION = "org.opencontainers.image.version"
CREATED = Timestamp.parse("2026-08-01T00:00:00Z")


@pytest.fixture
def system(tmp_path: Path) -> FakeSysroot:
    return FakeSysroot(tmp_path)


def facts_of(system: FakeSysroot, booted: BootedState = BOOTED_A, **options: bool) -> Facts:
    with system.open(booted, **options) as sysroot:
        return gather(sysroot)


def origin_of(digest: OciDigest | None, **changes: object) -> Origin:
    origin = Origin(
        image=IMAGE, boot_type=BootType.BLS, boot_digest=BOOT_DIGEST, manifest_digest=digest
    )
    return dataclasses.replace(origin, **changes)  # type: ignore[arg-type]


def told(facts: Facts) -> list[tuple[FindingKind, str]]:
    return [(finding.kind, Path(finding.subject).name) for finding in facts.findings]


@pytest.mark.parametrize("boot_type", MENU_BOOT_TYPES)
@pytest.mark.parametrize("loader", MENU_LOADERS)
def test_a_healthy_system(tmp_path: Path, loader: Bootloader, boot_type: BootType) -> None:
    system = FakeSysroot(tmp_path, loader, boot_type)
    for deployment in (A, B, C):
        system.add_state(deployment)
    system.set_menu(A, B)
    system.set_menu(C, A, staged=True)
    system.announce(C, locked=True)
    facts = facts_of(system, dataclasses.replace(BOOTED_A, loader=LoaderTraces(loader)))
    assert facts.findings == ()
    assert facts.scheme == system.scheme
    assert facts.active.deployments == (A, B)
    assert facts.staged.deployments == (C, A)
    assert facts.booted.staged == Staged(C, locked=True)
    assert list(facts.states) == [A, B, C]
    assert facts.states[A].origin == origin_of(next(iter(facts.images)), boot_type=boot_type)
    assert list(facts.images.values()) == [ImageFacts("amd64", None, CREATED)]
    host = compose_host(facts)
    assert host.status.staged is not None
    assert host.status.rollback is not None
    assert not host.status.rollback_queued


TWO = "rw composefs.digest=v1-sha512-12:{} composefs=" + B.hex


@pytest.mark.parametrize(
    ("states", "booted", "deployment", "images"),
    [
        ([A], A, A, (A, B)),
        # Only the second digest is the id of a deployment.
        ([B], B, B, (B, A)),
        ([A, B], A, A, (A, B)),
    ],
)
def test_an_entry_of_two_digests(
    system: FakeSysroot,
    states: list[Digest],
    booted: Digest,
    deployment: Digest,
    images: tuple[Digest, ...],
) -> None:
    for state in (*states, C):
        system.add_state(state)
    system.set_menu(A, C, options=TWO)
    (other,) = {A, B} - {booted}
    facts = facts_of(system, dataclasses.replace(BOOTED_A, image_id=booted, also=(other,)))
    assert facts.findings == ()
    assert facts.active.deployments == (deployment, C)
    assert facts.images_of(deployment) == images
    assert facts.active_item(booted) is not None
    host = compose_host(facts)
    assert host.status.findings == ()
    assert host.status.booted is not None
    assert host.status.booted.composefs.verity == deployment
    # A clean-up keeps every image that an entry may boot.
    (collect,) = (s for s in plan_gc(facts, (), {}, repository=True).steps if hasattr(s, "roots"))
    assert {A, B, C} == set(collect.roots)


def test_an_entry_whose_digests_disagree_boots_nothing(system: FakeSysroot) -> None:
    system.add_state(A)
    system.set_menu(A)
    line = f"options composefs={C} composefs.digest=?v1-sha512-12:{B}\n"
    text = f"title x\nversion 1\nlinux /x\ninitrd /y\n{line}"
    system.add_entry_file("bootc_x-1-0.conf", text.encode())
    facts = facts_of(system)
    assert facts.active.deployments == (A,)
    (finding,) = facts.findings
    assert finding.subject == "bootc_x-1-0.conf"
    assert "disagree: only one of them tolerates missing fs-verity" in finding.text


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
    system.add_state(A, origin_of(digest))
    assert facts_of(system).images == {digest: ImageFacts("amd64", version, None)}


def test_an_image_anywhere() -> None:
    config = {
        "architecture": "arm64",
        "os": "linux",
        "created": "2026-08-01T00:00:00Z",
        "rootfs": {"type": "layers", "diff_ids": []},
    }
    digest = OciDigest.of(b"")
    descriptor = {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": str(digest),
        "size": 1,
    }
    manifest = {
        "schemaVersion": 2,
        "config": descriptor,
        "layers": [],
        "annotations": {VERSION: "44"},
    }
    spec = ImageSpec(IMAGE, Signature())
    facts = image_facts(
        Manifest.parse(json.dumps(manifest).encode()),
        ImageConfig.parse(json.dumps(config).encode()),
    )
    assert facts == ImageFacts("arm64", "44", CREATED)
    assert image_status(spec, digest, facts) == ImageStatus(spec, digest, "arm64", "44", CREATED)


def test_notes_beside_the_origin(system: FakeSysroot) -> None:
    update = ImageStatus(ImageSpec(IMAGE), OciDigest.of(b"new"), "amd64")
    failure = FinalizeFailure("no space", CREATED)
    for deployment in (A, B):
        system.add_state(deployment)
    with Dir.open(system.physical) as physical:
        with StateDir.open(physical, A) as state:
            state.set_pinned(True)
        with StateDir.open(physical, B) as state:
            state.write_failure(failure)
    with Dir.open(system.run) as run:
        write_cached_update(run, update)
    facts = facts_of(system)
    assert facts.cached_update == update
    assert (facts.states[A].pinned, facts.states[A].failure) == (True, None)
    assert (facts.states[B].pinned, facts.states[B].failure) == (False, failure)


def test_damaged_notes_cost_themselves(system: FakeSysroot) -> None:
    system.add_state(A)
    state_dir = system.state_dir(A)
    (system.run / "cached-update.json").write_text("{}")
    (state_dir / "finalize-failure.json").mkdir()
    facts = facts_of(system)
    assert told(facts) == [
        (FindingKind.UNREADABLE, "finalize-failure.json"),
        (FindingKind.MALFORMED, "cached-update.json"),
    ]
    assert facts.findings[0].subject == f"{state_dir}/finalize-failure.json"
    assert facts.findings[1].subject == f"{system.run}/cached-update.json"
    assert facts.states[A].origin is not None


def test_what_an_old_bootc_noted(system: FakeSysroot) -> None:
    digest = OciDigest.of(b"")
    config_type = "application/vnd.oci.image.config.v1+json"
    manifest = {
        "schemaVersion": 2,
        "config": {"mediaType": config_type, "digest": str(digest), "size": 1},
        "layers": [],
    }
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": {VERSION: "42"}},
        "rootfs": {"type": "layers", "diff_ids": []},
    }
    system.add_state(A, origin_of(None))
    note = system.state_dir(A) / f"{A}.imginfo"
    note.write_text(json.dumps({"manifest": manifest, "config": config}))
    facts = facts_of(system)
    assert facts.findings == ()
    raw = json.dumps(manifest, separators=(",", ":")).encode()
    assert facts.states[A].legacy_image == ImageStatus(
        ImageSpec(IMAGE), OciDigest.of(raw), "amd64", "42"
    )


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"manifest":{},"config":{}}', b'{"manifest":"\\ud800","config":1}'],
)
def test_what_an_old_bootc_noted_badly(system: FakeSysroot, data: bytes) -> None:
    system.add_state(A, origin_of(None))
    (system.state_dir(A) / f"{A}.imginfo").write_bytes(data)
    facts = facts_of(system)
    assert told(facts) == [(FindingKind.MALFORMED, f"{A}.imginfo")]
    assert facts.states[A].legacy_image is None


def test_an_old_note_matters_only_without_manifest(system: FakeSysroot) -> None:
    system.add_state(A)
    system.add_state(B, origin_of(None))
    (system.state_dir(A) / f"{A}.imginfo").write_bytes(b"")
    facts = facts_of(system)
    assert facts.findings == ()
    assert facts.states[B].legacy_image is None


def test_odd_things_among_the_deployments(system: FakeSysroot) -> None:
    system.add_state(A)
    deployments = system.state_dir(A).parent
    (deployments / "lost+found").mkdir()
    (deployments / A.hex.upper()).mkdir()
    (deployments / "notes.txt").write_bytes(b"")
    (deployments / os.fsdecode(b"\xff")).mkdir()
    (deployments / B.hex).symlink_to(A.hex)
    (deployments / C.hex).write_bytes(b"")
    (deployments / ("11" * 32)).mkdir()
    facts = facts_of(system)
    assert sorted(told(facts)) == sorted(
        [
            (FindingKind.FOREIGN, "lost+found"),
            (FindingKind.FOREIGN, A.hex.upper()),
            (FindingKind.FOREIGN, "notes.txt"),
            (FindingKind.FOREIGN, os.fsdecode(b"\xff")),
            (FindingKind.UNREADABLE, B.hex),
            (FindingKind.UNREADABLE, C.hex),
            (FindingKind.MALFORMED, "11" * 32),
        ]
    )
    # A repository may be of SHA-256; that one has no origin.
    assert list(facts.states) == [Digest.from_hex("11" * 32), A]


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        (None, FindingKind.MALFORMED, "No origin file for this deployment"),
        (b"[boot]\n", FindingKind.MALFORMED, "origin has no boot_type"),
        (b"\xff", FindingKind.MALFORMED, "origin is not UTF-8"),
        (b"#" * 70_000, FindingKind.UNREADABLE, "larger than 65536 bytes"),
    ],
)
def test_origins_that_say_nothing(
    system: FakeSysroot, data: bytes | None, kind: FindingKind, text: str
) -> None:
    system.add_state(A)
    system.add_state(B, data or b"")
    if data is None:
        (system.state_dir(B) / f"{B}.origin").unlink()
    system.set_menu(A, B)
    facts = facts_of(system)
    assert told(facts) == [(kind, B.hex)]
    assert text in facts.findings[0].text
    assert facts.states[B].origin is None
    assert facts.bootable() == [A]


def test_entries_of_deployments_that_are_gone(system: FakeSysroot) -> None:
    system.set_menu(B, A)
    facts = facts_of(system)
    text = f"it starts deployment {B}, which has no state directory"
    assert facts.findings[0].kind is FindingKind.UNREADABLE  # state/deploy itself
    assert facts.findings[1].text == "the booted deployment has no state directory"
    assert [finding.text for finding in facts.findings[2:]] == [text, text.replace(B.hex, A.hex)]


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("bootc_x-1-1.conf", b"\xff", FindingKind.MALFORMED),
        ("a.conf", b"title x\n", FindingKind.FOREIGN),
        ("a.conf", b"#" * 70_000, FindingKind.UNREADABLE),
        ("bootc_x-1-1.conf", b"version 1\nlinux /v\n", FindingKind.MALFORMED),
        ("windows.conf", b"version 1\nefi /EFI/Microsoft/x.efi\n", FindingKind.FOREIGN),
        ("again.conf", b"version 1\nlinux /v\noptions composefs=" + B.hex.encode(), "duplicate"),
        ("notes.txt", b"\xff", None),
    ],
)
def test_one_bad_entry_hides_no_other(
    system: FakeSysroot, name: str, data: bytes, kind: FindingKind | None
) -> None:
    for deployment in (A, B):
        system.add_state(deployment)
    system.set_menu(A, B)
    system.add_entry_file(name, data)
    facts = facts_of(system)
    assert told(facts) == ([] if kind is None else [(kind, name)])
    assert facts.active.deployments == (A, B)


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"[" * 60_000])
def test_a_marker_that_makes_no_sense(system: FakeSysroot, data: bytes) -> None:
    system.add_state(A)
    (system.run / "staged-deployment").write_bytes(data)
    facts = facts_of(system)
    assert told(facts) == [(FindingKind.MALFORMED, "staged-deployment")]
    assert facts.booted.staged is None


def test_the_marker_is_read_anew(system: FakeSysroot) -> None:
    system.add_state(A)
    stale = dataclasses.replace(BOOTED_A, staged=Staged(B, locked=False))
    assert facts_of(system, stale).booted.staged is None


def test_without_menu_the_deployments_are_known(system: FakeSysroot) -> None:
    system.add_state(A)
    system.set_menu(A)
    facts = facts_of(system, boot=False)
    assert (facts.active.items, facts.staged.items) == ((), ())
    assert facts.scheme == system.scheme
    assert list(facts.states) == [A]
    booted = compose_host(facts).status.booted
    assert booted is not None
    assert booted.image is not None


def test_without_repository_the_images_are_unknown(system: FakeSysroot) -> None:
    system.add_state(A)
    facts = facts_of(system, repository=False)
    assert facts.images == {}
    assert facts.findings == ()  # whoever opened the system has said why
    booted = compose_host(facts).status.booted
    assert booted is not None
    assert booted.image is not None
    assert booted.image.architecture == "unknown"


def test_damaged_documents_are_told_of(system: FakeSysroot) -> None:
    digest = system.add_image()
    lost = OciDigest("sha256", "00" * 32)
    system.add_state(A, origin_of(digest))
    system.add_state(B, origin_of(lost))
    stream = system.physical / f"composefs/streams/oci-manifest-{digest}"
    target = stream.resolve()
    target.chmod(0o644)
    target.write_bytes(b"SplitStream")
    facts = facts_of(system)
    assert facts.images == {}
    assert told(facts) == [
        (FindingKind.UNREADABLE, f"oci-manifest-{digest}"),
        (FindingKind.UNREADABLE, f"oci-manifest-{lost}"),
    ]
    assert "is damaged" in facts.findings[0].text


def test_what_volatile_state_had_to_tell_is_kept(system: FakeSysroot) -> None:
    system.add_state(A)
    finding = Finding(FindingKind.UNREADABLE, "LoaderInfo", "Input/output error")
    booted = dataclasses.replace(BOOTED_A, findings=(finding,))
    assert facts_of(system, booted).findings == (finding,)
