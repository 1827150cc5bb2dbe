"""Updates of machines to which things happen that no plan foresees.

Real commands on directories; the machine around them is made up.
"""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bootc.boot import kernel_release
from bootc.boot.kernel_release import KernelTooOld
from bootc.boot.scheme import Scheme
from bootc.boot.uki import WrongUki
from bootc.deploy import rollback
from bootc.deploy import upgrade as updates
from bootc.deploy.etc.merge import ConflictPolicy
from bootc.deploy.host.model import ImageSpec
from bootc.deploy.plan.finalize import EtcConflict
from bootc.deploy.plan.stage import NothingStaged
from bootc.deploy.protection import ProtectsLess
from bootc.deploy.upgrade import UpdateOptions
from bootc.errors import Error
from bootc.formats.digest import Digest
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import BootType, Signature
from bootc.fs.process import ToolMissing
from bootc.oci import sigpolicy
from bootc.oci.sigpolicy import PolicyNotEnforced
from bootc.sizes import exact_size
from support import osimages
from support.bench import Bench, switch, upgrade
from support.bootdirs import GRUB_UKI, SYSTEMD, SYSTEMD_UKI, scheme_name
from support.failing import FAILURES, Failing
from support.machine import Command, FakeMachine, Journal
from support.osimages import Channel, Images, OsImage
from support.room import Volume, limited

CONFLICT = "File 'x' now defaults to a directory in new etc"
WEAKER = "notice: the new image protects less than the booted one: "
VERITY = (
    "it tolerates missing fs-verity (composefs=?), so that changed files on the disk go unnoticed"
)
ARGUMENTS = (
    "its kernel arguments are in a file on the boot partition, where no signature covers them, "
    "and with Secure Boot its kernel starts only if it is signed itself"
)


def demand_verity(machine: FakeMachine) -> None:
    """Have the machine be booted as by an image that demands fs-verity."""
    cmdline = f"rw composefs={machine.booted_id}"
    machine.booted = replace(machine.booted, missing_verity_allowed=False, cmdline=cmdline)


def weaker(machine: FakeMachine) -> list[str]:
    found = machine.status()["status"].get("findings", [])
    return [finding["text"] for finding in found if finding["kind"] == "weaker"]


@pytest.mark.parametrize("scheme", [SYSTEMD_UKI, GRUB_UKI], ids=scheme_name)
def test_a_unified_image_that_tolerates_missing_verity(
    scheme: Scheme, top: Path, made: dict[BootType, Images]
) -> None:
    bench = Bench(scheme, top, made[BootType.UKI], osimages.OLD)
    said = bench.upgrade(osimages.NEW, dry_run=True)
    assert not any(line.startswith(WEAKER) for line in said)
    demand_verity(bench.machine)
    before = bench.machine.contents(repository=False)
    for dry_run in (True, False):
        with pytest.raises(ProtectsLess) as caught:
            bench.upgrade(osimages.NEW, dry_run=dry_run)
        assert caught.value.message == f"the new image protects less than the booted one: {VERITY}"
        assert str(caught.value.hint).endswith("by name: --allow-weaker")
    assert bench.machine.contents(repository=False) == before
    assert bench.upgrade(osimages.NEW, allow_weaker=True)[0] == WEAKER + VERITY
    assert weaker(bench.machine) == [f"it protects less than the booted deployment: {VERITY}"]
    assert waived(bench, osimages.NEW) == ("allow-weaker",)
    assert bench.check() == [
        f"No changes in staged image: ostree-unverified-image:{bench.channel.reference}",
        WEAKER + VERITY,
    ]


def test_a_bare_kernel_after_a_unified_image(top: Path, made: dict[BootType, Images]) -> None:
    bench = Bench(SYSTEMD_UKI, top, made[BootType.UKI], osimages.OLD)
    other = Channel(top / "other", made[BootType.BLS], osimages.NEW)
    # The booted deployment tolerates missing fs-verity: there is nothing to insist on.
    assert bench.machine.command(switch(other.reference, dry_run=True))[0] == WEAKER + ARGUMENTS
    demand_verity(bench.machine)
    with pytest.raises(ProtectsLess, match=re.escape(ARGUMENTS)):
        bench.machine.command(switch(other.reference))
    assert bench.machine.announced() is None
    said = bench.machine.command(switch(other.reference, allow_weaker=True))
    assert said[0] == WEAKER + ARGUMENTS
    assert weaker(bench.machine) == [f"it protects less than the booted deployment: {ARGUMENTS}"]


@pytest.mark.parametrize("accepted_before", [True, False])
def test_a_weaker_deployment_is_released_once_it_was_accepted(
    accepted_before: bool, top: Path, made: dict[BootType, Images]
) -> None:
    bench = Bench(SYSTEMD_UKI, top, made[BootType.UKI], osimages.OLD)
    if accepted_before:
        demand_verity(bench.machine)
    # Otherwise as if a program had staged it that does not compare.
    bench.upgrade(osimages.NEW, download_only=True, allow_weaker=accepted_before)
    demand_verity(bench.machine)
    if not accepted_before:
        for command in (release(), upgrade(), upgrade(apply=True)):
            with pytest.raises(ProtectsLess, match=re.escape(VERITY)):
                bench.machine.command(command)
        assert bench.machine.announced() == (bench.id(osimages.NEW), True)
        bench.machine.command(upgrade(download_only=True))
    bench.machine.command(release(allow_weaker=not accepted_before))
    assert bench.machine.announced() == (bench.id(osimages.NEW), False)
    assert waived(bench, osimages.NEW) == ("allow-weaker",)


def release(**options: Any) -> Command:
    return lambda system, journal: updates.release(system, UpdateOptions(**options), journal)


def waived(bench: Bench, image: OsImage) -> tuple[str, ...]:
    """Return what the user gave up for a deployment, by its origin."""
    origin = bench.machine.facts().origin(Digest.from_hex(bench.id(image)))
    assert origin is not None
    return origin.waived


def test_as_much_protection_as_before_is_not_worth_a_word(bench: Bench) -> None:
    demand_verity(bench.machine)
    assert not any("protects less" in line for line in bench.upgrade(osimages.TURNED))
    assert weaker(bench.machine) == []


def test_to_have_what_the_menu_has_is_no_reason_to_boot_it(
    top: Path, made: dict[BootType, Images]
) -> None:
    bench = Bench(SYSTEMD, top, made[BootType.BLS], osimages.NEW, osimages.OLD)
    before, manifest = bench.shown(), bench.manifest_of(osimages.NEW)
    said = bench.upgrade(osimages.REBUILT, download_only=True)
    assert said == [
        f"The image is that of deployment {bench.id(osimages.NEW)}, which the menu has already."
    ]
    assert bench.shown() == before == ["old", "new"]
    assert bench.machine.announced() is None
    recorded = bench.manifest_of(osimages.NEW)
    assert recorded == bench.images.entry(osimages.REBUILT)["digest"] != manifest
    bench.upgrade(osimages.REBUILT)
    assert bench.shown() == ["new", "old"]


@pytest.mark.parametrize("again", [osimages.NEW, osimages.REBUILT], ids=lambda image: image.tag)
def test_a_stopped_service_is_started_by_repeating(
    again: OsImage, top: Path, made: dict[BootType, Images]
) -> None:
    bench = Bench(SYSTEMD, top, made[BootType.BLS], osimages.OLD)
    bench.upgrade(osimages.NEW)
    bench.machine.stop_finalizer()
    bench.upgrade(again)
    assert bench.machine.finalizer_runs
    assert bench.machine.reboot() is None
    assert bench.shown() == ["new", "old"]


def test_releasing_what_is_released_starts_the_service(bench: Bench) -> None:
    bench.upgrade(osimages.TURNED)
    bench.machine.stop_finalizer()
    bench.machine.command(lambda s, j: updates.release(s, UpdateOptions(), j))
    assert bench.machine.finalizer_runs


@pytest.mark.parametrize(("apply", "held"), [(True, False), (False, True)])
def test_switching_to_what_is_held_back(bench: Bench, apply: bool, held: bool) -> None:
    bench.upgrade(osimages.TURNED, download_only=True)
    said = bench.machine.command(switch(bench.channel.reference, apply=apply))
    assert said == ["Image specification is unchanged."]
    assert bench.machine.announced() == (bench.id(osimages.TURNED), held)


@pytest.fixture
def powerless(any_bench: Bench) -> Bench:
    """Return a machine whose power failed while TURNED was staged."""
    any_bench.upgrade(osimages.TURNED)
    any_bench.machine.start()
    lost = f"deployment {any_bench.id(osimages.TURNED)}"
    status = any_bench.machine.status()["status"]
    assert [(f["kind"], f["subject"]) for f in status["findings"]] == [("failed", lost)]
    assert status["staged"] is None
    return any_bench


def test_power_that_fails_takes_an_update_back_and_status_tells(powerless: Bench) -> None:
    powerless.upgrade(osimages.TURNED)
    assert powerless.findings() == []
    assert powerless.machine.announced() == (powerless.id(osimages.TURNED), False)
    assert powerless.machine.reboot() is None
    assert powerless.shown() == ["turned", "new"]


def test_an_update_that_power_took_back_can_be_dropped(powerless: Bench) -> None:
    said = powerless.machine.command(updates.cancel)
    assert said == ["The staged deployment is dropped."]
    assert powerless.findings() == []
    assert powerless.id(osimages.TURNED) not in powerless.machine.states()
    with pytest.raises(NothingStaged):
        powerless.machine.command(updates.cancel)


def test_an_update_that_power_took_back_is_not_offered_any_more(powerless: Bench) -> None:
    name = f"ostree-unverified-image:{powerless.channel.reference}"
    dry = powerless.upgrade(osimages.NEW, dry_run=True)
    assert f"  remove the state of deployment {powerless.id(osimages.TURNED)}" in dry
    assert powerless.findings() != []
    assert powerless.upgrade(osimages.NEW) == [f"No changes in: {name}"]
    assert powerless.findings() == []
    assert powerless.id(osimages.TURNED) not in powerless.machine.states()


def test_what_failed_is_dropped_when_it_is_not_wanted_any_more(any_bench: Bench) -> None:
    bench = any_bench
    for wanted in (osimages.NEW, osimages.REBUILT):
        bench.upgrade(osimages.TURNED)
        bench.write("x", "mine")
        failure = bench.machine.reboot()
        assert isinstance(failure, EtcConflict)
        # The shutdown has no options.
        assert failure.hint == "decide with bootc etc keep PATH or bootc etc take PATH"
        assert any(CONFLICT in text for text in bench.findings())
        bench.upgrade(wanted)
        assert bench.findings() == []
        assert set(bench.machine.states()) == {bench.id(osimages.NEW), bench.id(osimages.OLD)}
        bench.write("x", osimages.NEW.etc["x"])
        assert bench.machine.reboot() is None
        assert bench.shown() == ["new", "old"]


@pytest.mark.parametrize("failing_at", [how for how, _ in FAILURES.values()], ids=FAILURES)
def test_staging_that_fails_at_any_change(bench: Bench, top: Path, failing_at: Failing) -> None:
    bench.upgrade(osimages.TURNED)
    bench.upgrade(osimages.RENAMED, dry_run=True)
    before, wanted = bench.id(osimages.TURNED), bench.id(osimages.RENAMED)
    outcomes = set()
    for number in itertools.count(1):
        machine = bench.machine.copy(top / str(number))
        with failing_at(number) as changes:
            failed = _fails(machine, upgrade())
        announced = machine.announced()
        assert announced in ((wanted, False), *([None, (before, False)] if failed else ()))
        for shown in machine.menu():
            machine.check_bootable(shown)
        assert machine.reboot() is None
        outcomes.add(announced)
        assert machine.booted_id == (announced[0] if announced else bench.id(osimages.NEW))
        shutil.rmtree(machine.path)
        if not changes.failed:
            break
    assert outcomes == {None, (before, False), (wanted, False)}


@pytest.mark.parametrize("failing_at", [how for how, _ in FAILURES.values()], ids=FAILURES)
def test_in_the_room_of_what_is_staged(bench: Bench, top: Path, failing_at: Failing) -> None:
    old, new, before = (bench.id(i) for i in (osimages.OLD, osimages.NEW, osimages.RENAMED))
    bench.machine.command(lambda s, j: rollback.delete_deployment(s, old, j))
    bench.upgrade(osimages.RENAMED)
    with nearly_full(bench.machine):
        dry = bench.upgrade(osimages.OLD, dry_run=True)
    size_bytes = sum(map(len, bench.images.kernels[before]))
    assert dry[:3] == [
        "  withdraw the announcement of the staged deployment",
        "  remove the staged menu",
        f"  remove the unused kernel {before} ({exact_size(size_bytes)})",
    ]
    outcomes = set()
    for number in itertools.count(1):
        machine = bench.machine.copy(top / str(number))
        with nearly_full(machine):
            with failing_at(number) as changes:
                _fails(machine, upgrade())
            announced = machine.announced()
            outcomes.add(announced[0] if announced else None)
            assert machine.reboot() is None
        assert machine.booted_id == (announced[0] if announced else new)
        shutil.rmtree(machine.path)
        if not changes.failed:
            break
    assert outcomes == {before, None, old}


@contextmanager
def nearly_full(machine: FakeMachine) -> Iterator[None]:
    """Have just enough room on the boot partition for anything but a kernel."""
    volume = Volume(machine.binaries_root)
    volume.leave(20)
    with limited(volume):
        yield


def _fails(machine: FakeMachine, command: Command) -> bool:
    try:
        machine.command(command)
    except (Error, OSError, KeyboardInterrupt):
        return True
    return False


def test_a_strict_image_where_fs_verity_is_missing(top: Path) -> None:
    images = Images(top / "images", BootType.UKI, strict=True)
    bench = Bench(SYSTEMD_UKI, top, images, osimages.OLD)
    bench.channel.offer(osimages.NEW)
    before = bench.machine.contents(repository=False)
    with pytest.raises(WrongUki, match="demands fs-verity, and this system stores objects without"):
        bench.machine.command(upgrade())
    assert bench.machine.contents(repository=False) == before


def test_an_image_whose_kernel_is_too_old(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_release, "FLOOR", (6, 13))
    bench.channel.offer(osimages.TURNED)
    before = bench.machine.contents(repository=False)
    with pytest.raises(KernelTooOld, match=r"^the image's kernel 6\.12\.0-test cannot mount"):
        bench.machine.command(upgrade())
    assert bench.machine.contents(repository=False) == before


def test_the_same_image_elsewhere_is_an_update(bench: Bench, top: Path) -> None:
    other = Channel(top / "other", bench.images, osimages.NEW)
    bench.machine.command(switch(other.reference))
    origin = bench.machine.facts().origin(Digest.from_hex(bench.machine.booted_id))
    assert origin is not None
    assert origin.image == other.reference


def enforcing(target: ImageReference) -> Command:
    spec = ImageSpec(target, Signature())
    return lambda system, journal: updates.switch(system, spec, UpdateOptions(), journal)


def test_a_policy_that_nobody_would_enforce_is_refused(bench: Bench, top: Path) -> None:
    machine, other = bench.machine, Channel(top / "other", bench.images, osimages.TURNED)
    before = machine.contents(repository=True)
    for reference in (other.reference, bench.channel.reference):
        with pytest.raises(PolicyNotEnforced, match="images of this transport have no"):
            machine.command(enforcing(reference))
    # As an older bootc recorded it, without anybody who checks.
    origin = machine.state(machine.booted_id) / f"{machine.booted_id}.origin"
    text = origin.read_text()
    origin.write_text(text.replace("ostree-unverified-image:", "ostree-image-signed:"))
    bench.channel.offer(osimages.TURNED)
    for command in (partial(machine.command, upgrade()), bench.check):
        with pytest.raises(PolicyNotEnforced):
            command()
    origin.write_text(text)
    assert machine.contents(repository=True) == before


def test_who_asks_for_a_policy_hears_what_it_does(
    bench: Bench, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = top / "policy.json"
    policy.write_text('{"default": [{"type": "signedBy"}]}')
    monkeypatch.setattr(sigpolicy, "POLICY_FILES", (str(policy),))
    monkeypatch.setattr("bootc.fs.process._SYSTEM_PATH", ())
    monkeypatch.setenv("PATH", "/nonexistent")
    journal, image = Journal(), ImageReference("registry", "127.0.0.1:1/os:1")
    with pytest.raises(ToolMissing), bench.machine.open() as system:
        enforcing(image)(system, journal)
    assert journal == [
        f"notice: skopeo checks the signature of the image by {policy}: the default is signedBy"
    ]


def test_what_could_not_be_switched_from_is_not_retained(bench: Bench, top: Path) -> None:
    machine, running = bench.machine, bench.machine.booted_id
    with pytest.raises((Error, OSError)):
        machine.command(switch(ImageReference.parse(f"oci:{top}/missing"), retain=True))
    assert machine.pinned() == set()
    other = Channel(top / "other", bench.images, osimages.TURNED)
    bench.write("x", "mine")
    with pytest.raises(EtcConflict) as caught:
        machine.command(switch(other.reference, retain=True))
    assert caught.value.hint == (
        "decide with bootc etc keep PATH or bootc etc take PATH, or give --etc-conflict"
    )
    assert machine.pinned() == set()
    keep = partial(switch, other.reference, etc_conflict=ConflictPolicy.KEEP_LOCAL)
    machine.command(keep(retain=True, dry_run=True))
    assert machine.pinned() == set()
    machine.command(keep(retain=True))
    assert machine.pinned() == {running}
    assert machine.announced() == (bench.id(osimages.TURNED), False)
