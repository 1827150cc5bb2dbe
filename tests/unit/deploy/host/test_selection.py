"""What users call deployments."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bootc.boot.loader import Bootloader, LoaderTraces
from bootc.deploy.host.boot_state import BootedState
from bootc.deploy.host.facts import Facts
from bootc.deploy.host.gather import gather
from bootc.deploy.host.selection import AmbiguousDeployment, find_deployment
from bootc.deploy.plan.reorder import DeploymentNotFound
from bootc.formats.digest import Digest
from support.sysroot import FakeSysroot, image_id

BOOTED, STAGED, ROLLBACK, OTHER = (image_id(byte) for byte in ("aa", "bb", "cc", "dd"))
TWIN = Digest.from_hex("dd" * 3 + "e0" * 61)


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    system = FakeSysroot(tmp_path)
    for deployment in (BOOTED, STAGED, ROLLBACK, OTHER, TWIN):
        system.add_state(deployment)
    system.set_menu(BOOTED, ROLLBACK, OTHER)
    system.set_menu(STAGED, BOOTED, staged=True)
    system.announce(STAGED)
    with system.open(BootedState(BOOTED, True, LoaderTraces(Bootloader.SYSTEMD))) as opened:
        return gather(opened)


@pytest.fixture
def lonely(tmp_path: Path) -> Facts:
    system = FakeSysroot(tmp_path)
    system.add_state(BOOTED)
    system.set_menu(BOOTED)
    with system.open(BootedState(BOOTED, True, LoaderTraces(Bootloader.SYSTEMD))) as opened:
        return gather(opened)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("booted", BOOTED),
        ("staged", STAGED),
        ("rollback", ROLLBACK),
        (OTHER.hex, OTHER),
        ("cccccc", ROLLBACK),
        ("ddddddd", OTHER),
        ("dddddde", TWIN),
    ],
)
def test_what_is_meant(facts: Facts, text: str, meant: Digest) -> None:
    assert find_deployment(facts, text) == meant


def test_a_deployment_by_its_other_image(facts: Facts) -> None:
    other = image_id("ef")
    (item, *rest) = facts.active.items
    menu = dataclasses.replace(
        facts.active, items=(dataclasses.replace(item, also=(other,)), *rest)
    )
    facts = dataclasses.replace(facts, active=menu)
    assert find_deployment(facts, "efefef") == BOOTED
    assert find_deployment(facts, BOOTED.hex) == BOOTED
    with pytest.raises(DeploymentNotFound):
        find_deployment(facts, "fefefe")


def test_what_begins_alike_is_not_guessed(facts: Facts) -> None:
    with pytest.raises(
        AmbiguousDeployment, match=r"^2 deployments have an ID that begins with ddd"
    ):
        find_deployment(facts, "dddddd")


@pytest.mark.parametrize("text", ["", "aaaaa", "AAAAAA", "aaaaag", "Staged", "../../etc"])
def test_what_is_no_id(facts: Facts, text: str) -> None:
    with pytest.raises(DeploymentNotFound, match=r"is no deployment ID$"):
        find_deployment(facts, text)


@pytest.mark.parametrize("text", ["eeeeee", OTHER.hex + "d"])
def test_what_is_not_there(facts: Facts, text: str) -> None:
    with pytest.raises(DeploymentNotFound, match=rf"^Deployment ID not found: {text}$"):
        find_deployment(facts, text)


@pytest.mark.parametrize("part", ["staged", "rollback"])
def test_a_part_nobody_plays(lonely: Facts, part: str) -> None:
    with pytest.raises(DeploymentNotFound, match=f"^there is no {part} deployment$"):
        find_deployment(lonely, part)
