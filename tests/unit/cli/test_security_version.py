"""``bootc security-version`` on a machine with a TPM, both made up."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bootc.boot.secure_boot import SecureBoot
from bootc.deploy import sealing
from bootc.deploy.host import session
from bootc.deploy.rollback import rollback
from bootc.formats.origin import BootType
from bootc.kernel import tpm
from support import osimages
from support.bench import Bench
from support.bootdirs import SYSTEMD_UKI
from support.faketpm import FakeTpm
from support.osimages import Images
from support.stored import IN_MEMORY

STATED = "bootc.security-version=3 bootc.minimum-security-version=2"
Bootc = Callable[..., tuple[int, str, str]]


@pytest.fixture
def chip(monkeypatch: pytest.MonkeyPatch) -> FakeTpm:
    made = FakeTpm()
    monkeypatch.setattr(tpm, "open_tpm", lambda **options: made)
    return made


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Return a machine that booted a sealed image under Secure Boot."""
    # The file system of the test need not have fs-verity.
    monkeypatch.setattr(sealing, "find_without_verity", lambda *rest: None)
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        top, stated = Path(path), {"old": STATED}
        images = Images(top / "images", BootType.UKI, strict=True, stated=stated)
        made = Bench(SYSTEMD_UKI, top, images, osimages.OLD)
        machine = made.machine
        enforced = SecureBoot(enabled=True, setup_mode=False)
        machine.booted = dataclasses.replace(machine.booted, secure_boot=enforced)

        @contextmanager
        def opened(*rest: object, **options: object) -> Iterator[object]:
            with machine.open() as system:
                yield system

        monkeypatch.setattr(session, "open_host_view", opened)
        yield made


def test_the_life_of_a_counter(bootc: Bootc, bench: Bench, chip: FakeTpm) -> None:
    show, said = ("security-version", "show"), "Security version: 3\nMinimum: 2\nCounter: {}\n"
    assert bootc(*show) == (0, said.format("none"), "")
    none = "This machine has no security counter.\n"
    assert bootc("security-version", "raise-counter") == (0, none, "")
    counts = "The security counter is {}: no image with a lower security version boots.\n"
    assert bootc("security-version", "enable-counter") == (0, counts.format(2), "")
    assert bootc(*show) == (0, said.format(2), "")
    assert bootc("security-version", "raise-counter") == (0, counts.format(2), "")
    assert bootc("security-version", "remove-counter") == (0, none, "")
    assert bootc(*show) == (0, said.format("none"), "")
    assert chip.indexes == {}


def test_deployments_that_do_not_boot_any_more(bootc: Bootc, bench: Bench, chip: FakeTpm) -> None:
    """NEW states nothing; the user accepted it, and went back."""
    bench.upgrade(osimages.NEW, allow_weaker=True)
    bench.machine.reboot()
    bench.machine.command(rollback)
    bench.machine.reboot()
    enforced = SecureBoot(enabled=True, setup_mode=False)
    bench.machine.booted = dataclasses.replace(bench.machine.booted, secure_boot=enforced)
    code, out, _ = bootc("security-version", "enable-counter")
    assert code == 0
    assert out.splitlines()[1:] == [f"Deployment {bench.id(osimages.NEW)} does not boot any more."]


def test_a_machine_that_states_nothing(bootc: Bootc, bench: Bench, chip: FakeTpm) -> None:
    machine = bench.machine
    machine.booted = dataclasses.replace(machine.booted, cmdline=f"composefs={'ab' * 64}")
    code, out, err = bootc("security-version", "show")
    assert (code, out, err) == (0, "Security version: not stated\nCounter: none\n", "")


def test_a_tpm_that_refuses(bootc: Bootc, bench: Bench, chip: FakeTpm) -> None:
    chip.refuse = {0x12A: 0x9A2}
    assert bootc("security-version", "enable-counter") == (
        1,
        "",
        "error: Defining the security counter: the TPM refused a command with code 0x9a2 "
        "(hint: the owner of the TPM has a password: remove it with tpm2_changeauth)\n",
    )


def test_the_verb_alone_is_wrong_usage(bootc: Bootc) -> None:
    code, _, err = bootc("security-version")
    assert (code, err) == (
        2,
        "error: a command is missing (hint: see bootc security-version --help)\n",
    )
