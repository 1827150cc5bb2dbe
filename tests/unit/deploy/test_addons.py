"""Add-ons of the administrator: added, listed, carried over, removed."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import pytest

from bootc.boot.addons import MAX_ADDON_BYTES
from bootc.boot.secure_boot import SecureBoot
from bootc.boot.space import NoSpaceOnBoot
from bootc.cli.render.addon import addon_lines, addons_json
from bootc.deploy.addons import add_addons, read_addons, remove_addon
from bootc.deploy.cleanup import collect_garbage
from bootc.deploy.journal import Event
from bootc.deploy.rollback import delete_deployment, rollback
from bootc.errors import Error, one_line
from bootc.formats.origin import BootType
from support import osimages, pe
from support.bench import Bench
from support.bootdirs import SYSTEMD_UKI
from support.osimages import Images

KEYMAP = pe.signable((b".cmdline", b"vconsole.keymap=de"))
LUKS = pe.signed(pe.signable((b".cmdline", b"rd.luks.uuid=0011-aa\n")))
NAME = "keymap.addon.efi"


@pytest.fixture
def bench(top: Path, made: dict[BootType, Images]) -> Bench:
    """Return a machine of unified kernel images that runs NEW and can go back to OLD."""
    return Bench(SYSTEMD_UKI, top, made[BootType.UKI], osimages.OLD, osimages.NEW)


def file_of(bench: Bench, data: bytes = KEYMAP, name: str = NAME) -> str:
    path = bench.machine.path / name
    path.write_bytes(data)
    return str(path)


def add(bench: Bench, data: bytes = KEYMAP, name: str = NAME, **options: Any) -> list[str]:
    path = file_of(bench, data, name)
    return bench.machine.command(lambda system, sink: add_addons(system, [path], sink, **options))


def remove(bench: Bench, name: str = NAME, **options: Any) -> list[str]:
    return bench.machine.command(lambda system, sink: remove_addon(system, name, sink, **options))


def refused(bench: Bench, data: bytes = KEYMAP, name: str = NAME, **options: Any) -> str:
    before = on_esp(bench)
    with pytest.raises((Error, OSError)) as caught:
        add(bench, data, name, **options)
    assert on_esp(bench) == before
    return one_line(caught.value)


def extra(bench: Bench, image: osimages.OsImage) -> Path:
    return bench.machine.esp / f"EFI/Linux/bootc/bootc_composefs-{bench.id(image)}.efi.extra.d"


def on_esp(bench: Bench) -> set[str]:
    """Return the tag and the name of each add-on; the name alone if it is global."""
    found = {
        f"{tag}:{path.name}"
        for tag in (image.tag for image in osimages.ALL.values())
        if tag != "rebuilt"
        for path in _names(extra(bench, osimages.ALL[tag]))
    }
    return found | {path.name for path in _names(bench.machine.esp / "loader/addons")}


def _names(home: Path) -> list[Path]:
    return list(home.iterdir()) if home.is_dir() else []


def listed(bench: Bench) -> dict[str, Any]:
    with bench.machine.open() as system:
        return addons_json(read_addons(system))


def test_the_booted_deployment_gets_it_if_nothing_is_staged(bench: Bench) -> None:
    said = add(bench)
    assert on_esp(bench) == {f"new:{NAME}"}
    assert (extra(bench, osimages.NEW) / NAME).read_bytes() == KEYMAP
    assert said == [
        f"Add-on {NAME} is added to the booted deployment {bench.id(osimages.NEW)}.",
        "Updates carry it over. Deployments that are there already do not get it.",
    ]
    assert bench.machine.told.events() == [Event.ADDON_ADDED]
    assert add(bench) == [f"Add-on {NAME} is there already."]


def test_updates_carry_it_over_and_it_goes_with_its_deployment(bench: Bench) -> None:
    add(bench)
    bench.upgrade(osimages.TURNED)
    assert on_esp(bench) == {f"new:{NAME}", f"turned:{NAME}"}
    assert bench.machine.reboot() is None
    assert bench.shown() == ["turned", "new"]
    bench.update(osimages.RENAMED)
    bench.machine.command(collect_garbage)
    assert on_esp(bench) == {f"turned:{NAME}", f"renamed:{NAME}"}
    remove(bench)
    bench.update(osimages.OLD)
    bench.machine.command(collect_garbage)
    assert on_esp(bench) == set()


def test_a_clean_up_keeps_what_deployments_have(bench: Bench) -> None:
    add(bench)
    add(bench, LUKS, "luks.addon.efi", deployment="rollback")
    add(bench, name="all.addon.efi", for_all=True)
    there = {f"new:{NAME}", "old:luks.addon.efi", "all.addon.efi"}
    bench.machine.command(collect_garbage)
    assert on_esp(bench) == there
    bench.machine.command(lambda system, sink: delete_deployment(system, "rollback", sink))
    assert on_esp(bench) == there - {"old:luks.addon.efi"}


def test_the_staged_deployment_gets_it_and_the_next_one_from_there(bench: Bench) -> None:
    add(bench, LUKS, "luks.addon.efi")
    bench.upgrade(osimages.TURNED)
    add(bench)
    remove(bench, "luks")
    assert on_esp(bench) == {"new:luks.addon.efi", f"turned:{NAME}"}
    bench.upgrade(osimages.RENAMED)
    assert on_esp(bench) >= {"new:luks.addon.efi", f"renamed:{NAME}"}
    assert "renamed:luks.addon.efi" not in on_esp(bench)


def test_a_rollback_boots_without_it(bench: Bench) -> None:
    add(bench)
    bench.machine.command(rollback)
    bench.machine.start()
    assert bench.machine.booted_id == bench.id(osimages.OLD)
    assert on_esp(bench) == {f"new:{NAME}"}


def test_a_global_one_is_for_all_and_stays(bench: Bench) -> None:
    said = add(bench, for_all=True)
    assert said[-1] == (
        "It changes the boot of all deployments, so a rollback does not undo it: "
        "bootc addon remove --global NAME does."
    )
    bench.update(osimages.TURNED)
    bench.update(osimages.RENAMED)
    bench.machine.command(collect_garbage)
    assert on_esp(bench) == {NAME}
    assert remove(bench, "keymap", for_all=True) == [
        f"Add-on {NAME} is removed from all deployments."
    ]
    assert on_esp(bench) == set()


def test_one_of_another_deployment_is_not_carried_over(bench: Bench) -> None:
    said = add(bench, deployment="rollback")
    assert said[-1] == "Updates do not carry it over: this is not the deployment that boots next."
    bench.upgrade(osimages.TURNED)
    assert on_esp(bench) == {f"old:{NAME}"}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "UKI is not valid EFI executable: truncated header at offset 60"),
        (KEYMAP[:400], "UKI is not valid EFI executable: truncated section table"),
        (pe.program(*pe.UKI_SECTIONS), "it is a unified kernel image: it has a kernel"),
        (pe.signable((b".sbat", b"sbat,1")), "it is no add-on"),
        (pe.signable((b".cmdline", b"a composefs=" + b"ab" * 64)), "is not yours to set"),
        (pe.signable((b".cmdline", b"composefs.digest=v1-sha512-12:00")), "is not yours to set"),
        (pe.signable((b".cmdline", b'a "b')), "bad kernel argument"),
        (pe.signable((b".cmdline", b"a" * 2048)), "and the kernel takes 2047"),
        (pe.signable((b".cmdline", b"\xff")), "is not UTF-8"),
    ],
)
def test_files_that_are_refused(bench: Bench, data: bytes, text: str) -> None:
    for for_all in (False, True):
        assert text in refused(bench, data, for_all=for_all)


@pytest.mark.parametrize(
    "name", ["keymap.efi", ".addon.efi", ".hidden.addon.efi", "ü.addon.efi", "a:b.addon.efi"]
)
def test_names_that_are_refused(bench: Bench, name: str) -> None:
    text = refused(bench, name=name)
    assert "no name of an add-on" in text or "that the ESP cannot hold" in text


def test_a_file_that_is_too_large_or_missing(bench: Bench) -> None:
    path = file_of(bench)
    with open(path, "r+b") as file:
        file.truncate(MAX_ADDON_BYTES + 1)
    with pytest.raises(OSError, match=f"larger than {MAX_ADDON_BYTES}"):
        bench.machine.command(lambda system, sink: add_addons(system, [path], sink))
    with pytest.raises(FileNotFoundError):
        bench.machine.command(lambda system, sink: add_addons(system, [f"/no/{NAME}"], sink))


def test_an_unsigned_one_is_refused_under_secure_boot(bench: Bench) -> None:
    firmware = SecureBoot(enabled=True, setup_mode=False)
    bench.machine.booted = dataclasses.replace(bench.machine.booted, secure_boot=firmware)
    assert "it has no signature, and Secure Boot is on" in refused(bench)
    add(bench, LUKS)
    assert on_esp(bench) == {f"new:{NAME}"}


def test_a_name_that_differs_in_case_is_refused(bench: Bench) -> None:
    add(bench)
    assert "the ESP takes its name for that of keymap.addon.efi" in refused(
        bench, LUKS, "KeyMap.addon.efi"
    )
    add(bench, LUKS)
    assert (extra(bench, osimages.NEW) / NAME).read_bytes() == LUKS
