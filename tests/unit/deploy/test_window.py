"""The rollback window: which security versions a sealed machine goes back to.

Real commands on directories; the TPM is made up.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bootc.boot.secure_boot import SecureBoot
from bootc.boot.uki import WrongUki
from bootc.cli.render.status import status_text
from bootc.deploy import rollback, sealing
from bootc.deploy import upgrade as updates
from bootc.deploy.host import security_counter
from bootc.deploy.host.security_counter import CannotCount
from bootc.deploy.host.status import compose_host
from bootc.deploy.protection import Protection, ProtectsLess, WouldNotBoot, counter_refuses
from bootc.deploy.upgrade import UpdateOptions
from bootc.formats.digest import Digest
from bootc.formats.origin import BootType
from bootc.formats.security_version import SecurityVersion
from bootc.kernel import tpm
from support.bench import Bench
from support.bootdirs import SYSTEMD_UKI
from support.faketpm import FakeTpm
from support.machine import Journal
from support.osimages import NEW, OLD, RENAMED, TURNED, Images, OsImage
from support.schemas import problems
from support.stored import IN_MEMORY

#: NEW and REBUILT have one tree, and so one kernel.
VERSIONS = {
    "old": "bootc.security-version=1",
    "new": "bootc.security-version=3 bootc.minimum-security-version=2",
    "rebuilt": "bootc.security-version=3 bootc.minimum-security-version=2",
    "turned": "bootc.security-version=2",
}
BELOW = "its security version 1 is below 2, the minimum of the booted deployment"
LOST = "notice: the new image protects less than the booted one: "


@pytest.fixture(scope="module")
def sealed() -> Iterator[Images]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        yield Images(Path(path), BootType.UKI, strict=True, stated=VERSIONS)


@pytest.fixture(autouse=True)
def chip(monkeypatch: pytest.MonkeyPatch) -> FakeTpm:
    """Return the TPM of the machine, without a counter."""
    made = FakeTpm()
    monkeypatch.setattr(tpm, "open_tpm", lambda **options: made)
    # The file system of the test need not have fs-verity.
    monkeypatch.setattr(sealing, "find_without_verity", lambda *rest: None)
    return made


@pytest.fixture
def make(top: Path, sealed: Images) -> Callable[..., Bench]:
    return partial(Bench, SYSTEMD_UKI, top, sealed)


def go_back(bench: Bench, **options: Any) -> Journal:
    return bench.machine.command(lambda s, j: rollback.rollback(s, j, **options))


def version_of(bench: Bench, role: str) -> object:
    value = bench.machine.status()
    assert problems("host", value) == []
    return value["status"][role]["composefs"].get("securityVersion")


def waived(bench: Bench, image: OsImage) -> tuple[str, ...]:
    origin = bench.machine.facts().origin(Digest.from_hex(bench.id(image)))
    assert origin is not None
    return origin.waived


def test_an_update_below_the_minimum_is_refused(make: Callable[..., Bench]) -> None:
    bench = make(NEW)
    before = bench.machine.contents(repository=False)
    for dry_run in (True, False):
        with pytest.raises(ProtectsLess) as caught:
            bench.upgrade(OLD, dry_run=dry_run)
        assert caught.value.message == f"the new image protects less than the booted one: {BELOW}"
        assert str(caught.value.hint).endswith("by name: --allow-weaker")
    # An image that states nothing has the security version 0.
    with pytest.raises(ProtectsLess, match="its security version 0 is below 2, the minimum"):
        bench.upgrade(RENAMED)
    assert bench.machine.contents(repository=False) == before
    assert bench.upgrade(OLD, allow_weaker=True)[0] == LOST + BELOW
    assert waived(bench, OLD) == ("allow-weaker",)
    findings = bench.machine.status()["status"]["findings"]
    assert [f["text"] for f in findings if f["kind"] == "weaker"] == [
        f"it protects less than the booted deployment: {BELOW}"
    ]
    assert bench.machine.reboot() is None
    # The minimum is that of the booted deployment, and this one has none.
    assert not any("protects less" in line for line in bench.upgrade(RENAMED))


def test_an_update_inside_the_window_is_taken(make: Callable[..., Bench]) -> None:
    bench = make(NEW)
    assert not any("protects less" in line for line in bench.upgrade(TURNED))
    assert version_of(bench, "staged") == {
        "version": 2,
        "minimum": 0,
        "belowMinimum": False,
        "refused": False,
    }
    assert waived(bench, TURNED) == ()


def test_a_deployment_that_another_program_staged_is_not_released(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, chip: FakeTpm
) -> None:
    bench = make(NEW)
    with monkeypatch.context() as patch:
        patch.setattr(updates, "check_losses", lambda *rest, **more: False)
        bench.upgrade(OLD, download_only=True)
    release = partial(updates.release, options=UpdateOptions())
    with pytest.raises(ProtectsLess, match=BELOW):
        bench.machine.command(lambda s, j: release(s, sink=j))
    chip.with_counter(2)
    accepted = UpdateOptions(allow_weaker=True)
    with pytest.raises(WouldNotBoot):
        bench.machine.command(lambda s, j: updates.release(s, accepted, j))
    assert bench.machine.announced() == (bench.id(OLD), True)


def test_a_rollback_inside_the_window(make: Callable[..., Bench]) -> None:
    bench = make(TURNED, NEW)
    assert go_back(bench)[0] == "Next boot: rollback deployment"
    assert bench.machine.reboot() is None
    assert bench.machine.booted_id == bench.id(TURNED)
    assert waived(bench, TURNED) == ()


def test_a_rollback_below_the_minimum_is_refused(make: Callable[..., Bench]) -> None:
    bench = make(OLD, NEW)
    before = bench.machine.contents(repository=False)
    for dry_run in (True, False):
        with pytest.raises(ProtectsLess) as caught:
            go_back(bench, dry_run=dry_run)
        assert caught.value.message == (
            f"the rollback deployment protects less than the booted one: {BELOW}"
        )
    assert bench.machine.contents(repository=False) == before
    assert version_of(bench, "rollback") == {
        "version": 1,
        "minimum": 0,
        "belowMinimum": True,
        "refused": False,
    }
    assert version_of(bench, "booted") == {
        "version": 3,
        "minimum": 2,
        "belowMinimum": False,
        "refused": False,
    }
    host = compose_host(bench.machine.facts())
    text = status_text(host, verbose=False)
    assert "Outside: its security version is below the minimum of the booted deployment\n" in text
    text = status_text(host, verbose=True)
    assert "Security version: 3, goes back to 2\n" in text
    assert "Counter: none\n" in text
    go_back(bench, allow_weaker=True)
    assert waived(bench, OLD) == ("allow-weaker",)
    # Undoing it is no rollback to an older image.
    go_back(bench)
    assert bench.machine.menu()[0].image_id == bench.id(NEW)


def test_the_counter_refuses_what_would_not_boot(make: Callable[..., Bench], chip: FakeTpm) -> None:
    bench = make(TURNED, NEW)
    chip.with_counter(3)
    before = bench.machine.contents(repository=False)
    message = "would not boot: its security version is {}, and the counter in the TPM requires 3"
    for allow in (False, True):
        with pytest.raises(WouldNotBoot) as caught:
            go_back(bench, allow_weaker=allow)
        assert caught.value.message == f"the rollback deployment {message.format(2)}"
        with pytest.raises(WouldNotBoot) as caught:
            bench.upgrade(OLD, allow_weaker=allow)
        assert caught.value.message == f"the new image {message.format(1)}"
        assert caught.value.hint == "use an image with a security version of at least 3"
    assert bench.machine.contents(repository=False) == before
    assert version_of(bench, "rollback") == {
        "version": 2,
        "minimum": 0,
        "belowMinimum": False,
        "refused": True,
    }
    assert bench.machine.status()["status"]["rollbackWindow"] == {"minimum": 2, "counter": 3}
    host = compose_host(bench.machine.facts())
    text = status_text(host, verbose=True)
    assert "Outside: would not boot: the counter in the TPM requires a newer" in text
    assert "Counter: 3, in the TPM\n" in text


def test_a_bare_kernel_would_not_boot_either(make: Callable[..., Bench], chip: FakeTpm) -> None:
    facts = make(NEW).machine.facts()
    counting = replace(facts, counter=1)
    bare = Protection(unified=False, strict=True)
    assert counter_refuses(counting, bare)
    assert not counter_refuses(facts, bare)
    # The initramfs does not ask about these.
    assert not counter_refuses(counting, Protection(unified=False, strict=False))
    # They cannot be read.
    assert not counter_refuses(counting, Protection(unified=True, strict=None))
    optional = Protection(unified=True, strict=False, version=SecurityVersion(0))
    assert counter_refuses(counting, optional)


@pytest.mark.parametrize("optional", [True, False])
def test_other_machines_have_no_window(
    top: Path, made: dict[BootType, Images], chip: FakeTpm, optional: bool
) -> None:
    chip.with_counter(9)
    kind = BootType.UKI if optional else BootType.BLS
    scheme = SYSTEMD_UKI if optional else replace(SYSTEMD_UKI, boot_type=BootType.BLS)
    bench = Bench(scheme, top, made[kind], OLD, NEW)
    go_back(bench)
    assert bench.machine.booted_id == bench.id(NEW)
    status = bench.machine.status()["status"]
    assert "rollbackWindow" not in status
    assert "securityVersion" not in status["booted"]["composefs"]
    assert chip.commands == []


def test_a_counter_that_cannot_be_read_is_a_finding(
    make: Callable[..., Bench], chip: FakeTpm
) -> None:
    chip.broken = OSError(errno.EIO, "Input/output error")
    bench = make(OLD, TURNED)
    findings = bench.machine.status()["status"]["findings"]
    assert [(f["kind"], f["subject"], f["text"]) for f in findings] == [
        ("unreadable", "security counter", "Reading the security counter: Input/output error")
    ]
    go_back(bench)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "bootc.security-version=1 bootc.minimum-security-version=2",
            "the minimum security version 2 is above the security version 1 of the image itself",
        ),
        ("bootc.security-version=x", "kernel argument 'bootc.security-version=x' is wrong"),
    ],
)
def test_an_image_that_states_nonsense_is_refused(top: Path, arguments: str, message: str) -> None:
    images = Images(top / "images", BootType.UKI, strict=True, stated={"new": arguments})
    bench = Bench(SYSTEMD_UKI, top, images, OLD)
    with pytest.raises(WrongUki) as caught:
        bench.upgrade(NEW)
    assert caught.value.message == f"UKI cmdline: {message}"


def protected(bench: Bench, **changes: Any) -> Any:
    """Return the facts of a machine with Secure Boot."""
    facts = bench.machine.facts()
    enforced = SecureBoot(enabled=True, setup_mode=False)
    return replace(facts, booted=replace(facts.booted, secure_boot=enforced, **changes))


def test_the_counter_rises_to_the_minimum_of_the_booted_image(
    make: Callable[..., Bench], chip: FakeTpm
) -> None:
    facts = protected(make(NEW))
    assert security_counter.raise_counter(facts) is None
    assert chip.indexes == {}
    assert security_counter.enable_counter(facts) == 2
    assert security_counter.read_counter() == 2
    assert security_counter.enable_counter(facts) == 2
    line = f"{facts.booted.cmdline} bootc.minimum-security-version=7"
    raised = replace(facts, booted=replace(facts.booted, cmdline=line))
    # Not above the version of the image itself: it must boot again.
    assert security_counter.raise_counter(raised) == 3
    assert security_counter.raise_counter(facts) == 3
    security_counter.remove_counter()
    assert security_counter.read_counter() is None


def test_only_a_verified_image_changes_the_counter(
    make: Callable[..., Bench], chip: FakeTpm, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make(NEW)
    unverified = bench.machine.facts()
    lenient = protected(bench, missing_verity_allowed=True)
    for change in (security_counter.enable_counter, security_counter.raise_counter):
        chip.with_counter(1)
        with pytest.raises(CannotCount, match="Secure Boot is off or in setup mode"):
            change(unverified)
        with pytest.raises(CannotCount, match="the booted deployment is not sealed"):
            change(lenient)
    assert security_counter.read_counter() == 1
    monkeypatch.setattr(tpm, "open_tpm", lambda **options: None)
    assert security_counter.raise_counter(unverified) is None
    security_counter.remove_counter()
    with pytest.raises(CannotCount, match=r"this machine has no TPM 2\.0"):
        security_counter.enable_counter(protected(bench))
