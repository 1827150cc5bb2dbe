"""Updates of machines to which things happen that no plan foresees.

Real commands on directories; the machine around them is made up.
"""

from __future__ import annotations

import errno
import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bootc.boot import kernel_release
from bootc.boot.kernel_release import KernelTooOld
from bootc.boot.scheme import Scheme
from bootc.boot.uki import WrongUki
from bootc.deploy import cleanup, finalize, rollback, update
from bootc.deploy.etc.merge import ConflictPolicy
from bootc.deploy.host.model import ImageSpec
from bootc.deploy.host.session import System
from bootc.deploy.plan.finalize import CannotFinalize, EtcConflict
from bootc.deploy.plan.stage import NothingStaged
from bootc.deploy.update import UpdateOptions
from bootc.errors import Error
from bootc.formats.digest import Digest
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import BootType, Signature
from bootc.oci import sigpolicy
from bootc.oci.sigpolicy import PolicyNotEnforced
from bootc.sizes import exact_size
from support import osimages
from support.bench import Bench, upgrade
from support.bootdirs import GRUB, GRUB_UKI, SYSTEMD, SYSTEMD_UKI, scheme_name
from support.failing import Changes, failing, interrupting
from support.machine import Command, FakeMachine, Journal
from support.osimages import Channel, Images, OsImage
from support.room import Volume, limited
from support.stored import IN_MEMORY

ANOTHER_ENTRY = "no entry starts the {}; the next update makes one if its kernel is there"
CONFLICT = "File 'x' now defaults to a directory in new etc"
SCHEMES = (SYSTEMD, SYSTEMD_UKI, GRUB_UKI)
Failing = Callable[[int], AbstractContextManager[Changes]]
#: How a command comes to an end at a change, and what is said of a finalizer then.
FAILURES: dict[str, tuple[Failing, str]] = {
    "interrupted": (interrupting, "it was interrupted"),
    "full": (partial(failing, error=errno.ENOSPC), "No space left on device"),
}


@pytest.fixture
def top() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        yield Path(path)


@pytest.fixture(scope="module")
def made() -> Iterator[dict[BootType, Images]]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        yield {kind: Images(Path(path, kind.value), kind) for kind in BootType}


@pytest.fixture
def bench(top: Path, made: dict[BootType, Images]) -> Bench:
    """Return a machine that runs NEW and can go back to OLD."""
    return Bench(SYSTEMD, top, made[BootType.BLS], osimages.OLD, osimages.NEW)


@pytest.fixture(params=SCHEMES, ids=scheme_name)
def any_bench(request: pytest.FixtureRequest, top: Path, made: dict[BootType, Images]) -> Bench:
    """Return the same with each kind of menu."""
    scheme: Scheme = request.param
    return Bench(scheme, top, made[scheme.boot_type], osimages.OLD, osimages.NEW)


def switch(target: ImageReference, *, retain: bool = False, **options: Any) -> Command:
    def run(system: System, journal: Journal) -> object:
        spec = ImageSpec(target)
        return update.switch(system, spec, UpdateOptions(**options), journal, retain=retain)

    return run


def pin(image_id: str) -> Command:
    digest = Digest.from_hex(image_id)
    return lambda system, journal: rollback.set_pin(system, digest, journal, pinned=True)


# -- protection that an update takes away

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
    said = bench.upgrade(osimages.NEW, dry_run=True)
    assert said[0] == WEAKER + VERITY
    assert bench.upgrade(osimages.NEW)[0] == WEAKER + VERITY
    assert weaker(bench.machine) == [f"it protects less than the booted deployment: {VERITY}"]
    assert bench.machine.command(update.check_for_update) == [
        f"No changes in staged image: ostree-unverified-image:{bench.channel.reference}",
        WEAKER + VERITY,
    ]


def test_a_bare_kernel_after_a_unified_image(top: Path, made: dict[BootType, Images]) -> None:
    bench = Bench(SYSTEMD_UKI, top, made[BootType.UKI], osimages.OLD)
    demand_verity(bench.machine)
    other = Channel(top / "other", made[BootType.BLS], osimages.NEW)
    said = bench.machine.command(switch(other.reference))
    assert said[0] == WEAKER + ARGUMENTS
    assert weaker(bench.machine) == [f"it protects less than the booted deployment: {ARGUMENTS}"]


def test_looking_for_updates_cannot_tell_what_a_new_image_boots(any_bench: Bench) -> None:
    any_bench.channel.offer(osimages.TURNED)
    said = any_bench.machine.command(update.check_for_update)
    unified = any_bench.machine.scheme.boot_type is BootType.UKI
    assert [line for line in said if line.startswith("notice")] == [
        update._PERHAPS_WEAKER
    ] * unified


def test_as_much_protection_as_before_is_not_worth_a_word(bench: Bench) -> None:
    demand_verity(bench.machine)
    assert not any("protects less" in line for line in bench.upgrade(osimages.TURNED))
    assert weaker(bench.machine) == []


# -- what is there already


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
    bench.machine.command(lambda s, j: update.release(s, UpdateOptions(), j))
    assert bench.machine.finalizer_runs


@pytest.mark.parametrize(("apply", "held"), [(True, False), (False, True)])
def test_switching_to_what_is_held_back(bench: Bench, apply: bool, held: bool) -> None:
    bench.upgrade(osimages.TURNED, download_only=True)
    said = bench.machine.command(switch(bench.channel.reference, apply=apply))
    assert said == ["Image specification is unchanged."]
    assert bench.machine.announced() == (bench.id(osimages.TURNED), held)


# -- what was never finalized


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
    said = powerless.machine.command(update.cancel)
    assert said == ["The staged deployment is dropped."]
    assert powerless.findings() == []
    assert powerless.id(osimages.TURNED) not in powerless.machine.states()
    with pytest.raises(NothingStaged):
        powerless.machine.command(update.cancel)


def test_an_update_that_power_took_back_is_not_offered_any_more(powerless: Bench) -> None:
    name = f"ostree-unverified-image:{powerless.channel.reference}"
    dry = powerless.upgrade(osimages.NEW, dry_run=True)
    assert f"  remove the state of deployment {powerless.id(osimages.TURNED)}" in dry
    assert powerless.findings() != []
    assert powerless.upgrade(osimages.NEW) == [f"No changes in: {name}"]
    assert powerless.findings() == []
    assert powerless.id(osimages.TURNED) not in powerless.machine.states()


# -- finalizing that fails


def failures(bench: Bench, top: Path, failing_at: Failing) -> Iterator[FakeMachine]:
    """Yield machines whose finalizer failed at its first, its second … change."""
    for number in itertools.count(1):
        machine = bench.machine.copy(top / str(number))
        with failing_at(number) as changes:
            try:
                machine.shut_down()
            except (KeyboardInterrupt, OSError):
                assert changes.failed
        machine.start()
        yield machine
        shutil.rmtree(machine.path)
        if not changes.failed:
            return


@pytest.mark.parametrize(("failing_at", "reason"), FAILURES.values(), ids=FAILURES)
def test_a_finalizer_that_fails_says_so(
    bench: Bench, top: Path, failing_at: Failing, reason: str
) -> None:
    bench.write("local", "mine")
    bench.upgrade(osimages.TURNED)
    new, staged = bench.id(osimages.NEW), bench.id(osimages.TURNED)
    outcomes = []
    for machine in failures(bench, top, failing_at):
        outcomes.append(machine.booted_id)
        findings = machine.status()["status"].get("findings", [])
        failed = [found["text"] for found in findings if found["kind"] == "failed"]
        if machine.booted_id == staged:
            assert failed == []
            continue
        assert len(failed) == 1
        assert reason in failed[0]
        machine.command(upgrade())
        assert machine.reboot() is None
        assert machine.booted_id == staged
        assert machine.etc(staged)["local"] == "mine"
        assert not machine.status()["status"].get("findings")
    # A full disk may only hinder the removal of the old /etc, which is no failure.
    assert (outcomes[0], outcomes[-1]) == (new, staged)
    if failing_at is not FAILURES["full"][0]:
        # Before the exchange the old system, after it the new one.
        assert outcomes == sorted(outcomes, key=[new, staged].index)
    assert set(outcomes) == {new, staged}


def test_a_kernel_that_is_gone_at_shutdown(any_bench: Bench) -> None:
    bench = any_bench
    bench.upgrade(osimages.RENAMED)
    staged = bench.id(osimages.RENAMED)
    shown = bench.machine.facts().staged_item(Digest.from_hex(staged))
    assert shown is not None
    assert shown.artifact is not None
    for path in bench.machine.path.rglob(f"bootc_composefs-{shown.artifact}*"):
        if bench.machine.run not in path.parents and ".conf" not in path.name:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert isinstance(bench.machine.reboot(), CannotFinalize)
    assert bench.machine.booted_id == bench.id(osimages.NEW)
    assert any(f"kernel of the staged deployment {staged} is gone" in f for f in bench.findings())
    bench.update(osimages.RENAMED)
    assert bench.findings() == []


def test_a_state_that_is_gone_at_shutdown_costs_the_note_only(bench: Bench) -> None:
    bench.upgrade(osimages.RENAMED)
    shutil.rmtree(bench.machine.state(bench.id(osimages.RENAMED)))
    assert isinstance(bench.machine.reboot(), CannotFinalize)
    bench.update(osimages.RENAMED)


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


def test_a_failure_that_nobody_foresaw_is_told_as_it_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RecursionError("too deep")

    bench.upgrade(osimages.TURNED)
    monkeypatch.setattr(finalize, "plan_finalize", broken)
    with pytest.raises(RecursionError):
        bench.machine.shut_down()
    bench.machine.start()
    assert any("too deep" in text for text in bench.findings())


# -- entries that change, and entries that are lost


@pytest.mark.parametrize("scheme", [SYSTEMD, GRUB], ids=scheme_name)
def test_what_is_edited_after_staging_stays(
    scheme: Scheme, top: Path, made: dict[BootType, Images]
) -> None:
    bench = Bench(scheme, top, made[BootType.BLS], osimages.OLD)
    bench.upgrade(osimages.NEW)
    path = bench.machine.entries / bench.machine.menu()[0].name
    path.write_text(path.read_text().replace("options ", "options debug-mine "))
    assert bench.machine.reboot() is None
    assert bench.shown() == ["new", "old"]
    new, old = bench.machine.menu()
    assert "debug-mine" in old.options.split()
    assert "debug-mine" not in new.options.split()


def test_a_lost_entry_of_what_runs_is_made_anew(any_bench: Bench) -> None:
    bench = any_bench
    options = bench.machine.menu()[0].options
    added = r"BOOT_IMAGE=(hd0,gpt2)/vmlinuz initrd=\EFI\Linux\initrd"
    bench.machine.booted = replace(bench.machine.booted, cmdline=f"{added} {options}")
    bench.machine.lose_entry(bench.id(osimages.NEW))
    finding = (
        "no entry starts the booted deployment; the next update makes one if its kernel is there"
    )
    assert finding in bench.findings()
    bench.machine.command(cleanup.collect_garbage)
    bench.upgrade(osimages.TURNED)
    bench.machine.command(cleanup.collect_garbage)
    assert bench.machine.reboot() is None
    assert bench.shown() == ["turned", "new"]
    assert bench.findings() == []
    assert sorted(bench.machine.menu()[1].options.split()) == sorted(options.split())
    bench.machine.command(rollback.rollback)
    bench.machine.start()
    assert bench.machine.booted_id == bench.id(osimages.NEW)


def test_going_back_where_the_entry_of_what_runs_is_lost(any_bench: Bench) -> None:
    bench = any_bench
    bench.machine.lose_entry(bench.id(osimages.NEW))
    bench.upgrade(osimages.TURNED)
    assert bench.machine.command(rollback.rollback) == [
        "Next boot: rollback deployment",
        f"The staged deployment {bench.id(osimages.TURNED)} is dropped; "
        "bootc upgrade stages it anew.",
    ]
    assert bench.machine.announced() is None
    assert bench.machine.command(rollback.rollback) == ["Next boot: rollback deployment"]
    assert bench.machine.reboot() is None
    assert bench.shown() == ["old"]
    bench.update(osimages.TURNED)
    assert bench.shown() == ["turned", "old"]


def test_a_menu_that_is_lost_as_a_whole(any_bench: Bench) -> None:
    bench = any_bench
    for image in (osimages.NEW, osimages.OLD):
        bench.machine.lose_entry(bench.id(image))
    said = bench.upgrade(osimages.TURNED)
    assert "Nothing is cleaned up: the boot menu is damaged, see bootc status." in said
    assert bench.machine.reboot() is None
    assert bench.shown() == ["turned", "new"]


def test_a_lost_entry_of_a_kernel_that_another_deployment_brought(
    top: Path, made: dict[BootType, Images]
) -> None:
    # RENAMED boots the kernel that OLD brought, and OLD is gone.
    images = made[BootType.BLS]
    bench = Bench(SYSTEMD, top, images, osimages.OLD, osimages.RENAMED, osimages.NEW)
    assert bench.id(osimages.OLD) not in bench.machine.states()
    bench.machine.command(rollback.rollback)
    bench.machine.start()
    assert bench.machine.booted_id == bench.id(osimages.RENAMED)
    bench.machine.lose_entry(bench.id(osimages.RENAMED))
    bench.machine.command(cleanup.collect_garbage)
    bench.update(osimages.TURNED)
    assert bench.shown() == ["turned", "renamed"]


def test_a_pinned_deployment_whose_entry_is_lost(any_bench: Bench) -> None:
    bench, old = any_bench, any_bench.id(osimages.OLD)
    shown = next(shown for shown in bench.machine.menu() if shown.image_id == old)
    bench.machine.command(pin(old))
    bench.machine.lose_entry(old)
    assert bench.findings() == [ANOTHER_ENTRY.format(f"pinned deployment {old}")]
    bench.machine.command(cleanup.collect_garbage)
    bench.machine.check_bootable(shown)
    bench.update(osimages.TURNED)
    bench.machine.command(cleanup.collect_garbage)
    assert bench.machine.pinned() == {old}
    assert bench.shown() == ["turned", "new", "old"]
    assert bench.findings() == []
    again = bench.machine.menu()[2]
    assert again.files == shown.files
    assert sorted(again.options.split()) == sorted(shown.options.split())


def test_a_pinned_deployment_of_which_too_much_is_lost(bench: Bench) -> None:
    """Without its kernel no entry can be made; the update goes on without, and status tells."""
    old = bench.id(osimages.OLD)
    shown = next(shown for shown in bench.machine.menu() if shown.image_id == old)
    bench.machine.command(pin(old))
    bench.machine.lose_entry(old)
    shown.files[0].unlink()
    bench.update(osimages.TURNED)
    assert bench.shown() == ["turned", "new"]
    assert bench.findings() == [ANOTHER_ENTRY.format(f"pinned deployment {old}")]


# -- staging that fails


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
    bench.machine.command(lambda s, j: rollback.delete_deployment(s, Digest.from_hex(old), j))
    bench.upgrade(osimages.RENAMED)
    with nearly_full(bench.machine):
        dry = bench.upgrade(osimages.OLD, dry_run=True)
    size_bytes = sum(map(len, bench.images.kernels[before]))
    assert dry[:3] == [
        "  withdraw what is announced for the next boot",
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


# -- looking, and switching


def layers(bench: Bench, image: OsImage) -> list[dict[str, Any]]:
    digest = str(bench.images.entry(image)["digest"]).removeprefix("sha256:")
    manifest = json.loads((bench.channel.path / "blobs/sha256" / digest).read_bytes())
    found: list[dict[str, Any]] = manifest["layers"]
    return found


def size(found: list[dict[str, Any]]) -> str:
    return f"{sum(layer['size'] for layer in found)} bytes"


def test_looking_for_updates(bench: Bench) -> None:
    machine, name = bench.machine, f"ostree-unverified-image:{bench.channel.reference}"
    new, turned = layers(bench, osimages.NEW), layers(bench, osimages.TURNED)
    digest = bench.images.entry(osimages.TURNED)["digest"]
    before = machine.contents(repository=True)
    bench.channel.offer(osimages.TURNED)
    assert machine.command(update.check_for_update) == [
        f"Update available for: {name}",
        f"  Digest: {digest}",
        f"Total new layers: {len(turned)}     Size: {size(turned)}",
        f"Removed layers:   {len(new)}     Size: {size(new)}",
        f"Added layers:     {len(turned)}     Size: {size(turned)}",
    ]
    after = machine.contents(repository=True)
    changed = {path for path in after.keys() | before.keys() if after.get(path) != before.get(path)}
    assert changed == {"run/composefs/cached-update.json"}
    cached = machine.status()["status"]["booted"]["cachedUpdate"]
    assert cached["imageDigest"] == digest
    assert cached["image"]["image"] == str(bench.channel.path)
    bench.upgrade(osimages.TURNED)
    assert machine.command(update.check_for_update) == [f"No changes in staged image: {name}"]
    machine.command(update.cancel)
    bench.channel.offer(osimages.NEW)
    assert machine.command(update.check_for_update) == [f"No changes in: {name}"]
    assert machine.status()["status"]["booted"]["cachedUpdate"] is None


def test_what_was_known_before_a_switch(bench: Bench, top: Path) -> None:
    machine = bench.machine
    bench.channel.offer(osimages.TURNED)
    machine.command(update.check_for_update)
    other = Channel(top / "other", bench.images, osimages.RENAMED)
    machine.command(switch(other.reference))
    assert machine.status()["status"]["booted"]["cachedUpdate"] is None
    machine.command(update.cancel)
    assert machine.status()["status"]["booted"]["cachedUpdate"] is not None


def test_the_same_image_elsewhere_is_an_update(bench: Bench, top: Path) -> None:
    other = Channel(top / "other", bench.images, osimages.NEW)
    bench.machine.command(switch(other.reference))
    origin = bench.machine.facts().origin(Digest.from_hex(bench.machine.booted_id))
    assert origin is not None
    assert origin.image == other.reference


def enforcing(target: ImageReference) -> Command:
    spec = ImageSpec(target, Signature())
    return lambda system, journal: update.switch(system, spec, UpdateOptions(), journal)


def test_a_policy_that_nobody_would_enforce_is_refused(bench: Bench, top: Path) -> None:
    machine, other = bench.machine, Channel(top / "other", bench.images, osimages.TURNED)
    before = machine.contents(repository=True)
    for reference in (other.reference, bench.channel.reference):
        with pytest.raises(PolicyNotEnforced, match="it is read without skopeo"):
            machine.command(enforcing(reference))
    # As an older bootc recorded it, without anybody who checks.
    origin = machine.state(machine.booted_id) / f"{machine.booted_id}.origin"
    text = origin.read_text()
    origin.write_text(text.replace("ostree-unverified-image:", "ostree-image-signed:"))
    bench.channel.offer(osimages.TURNED)
    for command in (upgrade(), update.check_for_update):
        with pytest.raises(PolicyNotEnforced):
            machine.command(command)
    origin.write_text(text)
    assert machine.contents(repository=True) == before


def test_who_asks_for_a_policy_hears_what_it_does(
    bench: Bench, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = top / "policy.json"
    policy.write_text('{"default": [{"type": "reject"}]}')
    monkeypatch.setattr(sigpolicy, "POLICY_FILES", (str(policy),))
    journal, archive = Journal(), ImageReference("oci-archive", f"{top}/missing")
    with pytest.raises(Error) as caught, bench.machine.open() as system:
        enforcing(archive)(system, journal)
    assert not isinstance(caught.value, PolicyNotEnforced) or "this skopeo" in str(caught.value)
    assert journal == [
        f"notice: skopeo checks the image against {policy}; "
        "a rule there for this registry or repository may still accept anything"
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
