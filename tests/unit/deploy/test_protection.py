"""What an update takes away, from facts alone."""

from __future__ import annotations

import dataclasses

import pytest

from bootc.boot.findings import Finding, FindingKind
from bootc.boot.loader import Bootloader, LoaderTraces
from bootc.boot.menu_read import Item, Menu
from bootc.boot.scheme import Scheme
from bootc.deploy.host.boot_state import BootedState, Staged
from bootc.deploy.host.facts import Facts, StateFacts
from bootc.deploy.host.status import compose_host
from bootc.deploy.protection import Protection, losses, missing_verity_allowed, staged_losses
from bootc.formats import bls
from bootc.formats.cmdline import composefs_images, composefs_karg
from bootc.formats.digest import Digest
from bootc.formats.origin import BootType, Origin
from support.sysroot import IMAGE, image_id

A, B = image_id("aa"), image_id("bb")
VERITY = "it tolerates missing fs-verity (composefs=?)"
ARGUMENTS = "its kernel arguments are in a file on the boot partition"


def entry(deployment: Digest, boot_type: BootType, options: str) -> Item:
    if boot_type is BootType.UKI:
        made = bls.Entry(version="43", uki="/EFI/Linux/bootc/u.efi")
    else:
        made = bls.Entry(version="43", linux="/k/vmlinuz", options=options.format(deployment))
    return Item(f"bootc_{deployment.hex[:2]}.conf", deployment, deployment.hex, made)


def facts(
    booted: BootType,
    staged: BootType,
    *,
    strict: bool = True,
    options: str = "composefs={}",
    uki: bool | None = None,
) -> Facts:
    """Return a system that runs A and has staged B.

    Args:
        booted: How A boots.
        staged: How B boots.
        strict: A demands fs-verity.
        options: Kernel arguments in the entry of B.
        uki: Whether the unified kernel image of B tolerates missing fs-verity.
    """
    types = {A: booted, B: staged}
    state = BootedState(
        A, missing_verity_allowed=not strict, loader=LoaderTraces(Bootloader.SYSTEMD)
    )
    return Facts(
        booted=dataclasses.replace(state, staged=Staged(B, locked=False)),
        scheme=Scheme(Bootloader.SYSTEMD, booted),
        active=Menu((entry(A, booted, "composefs={}"),)),
        staged=Menu((entry(B, staged, options),)),
        states={d: StateFacts(d, Origin(image=IMAGE, boot_type=types[d])) for d in (A, B)},
        ukis={} if uki is None else {B: composefs_images(composefs_karg(B.hex, optional=uki))},
    )


@pytest.mark.parametrize(
    ("value", "lost"),
    [
        (facts(BootType.UKI, BootType.UKI, uki=False), []),
        (facts(BootType.UKI, BootType.UKI, uki=True), [VERITY]),
        # It cannot be read, for example by another user than root.
        (facts(BootType.UKI, BootType.UKI), []),
        (facts(BootType.UKI, BootType.UKI, strict=False, uki=True), []),
        (facts(BootType.UKI, BootType.BLS), [ARGUMENTS]),
        (facts(BootType.UKI, BootType.BLS, options="composefs=?{}"), [VERITY, ARGUMENTS]),
        (facts(BootType.UKI, BootType.BLS, strict=False, options="composefs=?{}"), [ARGUMENTS]),
        (facts(BootType.UKI, BootType.BLS, options="rw"), [ARGUMENTS]),
        (facts(BootType.BLS, BootType.UKI, uki=True), [VERITY]),
        (facts(BootType.BLS, BootType.UKI, uki=False), []),
        (facts(BootType.BLS, BootType.BLS), []),
        (facts(BootType.BLS, BootType.BLS, options="composefs=?{}"), [VERITY]),
        (facts(BootType.BLS, BootType.BLS, strict=False, options="composefs=?{}"), []),
    ],
)
def test_what_the_staged_deployment_lacks(value: Facts, lost: list[str]) -> None:
    found = staged_losses(value)
    assert [loss.startswith(words) for loss, words in zip(found, lost, strict=True)] == [
        True for _ in lost
    ]
    assert [f for f in compose_host(value).status.findings if f.kind is FindingKind.WEAKER] == [
        Finding(
            FindingKind.WEAKER,
            f"deployment {B}",
            f"it protects less than the booted deployment: {loss}",
        )
        for loss in found
    ]


def test_nothing_staged_lacks_nothing() -> None:
    value = facts(BootType.UKI, BootType.BLS)
    value = dataclasses.replace(value, booted=dataclasses.replace(value.booted, staged=None))
    assert staged_losses(value) == []


def test_the_staged_deployment_is_judged_by_the_entry_that_will_start_it() -> None:
    value = facts(BootType.BLS, BootType.BLS, options="composefs=?{}")
    active = Menu((*value.active.items, entry(B, BootType.BLS, "composefs={}")))
    value = dataclasses.replace(value, active=active)
    assert missing_verity_allowed(value, B) is True
    value = dataclasses.replace(value, booted=dataclasses.replace(value.booted, staged=None))
    assert missing_verity_allowed(value, B) is False


def test_more_protection_is_no_loss() -> None:
    value = facts(BootType.BLS, BootType.UKI, strict=False)
    assert losses(value, Protection(unified=True, strict=True)) == []
