"""What part each deployment plays, from facts alone."""

from __future__ import annotations

import dataclasses

import pytest

from bootc.boot.findings import Finding, FindingKind
from bootc.boot.loader import Bootloader, LoaderTraces
from bootc.boot.menu_read import Item, Menu
from bootc.boot.scheme import Scheme
from bootc.deploy.host.boot_state import BootedState, Staged
from bootc.deploy.host.facts import Facts, ImageFacts, StateFacts
from bootc.deploy.host.model import BootEntry, Host, ImageSpec, ImageStatus, Timestamp, UsrOverlay
from bootc.deploy.host.notes import FinalizeFailure
from bootc.deploy.host.status import compose_host, wanted_image
from bootc.formats import bls, grubcfg
from bootc.formats.cmdline import composefs_images
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import BootType, Origin, Signature
from support.sysroot import BOOT_DIGEST, IMAGE, image_id

A, B, C, D = (image_id(byte) for byte in ("aa", "bb", "cc", "dd"))
MANIFEST = OciDigest("sha256", "11" * 32)
NEWER = OciDigest("sha256", "22" * 32)
CREATED = Timestamp.parse("2026-08-01T00:00:00Z")
IMAGES = {MANIFEST: ImageFacts("amd64", None, CREATED)}
BOOTED_A = BootedState(A, missing_verity_allowed=False, loader=LoaderTraces(Bootloader.SYSTEMD))
BLS = Scheme(Bootloader.SYSTEMD, BootType.BLS)


def item(deployment: Digest, options: str = "rw composefs={}") -> Item:
    entry = bls.Entry(version="43", linux="/k/vmlinuz", options=options.format(deployment))
    return Item(f"bootc_{deployment.hex[:2]}.conf", deployment, deployment.hex, entry)


def uki_item(deployment: Digest) -> Item:
    return Item("bootc_u.conf", deployment, deployment.hex, bls.Entry(version="43", uki="/u.efi"))


def origin(**changes: object) -> Origin:
    value = Origin(
        image=IMAGE, boot_type=BootType.BLS, boot_digest=BOOT_DIGEST, manifest_digest=MANIFEST
    )
    return dataclasses.replace(value, **changes)  # type: ignore[arg-type]


def facts(
    *active: Item | Digest,
    staged: tuple[Item | Digest, ...] = (),
    marker: Staged | None = None,
    states: tuple[Digest, ...] = (A, B, C, D),
    booted: BootedState = BOOTED_A,
    scheme: Scheme = BLS,
) -> Facts:
    def menu(items: tuple[Item | Digest, ...]) -> Menu:
        return Menu(tuple(item(i) if isinstance(i, Digest) else i for i in items))

    return Facts(
        booted=dataclasses.replace(booted, staged=marker),
        scheme=scheme,
        active=menu(active),
        staged=menu(staged),
        states={deployment: StateFacts(deployment, origin()) for deployment in states},
        images=IMAGES,
    )


def with_state(value: Facts, deployment: Digest, **changes: object) -> Facts:
    state = dataclasses.replace(value.states[deployment], **changes)  # type: ignore[arg-type]
    return dataclasses.replace(value, states={**value.states, deployment: state})


def slots(host: Host) -> tuple[Digest | None, Digest | None, Digest | None, list[Digest]]:
    status = host.status
    staged, booted, rollback = (
        None if entry is None else entry.composefs.verity
        for entry in (status.staged, status.booted, status.rollback)
    )
    return staged, booted, rollback, [e.composefs.verity for e in status.other_deployments]


def booted_of(host: Host) -> BootEntry:
    assert host.status.booted is not None
    return host.status.booted


def rollback_of(host: Host) -> BootEntry:
    assert host.status.rollback is not None
    return host.status.rollback


def test_a_fresh_installation() -> None:
    image = {"image": "quay.io/example/os:43", "transport": "registry"}
    host = compose_host(facts(A))
    assert host.status.protection is not None
    assert host.to_json() == {
        "apiVersion": "org.containers.bootc/v1",
        "kind": "BootcHost",
        "metadata": {"name": "host"},
        "spec": {"image": image, "bootOrder": "default"},
        "status": {
            "staged": None,
            "booted": {
                "image": {
                    "image": image,
                    "imageDigest": str(MANIFEST),
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
            "type": "bootcHost",
            "usrOverlay": None,
            "readOnly": False,
            # tests/unit/deploy/host/test_trust_chain.py is about it.
            "protection": host.status.protection.to_json(),
        },
    }


@pytest.mark.parametrize("loader", list(Bootloader))
def test_the_menu_gives_the_slots(loader: Bootloader) -> None:
    host = compose_host(facts(A, D, B, C, scheme=Scheme(loader, BootType.BLS)))
    assert slots(host) == (None, A, D, [B, C])
    assert (host.status.rollback_queued, host.spec.boot_order) == (False, "default")
    assert booted_of(host).composefs.bootloader is loader


@pytest.mark.parametrize("loader", list(Bootloader))
@pytest.mark.parametrize("boot_type", list(BootType))
def test_a_queued_rollback(loader: Bootloader, boot_type: BootType) -> None:
    host = compose_host(facts(B, A, scheme=Scheme(loader, boot_type)))
    assert slots(host) == (None, A, B, [])
    assert (host.status.rollback_queued, host.spec.boot_order) == (True, "rollback")


@pytest.mark.parametrize(
    ("active", "queued"),
    [((), False), ((B,), True), ((A,), False), ((C, A), False), ((C, B, A), True)],
)
def test_what_cannot_boot_is_not_queued(active: tuple[Digest, ...], queued: bool) -> None:
    # C has no state.
    assert compose_host(facts(*active, states=(A, B))).status.rollback_queued is queued


def test_a_booted_deployment_without_state_is_no_rollback() -> None:
    host = compose_host(facts(A, B, states=(B,)))
    assert slots(host) == (None, A, B, [])
    assert not host.status.rollback_queued
    assert booted_of(host).image is None
    assert host.spec.image is None


@pytest.mark.parametrize("locked", [False, True])
def test_a_staged_update(locked: bool) -> None:
    new = ImageReference("oci", "/new")
    value = facts(A, C, staged=(B, A), marker=Staged(B, locked))
    host = compose_host(with_state(value, B, origin=origin(image=new)))
    assert slots(host) == (B, A, C, [])
    assert host.status.staged is not None
    assert host.status.staged.download_only is locked
    assert host.spec.image == ImageSpec(new)
    assert not host.status.rollback_queued


def test_a_staged_update_that_was_finalized_is_no_rollback() -> None:
    host = compose_host(facts(B, A, marker=Staged(B, locked=False)))
    assert slots(host) == (B, A, None, [])
    assert (host.status.rollback_queued, host.spec.boot_order) == (False, "default")


@pytest.mark.parametrize(
    "value",
    [
        facts(A, marker=Staged(B, locked=False)),  # without an entry
        facts(A, staged=(B, A)),  # without a marker
        facts(A, staged=(B, A), marker=Staged(B, locked=True), states=(A,)),  # without state
        facts(A, marker=Staged(A, locked=True)),  # after a soft reboot
    ],
)
def test_nothing_is_staged(value: Facts) -> None:
    host = compose_host(value)
    assert slots(host) == (None, A, None, [])
    assert not booted_of(host).download_only
    assert host.spec.image == ImageSpec(IMAGE)


def test_what_upstream_forgot_to_withdraw_is_not_staged() -> None:
    """It was finalized, and a rollback put another deployment first: that one boots next."""
    host = compose_host(facts(A, B, marker=Staged(B, locked=False)))
    assert slots(host) == (None, A, B, [])
    assert host.status.rollback_queued is False


def test_a_deployment_is_shown_once() -> None:
    twice = facts(A, B, B, C, A)
    assert slots(compose_host(twice)) == (None, A, B, [C])


def test_each_entry_speaks_for_itself_on_missing_verity() -> None:
    booted = dataclasses.replace(BOOTED_A, missing_verity_allowed=True)
    optional = item(C, "composefs=?{} rw")
    host = compose_host(facts(A, B, optional, uki_item(D), booted=booted))
    entries = [booted_of(host), rollback_of(host), *host.status.other_deployments]
    allowed = {entry.composefs.verity: entry.composefs.missing_verity_allowed for entry in entries}
    # The booted one by what the kernel was told; D's argument is in its image, which is gone.
    assert allowed == {A: True, B: False, C: True, D: True}
    value = dataclasses.replace(
        facts(A, uki_item(D), booted=booted), ukis={D: composefs_images(f"composefs={D}")}
    )
    assert not rollback_of(compose_host(value)).composefs.missing_verity_allowed


def test_an_entry_whose_argument_is_gone_counts_as_the_booted_one() -> None:
    host = compose_host(facts(A, item(B, "rw")))
    assert not rollback_of(host).composefs.missing_verity_allowed


def test_the_running_system_is_passed_on() -> None:
    overlay = UsrOverlay("readWrite")
    value = facts(A, booted=dataclasses.replace(BOOTED_A, usr_overlay=overlay))
    host = compose_host(dataclasses.replace(value, read_only=True))
    assert host.status.usr_overlay == overlay
    assert host.status.read_only


def test_what_is_pinned() -> None:
    host = compose_host(with_state(facts(A, B, C), C, pinned=True))
    assert [e.pinned for e in (booted_of(host), rollback_of(host))] == [False, False]
    assert host.status.other_deployments[0].pinned
    assert host.status.other_deployments[0].to_json()["pinned"] is True


@pytest.mark.parametrize(("digest", "shown"), [(NEWER, True), (MANIFEST, False)])
def test_an_update_that_is_known_of(digest: OciDigest, shown: bool) -> None:
    update = ImageStatus(ImageSpec(IMAGE), digest, "amd64", "44")
    host = compose_host(dataclasses.replace(facts(A, B), cached_update=update))
    assert booted_of(host).cached_update == (update if shown else None)
    assert booted_of(host).to_json()["cachedUpdate"] == (update.to_json() if shown else None)
    assert rollback_of(host).cached_update is None


@pytest.mark.parametrize("stage", ["image", "manifest_digest"])
def test_an_origin_that_names_no_image(stage: str) -> None:
    host = compose_host(with_state(facts(A), A, origin=origin(**{stage: None})))
    assert booted_of(host).image is None


def test_an_image_that_an_old_bootc_noted() -> None:
    noted = ImageStatus(ImageSpec(IMAGE), NEWER, "arm64", "42")
    value = with_state(facts(A), A, origin=origin(manifest_digest=None), legacy_image=noted)
    assert booted_of(compose_host(value)).image == noted


def test_lost_documents_cost_only_what_they_said() -> None:
    value = with_state(facts(A), A, origin=origin(manifest_digest=NEWER, signature=Signature()))
    assert booted_of(compose_host(value)).image == ImageStatus(
        ImageSpec(IMAGE, Signature()), NEWER, "unknown"
    )


@pytest.mark.parametrize(
    ("other", "capable"),
    [
        (item(B), True),
        (item(B, "composefs=?{} rw"), True),
        (item(B, "composefs={} rw quiet"), False),
        (item(B, "composefs={}"), False),
        (item(B, "composefs={} ro"), False),
        (uki_item(B), False),
        (
            Item("x", B, None, grubcfg.MenuEntry("x")),
            False,
        ),
    ],
)
def test_soft_reboot(other: Item, capable: bool) -> None:
    host = compose_host(facts(A, other))
    assert rollback_of(host).soft_reboot_capable is capable
    assert not booted_of(host).soft_reboot_capable


def test_no_soft_reboot_where_it_is_not_known_to_work() -> None:
    same = facts(A, B)
    for value in (
        with_state(same, B, origin=origin(boot_digest="b1" * 32)),
        with_state(same, B, origin=origin(boot_digest=None)),
        with_state(same, A, origin=origin(boot_digest=None)),
        with_state(same, A, origin=None),
        facts(B),
        facts(A, B, booted=dataclasses.replace(BOOTED_A, selinux=True)),
    ):
        assert not rollback_of(compose_host(value)).soft_reboot_capable


def test_a_staged_deployment_boots_by_its_staged_entry() -> None:
    value = facts(
        A, B, staged=(item(B, "composefs=?{} rw quiet"), A), marker=Staged(B, locked=False)
    )
    staged = compose_host(value).status.staged
    assert staged is not None
    assert staged.composefs.missing_verity_allowed
    assert not staged.soft_reboot_capable


def test_why_an_update_failed() -> None:
    failure = FinalizeFailure("conflicts in /etc", CREATED)
    value = with_state(facts(A), B, failure=failure)
    found = Finding(FindingKind.FOREIGN, "windows.conf", "not ours")
    value = dataclasses.replace(value, findings=(found,))
    host = compose_host(value)
    assert host.status.findings == (
        found,
        Finding(
            FindingKind.FAILED,
            f"deployment {B}",
            "it did not become the default at 2026-08-01T00:00:00Z: conflicts in /etc "
            "(bootc upgrade stages it again, bootc upgrade --cancel drops it)",
        ),
    )
    assert host.to_json()["status"]["findings"][0] == {
        "kind": "foreign",
        "subject": "windows.conf",
        "text": "not ours",
    }


def test_an_update_that_nobody_could_finalize() -> None:
    """Power lost: nothing is announced any more, and nothing says why."""
    value = facts(A, staged=(B, A))
    host = compose_host(value)
    assert slots(host) == (None, A, None, [])
    assert [(f.kind, f.subject) for f in host.status.findings] == [
        (FindingKind.FAILED, f"deployment {B}")
    ]
    assert "the machine went down before it was finalized" in host.status.findings[0].text


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(facts(A, staged=(B, A), marker=Staged(B, locked=False)), id="staged"),
        pytest.param(facts(A, staged=(B, A), marker=Staged(B, locked=True)), id="held back"),
        pytest.param(facts(A, B, staged=(B, A)), id="in the menu already"),
        pytest.param(facts(A, staged=(A,)), id="what runs"),
        pytest.param(facts(A, staged=(B, A), states=(A,)), id="without state"),
        pytest.param(facts(A, B, staged=(C,), states=(A, B, C)), id="part of the menu before"),
        pytest.param(facts(A, B, staged=(B, C), states=(A, B, C)), id="the menu before"),
    ],
)
def test_no_update_was_lost(value: Facts) -> None:
    assert value.unannounced_id() is None
    assert compose_host(value).status.findings == ()


def test_a_failure_of_what_the_menu_boots_meanwhile() -> None:
    """Upstream's program finalizes what failed here, and leaves the note about it."""
    value = with_state(facts(A, B), B, failure=FinalizeFailure("x"))
    host = compose_host(value)
    assert slots(host) == (None, A, B, [])
    assert host.status.findings == ()


def test_a_failure_that_is_over() -> None:
    failure = FinalizeFailure("x")
    value = facts(A, B, staged=(B, A), marker=Staged(B, locked=False))
    value = with_state(with_state(value, A, failure=failure), B, failure=failure)
    assert compose_host(value).status.findings == ()


def test_the_image_that_is_wanted() -> None:
    new = ImageSpec(ImageReference("oci", "/new"), Signature())
    value = facts(A, staged=(B, A), marker=Staged(B, locked=False))
    value = with_state(value, B, origin=origin(image=new.reference, signature=new.signature))
    assert wanted_image(value) == new
    assert wanted_image(facts(A)) == ImageSpec(IMAGE)
    assert wanted_image(facts(A, states=())) is None
