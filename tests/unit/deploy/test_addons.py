"""Add-ons of the administrator: added, listed, carried over, removed."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import pytest

from bootc.boot.addons import MAX_ADDON_BYTES, WrongAddon
from bootc.boot.fallback import FALLBACK
from bootc.boot.scheme import Scheme
from bootc.boot.secure_boot import SecureBoot
from bootc.cli.render.addon import addon_lines
from bootc.deploy.addons import AddonNotFound, add_addons, read_addons
from bootc.deploy.cleanup import collect_garbage
from bootc.deploy.journal import Event
from bootc.deploy.rollback import delete_deployment, rollback
from bootc.errors import one_line
from bootc.formats.origin import BootType
from bootc.formats.pe import PeError
from support import osimages, pe
from support.addons import KEYMAP, LUKS, NAME, add, extra, file_of, listed, on_esp, refused, remove
from support.bench import Bench
from support.bootdirs import GRUB_UKI, NONE_UKI, SYSTEMD, SYSTEMD_UKI, UKIBOOT, scheme_name
from support.failing import FAILURES
from support.osimages import Images
from support.room import Volume, limited


@pytest.fixture
def bench(top: Path, made: dict[BootType, Images]) -> Bench:
    """Return a machine of unified kernel images that runs NEW and can go back to OLD."""
    return Bench(SYSTEMD_UKI, top, made[BootType.UKI], osimages.OLD, osimages.NEW)


def test_the_booted_deployment_gets_it_if_nothing_is_staged(bench: Bench) -> None:
    said = add(bench)
    assert on_esp(bench) == {f"new:{NAME}"}
    assert (extra(bench, osimages.NEW) / NAME).read_bytes() == KEYMAP
    assert said == [
        f"Add-on {NAME} is added to the booted deployment {bench.id(osimages.NEW)}.",
        f"Add-on {NAME} has no signature: with Secure Boot stubs skip it.",
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


def test_the_kernel_takes_no_more_arguments(bench: Bench) -> None:
    add(bench, arguments("a" * 1000), "a.addon.efi")
    add(bench, arguments("b" * 500), "b.addon.efi", for_all=True)
    for for_all in (False, True):
        assert "the kernel takes 2047" in refused(bench, arguments("c" * 500), for_all=for_all)
    add(bench, arguments("c" * 1000), "a.addon.efi")  # in place of the first


@pytest.mark.parametrize(
    ("kernel", "addon", "why"),
    [
        ((b".uname", b"6.12"), (b".uname", b"6.11"), "it is for kernel 6.11, and the UKI has 6.12"),
        (
            (b".sdmagic", b"#### LoaderInfo: systemd-stub 253.1 ####\0"),
            (b".uname", b"6.11"),
            "the UKI has the stub of systemd 253, which knows no add-ons",
        ),
    ],
)
def test_one_that_the_stub_would_skip(
    bench: Bench, kernel: tuple[bytes, bytes], addon: tuple[bytes, bytes], why: str
) -> None:
    give_kernel(bench, kernel)
    other = pe.signable((b".cmdline", b"a"), addon)
    found = refused(bench, other)
    assert (
        f"the stub of deployment {bench.id(osimages.NEW)} would skip add-on {NAME}: {why}" in found
    )
    add(bench, other, for_all=True)


def test_one_for_another_processor(bench: Bench) -> None:
    other = bytearray(KEYMAP)
    other[pe.PE_OFFSET + 4 : pe.PE_OFFSET + 6] = (0xAA64).to_bytes(2, "little")
    assert f"would skip add-on {NAME}: it is for another processor" in refused(bench, bytes(other))


def test_one_that_the_stub_uses(bench: Bench) -> None:
    magic = b"#### LoaderInfo: systemd-stub 254~rc1-1 ####"
    give_kernel(bench, (b".uname", b"6.12"), (b".sdmagic", magic))
    add(bench, pe.signable((b".cmdline", b"a"), (b".uname", b"6.12")))
    assert on_esp(bench) == {f"new:{NAME}"}


def give_kernel(bench: Bench, *sections: tuple[bytes, bytes]) -> None:
    """Replace the UKI of NEW by one with these sections."""
    program = bench.machine.esp / f"EFI/Linux/bootc/bootc_composefs-{bench.id(osimages.NEW)}.efi"
    line = (b".cmdline", f"composefs=?{bench.id(osimages.NEW)}".encode())
    program.write_bytes(pe.program(*sections, line, (b".linux", b"k"), (b".initrd", b"i")))


def test_arguments_that_contradict_a_seal(top: Path) -> None:
    images = Images(top / "sealed", BootType.UKI, strict=True)
    bench = Bench(SYSTEMD_UKI, top, images, osimages.OLD)
    for root in ("root=UUID=1", '"root=UUID=1"', '"root"=/dev/sda', "quiet root=tmpfs"):
        for for_all in (False, True):
            text = refused(bench, arguments(root), for_all=for_all)
            assert "contradicts the seal" in text
    add(bench, arguments("rootflags=noatime rd.luks.uuid=1"))


def test_an_unsealed_image_may_get_a_root(bench: Bench) -> None:
    add(bench, arguments("root=UUID=1"))
    assert on_esp(bench) == {f"new:{NAME}"}


def test_there_is_no_room(bench: Bench) -> None:
    volume = Volume(bench.machine.esp)
    volume.leave(3)
    with limited(volume):
        assert (
            "the boot partition has 1.5 KiB free, but the add-ons need 2.0 KiB "
            "(hint: remove what nothing needs: bootc internals composefs-gc; "
        ) in refused(bench)
        volume.leave(4)
        add(bench)
        assert not volume.exceeded()
    assert on_esp(bench) == {f"new:{NAME}"}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("for_all", [False, True], ids=["one", "all"])
def test_adding_that_fails_at_any_change(bench: Bench, for_all: bool, failure: str) -> None:
    fail, _ = FAILURES[failure]
    there = {NAME if for_all else f"new:{NAME}"}
    outcomes = set()
    for number in range(1, 100):
        with fail(number) as changes, contextlib.suppress(OSError, KeyboardInterrupt):
            add(bench, for_all=for_all)
        if not changes.failed:
            break
        # Nothing is left of it, and the command can be repeated.
        assert on_esp(bench) in (set(), there)
        outcomes.add(bool(on_esp(bench)))
        add(bench, for_all=for_all)
        assert on_esp(bench) == there
        remove(bench, for_all=for_all)
    assert outcomes == {False, True}
    assert on_esp(bench) == there


def test_several_files(bench: Bench) -> None:
    paths = [file_of(bench), file_of(bench, LUKS, "luks.addon.efi")]
    bench.machine.command(lambda system, sink: add_addons(system, paths, sink))
    assert on_esp(bench) == {f"new:{NAME}", "new:luks.addon.efi"}
    paths[1] = file_of(bench, LUKS, "KEYMAP.addon.efi")
    with pytest.raises(WrongAddon, match="two files are called KEYMAP"):
        bench.machine.command(lambda system, sink: add_addons(system, paths, sink))
    with pytest.raises(WrongAddon, match="these are 65 files, more than 64"):
        bench.machine.command(lambda system, sink: add_addons(system, ["x"] * 65, sink))


def test_one_bad_file_keeps_all_out(bench: Bench) -> None:
    paths = [file_of(bench), file_of(bench, b"", "luks.addon.efi")]
    with pytest.raises(PeError):
        bench.machine.command(lambda system, sink: add_addons(system, paths, sink))
    assert on_esp(bench) == set()


def test_a_dry_run_changes_nothing(bench: Bench) -> None:
    home = f"EFI/Linux/bootc/bootc_composefs-{bench.id(osimages.NEW)}.efi.extra.d"
    assert add(bench, dry_run=True)[0] == f"* write to {home}: {NAME}"
    assert on_esp(bench) == set()
    add(bench)
    assert remove(bench, dry_run=True)[0] == f"* remove {home}/{NAME}"
    assert on_esp(bench) == {f"new:{NAME}"}


def test_what_is_not_there_cannot_be_removed(bench: Bench) -> None:
    add(bench, deployment="rollback")
    add(bench, for_all=True)
    with pytest.raises(AddonNotFound) as caught:
        remove(bench)
    assert one_line(caught.value) == (
        f"the booted deployment {bench.id(osimages.NEW)}: no add-on {NAME} "
        f"(hint: there is one with --global and --deployment {bench.id(osimages.OLD)[:12]})"
    )
    remove(bench, deployment="rollback")
    remove(bench, for_all=True)
    with pytest.raises(AddonNotFound) as caught:
        remove(bench, for_all=True)
    assert one_line(caught.value) == f"all deployments: no add-on {NAME} (hint: bootc addon list)"
    assert Event.ADDON_REMOVED in bench.machine.told.events()


def test_a_global_one_of_an_image_is_removed_by_its_name(bench: Bench) -> None:
    home = bench.machine.esp / "loader/addons"
    home.mkdir()
    (home / f"bootc_composefs-{NAME}").write_bytes(KEYMAP)
    assert [a["from"] for a in listed(bench)["addons"]] == ["image"]
    remove(bench, NAME, for_all=True)
    assert on_esp(bench) == set()


def test_names_that_bootc_gives_are_refused(bench: Bench) -> None:
    name = f"bootc_composefs-{NAME}"
    assert "such names are for the add-ons of images" in refused(bench, name=name, for_all=True)


def test_what_an_interruption_left_is_cleaned_up(bench: Bench) -> None:
    add(bench)
    left = extra(bench, osimages.NEW) / ".tmp-file-x.addon.efi"
    left.write_bytes(b"x")
    assert [a["name"] for a in listed(bench)["addons"]] == [NAME]
    bench.machine.command(collect_garbage)
    assert on_esp(bench) == {f"new:{NAME}"}


def test_a_machine_of_entries_is_told_where_its_arguments_are(
    top: Path, made: dict[BootType, Images]
) -> None:
    bench = Bench(SYSTEMD, top, made[BootType.BLS], osimages.OLD)
    for for_all in (False, True):
        text = refused(bench, for_all=for_all)
        assert "has no unified kernel image that could have add-ons" in text
        assert "edit the line options of the file in loader/entries; updates carry" in text
    assert listed(bench) == {"addons": []}


def test_ukiboot_has_no_addons(top: Path, made: dict[BootType, Images]) -> None:
    bench = Bench(UKIBOOT, top, made[BootType.UKI], osimages.OLD)
    assert "ukiboot starts no unified kernel image with add-ons of a deployment" in refused(bench)


@pytest.mark.parametrize("scheme", [GRUB_UKI, NONE_UKI], ids=scheme_name)
def test_other_loaders(top: Path, made: dict[BootType, Images], scheme: Scheme) -> None:
    bench = Bench(scheme, top, made[BootType.UKI], osimages.OLD, osimages.NEW)
    add(bench)
    bench.update(osimages.TURNED)
    assert on_esp(bench) == {f"new:{NAME}", f"turned:{NAME}"}
    copy = bench.machine.esp / f"{FALLBACK}.extra.d/{NAME}"
    assert copy.exists() is (scheme is NONE_UKI)
    remove(bench, deployment="rollback")
    assert not copy.exists()


def test_all_esps_get_it(top: Path, made: dict[BootType, Images]) -> None:
    esps = ("esp", "esp2", "esp3")
    bench = Bench(SYSTEMD_UKI, top, made[BootType.UKI], osimages.OLD, osimages.NEW, esps=esps)
    machine = bench.machine
    add(bench)
    add(bench, LUKS, "all.addon.efi", for_all=True)
    for esp in esps:
        there = machine.started_from(esp)
        assert (there.esp / extra(bench, osimages.NEW).relative_to(machine.esp) / NAME).exists()
        assert (there.esp / "loader/addons/all.addon.efi").read_bytes() == LUKS
    (machine.path / "esp2/loader/addons/all.addon.efi").unlink()
    (machine.path / "esp3/loader/addons/foreign.addon.efi").write_bytes(LUKS)
    (finding,) = bench.findings()
    assert "/loader/addons/all.addon.efi is missing or another one" in finding
    machine.command(collect_garbage)
    assert bench.findings() == []
    remove(bench)
    remove(bench, "all", for_all=True)
    assert on_esp(bench) == set()
    names = {path.name for esp in esps for path in (machine.path / esp).rglob("*.addon.efi")}
    assert names == {"foreign.addon.efi"}
    assert bench.findings() == []


def test_a_list_for_people(bench: Bench) -> None:
    with bench.machine.open() as system:
        assert list(addon_lines(read_addons(system))) == ["No add-ons."]
    add(bench, LUKS, "luks.addon.efi")
    add(bench, arguments("a\x1b[2Jb"), for_all=True)
    (extra(bench, osimages.NEW) / "x.addon.efi").write_bytes(b"")
    with bench.machine.open() as system:
        lines = list(addon_lines(read_addons(system)))
    assert lines == [
        NAME,
        "  For:       all deployments",
        "  Arguments: a [2Jb",
        "  Signed:    no",
        "  From:      administrator",
        "luks.addon.efi",
        f"  For:       deployment {bench.id(osimages.NEW)} (booted)",
        "  Arguments: rd.luks.uuid=0011-aa ",
        "  Signed:    yes (only the firmware verifies it)",
        "  From:      administrator",
        "x.addon.efi",
        f"  For:       deployment {bench.id(osimages.NEW)} (booted)",
        "  Unusable:  UKI is not valid EFI executable: truncated header at offset 60",
        "  From:      administrator",
    ]


def arguments(text: str) -> bytes:
    return pe.signable((b".cmdline", text.encode()))
