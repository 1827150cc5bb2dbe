"""The page about unified kernel images, run: ukify's add-on is added, carried over and removed."""

from __future__ import annotations

import dataclasses
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bootc.boot.secure_boot import SecureBoot
from bootc.cli.options import build_parser
from bootc.cli.table import commands_for
from bootc.deploy.addons import add_addons, remove_addon
from bootc.formats.origin import BootType
from support import howto, osimages, require, ukify
from support.addons import listed, on_esp
from support.bench import Bench
from support.bootdirs import SYSTEMD_UKI
from support.osimages import Images
from support.sealtools import Keys

pytestmark = pytest.mark.interop

NAME = "local.addon.efi"
STUB = "/usr/lib/systemd/boot/efi/addonx64.efi.stub"
ARGUMENTS = "vconsole.keymap=de rd.luks.uuid=2fb27e21-4a5e-4f0c-9b6e-0a4b1f1f0e5d"


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Build the add-on of the page, and go to the directory that has it."""
    require.tool("sbsign")
    (tmp_path / "keys").mkdir()
    Keys.make(tmp_path / "keys")
    programs = ukify.program(tmp_path / "programs", stub=False)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.chdir(tmp_path)
    stub = {STUB: str(ukify.stub_path("addon"))}
    line = howto.replaced(howto.command("uki", "ukify build"), stub)
    subprocess.run(shlex.split(line), check=True, capture_output=True)
    return tmp_path


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return a machine under Secure Boot that runs NEW and can go back to OLD."""
    images = Images(tmp_path / "images", BootType.UKI)
    bench = Bench(SYSTEMD_UKI, tmp_path, images, osimages.OLD, osimages.NEW)
    firmware = SecureBoot(enabled=True, setup_mode=False)
    bench.machine.booted = dataclasses.replace(bench.machine.booted, secure_boot=firmware)
    return bench


def run(bench: Bench, command: str) -> list[str]:
    """Run a command line of the page on a machine, and return what it says."""
    command = command.replace("c2d0a1", bench.id(osimages.NEW)[:6])
    ((*words,),) = howto.bootc_arguments(command)
    given = vars(build_parser("bootc", commands_for(words), "0").parse_args(words))
    options: dict[str, Any] = {"deployment": given["deployment"], "for_all": given["global"]}
    if "file" in given:
        return bench.machine.command(
            lambda system, sink: add_addons(system, given["file"], sink, **options)
        )
    return bench.machine.command(
        lambda system, sink: remove_addon(system, given["name"], sink, **options)
    )


def test_the_page(built: Path, bench: Bench) -> None:
    sbverify = require.tool("sbverify")
    subprocess.run([sbverify, "--cert", "keys/db.pem", NAME], check=True, capture_output=True)
    said = run(bench, howto.command("uki", "bootc addon add local"))
    printed = [line.strip() for line in howto.text("uki").splitlines()]
    assert said[0].split(bench.id(osimages.NEW))[0] + "c2d0a1…." in printed
    assert said[1] in printed
    assert on_esp(bench) == {f"new:{NAME}"}
    assert howto.command("uki", "bootc addon list") == "bootc addon list"
    (addon,) = listed(bench)["addons"]
    assert (addon["arguments"], addon["signed"], addon["from"], addon["role"]) == (
        ARGUMENTS,
        True,
        "administrator",
        "booted",
    )
    bench.update(osimages.TURNED)
    assert on_esp(bench) == {f"new:{NAME}", f"turned:{NAME}"}
    run(bench, howto.command("uki", "bootc addon remove local --deployment"))
    assert on_esp(bench) == {f"turned:{NAME}"}
    run(bench, howto.command("uki", "bootc addon add --global"))
    assert on_esp(bench) == {f"turned:{NAME}", NAME}


def test_the_stub_itself_is_no_addon(bench: Bench) -> None:
    """It has no kernel arguments; a kernel's stub without a kernel has none either."""
    for kind in ("addon", "linux"):
        path = bench.machine.path / NAME
        path.write_bytes(ukify.stub_path(kind).read_bytes())
        with pytest.raises(Exception, match="it is no add-on"):
            bench.machine.command(lambda system, sink, p=path: add_addons(system, [str(p)], sink))
