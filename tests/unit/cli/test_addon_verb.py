"""``bootc addon`` from its command line to its output, on a machine that is made up."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bootc.cli import main as cli
from bootc.deploy.host import session
from bootc.deploy.host.session import HostSession, HostView
from bootc.formats.origin import BootType
from support import osimages
from support.addons import NAME, file_of, on_esp
from support.bench import Bench
from support.bootdirs import SYSTEMD_UKI
from support.machine import view_of
from support.osimages import Images
from support.schemas import check
from support.stored import IN_MEMORY


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Yield a machine that commands find instead of the one that runs the tests."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as top:
        images = Images(Path(top, "images"), BootType.UKI)
        bench = Bench(SYSTEMD_UKI, Path(top), images, osimages.OLD, osimages.NEW)

        @contextlib.contextmanager
        def opened(*_: Any, **options: Any) -> Iterator[HostSession]:
            with bench.machine.open() as system:
                yield system

        @contextlib.contextmanager
        def viewed(*_: Any, **options: Any) -> Iterator[HostView]:
            with bench.machine.open() as system:
                yield view_of(system)

        monkeypatch.setattr(session, "open_host_session", opened)
        monkeypatch.setattr(session, "open_host_view", viewed)
        yield bench


def test_the_life_of_an_addon(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    def bootc(*words: str) -> str:
        assert cli.main(["addon", *words]) == 0
        return capsys.readouterr().out

    new = bench.id(osimages.NEW)
    home = f"EFI/Linux/bootc/bootc_composefs-{new}.efi.extra.d"
    file = file_of(bench)
    assert bootc("list") == "No add-ons.\n"
    assert bootc("add", file, "--dry-run").startswith(f"* write to {home}: {NAME}\n")
    assert on_esp(bench) == set()
    bootc("add", file)
    bootc("add", file, "--deployment", "rollback")
    bootc("add", file, "--global")
    assert on_esp(bench) == {f"new:{NAME}", f"old:{NAME}", NAME}
    shown = bootc("list")
    assert shown.startswith(f"{NAME}\n  For:       all deployments\n")
    assert f"  For:       deployment {new} (booted)\n" in shown
    listed = check("addon-list", bootc("list", "--json"))["addons"]
    assert [(addon["scope"], addon["role"]) for addon in listed] == [
        ("global", None),
        ("deployment", "booted"),
        ("deployment", "rollback"),
    ]
    assert bootc("remove", "keymap", "--dry-run").startswith(f"* remove {home}/{NAME}\n")
    bootc("remove", "keymap")
    bootc("remove", NAME, "--deployment", bench.id(osimages.OLD)[:8])
    bootc("remove", "keymap", "--global")
    assert on_esp(bench) == set()


def test_one_scope_at_a_time(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("add", "remove"):
        assert cli.main(["addon", verb, "--global", "--deployment", "booted", NAME]) == 2
        assert "--global cannot be used with --deployment" in capsys.readouterr().err
