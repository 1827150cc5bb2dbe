"""Whose an add-on is, and which of them the next deployment gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootc.boot.addons import MAX_ADDON_BYTES
from bootc.errors import Error, one_line
from bootc.formats.origin import BootType
from support import osimages, pe
from support.addons import KEYMAP, LUKS, NAME, add, extra, listed, on_esp, refused, remove
from support.bench import Bench, switch
from support.bootdirs import SYSTEMD_UKI
from support.osimages import IMAGE_ADDON, RENAMED, TURNED, Channel, Images, image_addon


@pytest.fixture
def bench(top: Path, made: dict[BootType, Images]) -> Bench:
    """Return a machine that runs TURNED, whose image has an add-on."""
    return Bench(SYSTEMD_UKI, top, made[BootType.UKI], osimages.OLD, TURNED)


def choose(bench: Bench) -> Path:
    """Put the add-on of TURNED where the installer puts chosen ones."""
    path = extra(bench, TURNED) / IMAGE_ADDON
    path.parent.mkdir()
    path.write_bytes(image_addon(TURNED))
    return path


def carried(bench: Bench, image: osimages.OsImage = RENAMED) -> dict[str, bytes]:
    """Upgrade, and return the add-ons of the staged deployment."""
    bench.upgrade(image)
    home = extra(bench, image)
    return {p.name: p.read_bytes() for p in home.iterdir()} if home.is_dir() else {}


def owners(bench: Bench) -> dict[str, str | None]:
    return {addon["name"]: addon["from"] for addon in listed(bench)["addons"]}


def test_an_addon_of_the_image_is_taken_from_the_new_image(bench: Bench) -> None:
    choose(bench)
    add(bench)
    assert owners(bench) == {IMAGE_ADDON: "image", NAME: "administrator"}
    assert carried(bench) == {IMAGE_ADDON: image_addon(RENAMED), NAME: KEYMAP}


def test_one_that_the_new_stub_skips_is_a_warning(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    other = bytearray(KEYMAP)
    other[pe.PE_OFFSET + 4 : pe.PE_OFFSET + 6] = (0xAA64).to_bytes(2, "little")
    home = extra(bench, TURNED)
    home.mkdir()
    (home / NAME).write_bytes(other)
    assert carried(bench) == {NAME: bytes(other)}
    assert caplog.messages == [
        f"the new deployment will skip add-on {NAME}: it is for another processor"
    ]


def test_an_addon_that_the_new_image_lacks_is_dropped(bench: Bench) -> None:
    choose(bench)
    assert carried(bench, osimages.NEW) == {}


def test_an_addon_of_the_image_that_nobody_chose_stays_out(bench: Bench) -> None:
    assert carried(bench) == {}


def test_an_addon_of_the_image_that_was_removed_stays_out(bench: Bench) -> None:
    choose(bench)
    remove(bench, IMAGE_ADDON)
    assert carried(bench) == {}


def test_the_file_of_the_image_is_a_choice_of_it(bench: Bench) -> None:
    add(bench, image_addon(TURNED), IMAGE_ADDON)
    assert owners(bench) == {IMAGE_ADDON: "image"}
    assert carried(bench) == {IMAGE_ADDON: image_addon(RENAMED)}


def test_the_administrators_file_wins_over_one_that_nobody_chose(bench: Bench) -> None:
    add(bench, LUKS, IMAGE_ADDON)
    assert owners(bench) == {IMAGE_ADDON: "administrator"}
    assert carried(bench) == {IMAGE_ADDON: LUKS}
    assert bench.machine.reboot() is None
    assert owners(bench) == {IMAGE_ADDON: "administrator"}


def test_names_that_fat_takes_for_the_same(bench: Bench) -> None:
    choose(bench)
    (extra(bench, TURNED) / "Debug.addon.efi").write_bytes(LUKS)  # not on a FAT
    assert carried(bench) == {"Debug.addon.efi": LUKS}


def test_an_installed_addon_of_the_image_is_not_replaced(bench: Bench) -> None:
    choose(bench)
    assert "the image has another add-on of this name, which is installed" in refused(
        bench, LUKS, IMAGE_ADDON
    )


def test_a_damaged_addon_of_the_image_is_repaired(bench: Bench) -> None:
    choose(bench).write_bytes(b"\0" * 100)
    assert carried(bench) == {IMAGE_ADDON: image_addon(RENAMED)}


def test_a_damaged_one_of_the_administrator_is_dropped_aloud(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    add(bench)
    (extra(bench, TURNED) / NAME).write_bytes(b"\0" * 100)
    assert owners(bench) == {NAME: "administrator"}
    assert carried(bench) == {}
    assert f"/{NAME} is not carried over: UKI is not valid EFI executable" in caplog.text


@pytest.mark.parametrize("image_known", [True, False])
def test_one_that_names_an_image_stops_the_update(bench: Bench, image_known: bool) -> None:
    home = extra(bench, TURNED)
    home.mkdir()
    (home / NAME).write_bytes(pe.signable((b".cmdline", b"composefs=ab")))
    if not image_known:
        forget_image(bench)
    before = on_esp(bench)
    with pytest.raises(Error) as caught:
        bench.upgrade(RENAMED)
    assert one_line(caught.value) == (
        f"UKI add-on {NAME}: the kernel argument 'composefs=ab' is not yours to set "
        f"(hint: remove it: bootc addon remove {NAME})"
    )
    assert on_esp(bench) == before


def test_one_that_cannot_be_read_stops_the_update(bench: Bench) -> None:
    add(bench)
    with open(extra(bench, TURNED) / NAME, "r+b") as file:
        file.truncate(MAX_ADDON_BYTES + 1)
    with pytest.raises(Error) as caught:
        bench.upgrade(RENAMED)
    assert one_line(caught.value) == (
        f"UKI add-on {NAME} cannot be carried over: "
        f"file is larger than {MAX_ADDON_BYTES} bytes "
        f"(hint: remove it: bootc addon remove {NAME})"
    )


def test_without_the_old_image_names_decide(bench: Bench) -> None:
    choose(bench)
    add(bench)
    forget_image(bench)
    assert owners(bench) == {IMAGE_ADDON: None, NAME: None}
    assert carried(bench) == {IMAGE_ADDON: image_addon(RENAMED), NAME: KEYMAP}


def forget_image(bench: Bench) -> None:
    """Remove the documents of all images, as another program may."""
    for path in (bench.machine.physical / "composefs/streams").glob("oci-*"):
        path.unlink()


def test_a_directory_is_no_addon(bench: Bench) -> None:
    (extra(bench, TURNED) / NAME).mkdir(parents=True)
    assert owners(bench) == {}
    assert carried(bench) == {}


@pytest.mark.parametrize("dry_run", [True, False])
def test_an_image_without_a_kernel_image_of_its_own_gets_none_and_the_command_says_so(
    bench: Bench,
    top: Path,
    made: dict[BootType, Images],
    caplog: pytest.LogCaptureFixture,
    dry_run: bool,
) -> None:
    choose(bench)
    add(bench)
    other = Channel(top / "other", made[BootType.BLS], osimages.NEW)
    bench.machine.command(switch(other.reference, dry_run=dry_run))
    assert caplog.messages == [
        f"add-on {NAME} is not carried over: the new image has no unified kernel image"
    ]
