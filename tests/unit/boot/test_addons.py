"""Add-ons on a boot partition: what is read of what others put there."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.boot import addons
from bootc.boot.addons import (
    AddonContent,
    WrongAddon,
    check_content,
    list_addons,
    read_content,
    remove_addon,
    write_addons,
)
from bootc.boot.scheme import BootDirs
from bootc.boot.uki import WrongUki
from bootc.formats.pe import PeError
from bootc.fs.readback import NotOnDisk
from support import pe
from support.bootdirs import SYSTEMD_UKI, open_boot

HOME = "loader/addons"
QUIET = pe.signable((b".cmdline", b"quiet\n"))


@pytest.fixture
def dirs(tmp_path: Path) -> Iterator[BootDirs]:
    with open_boot(tmp_path, SYSTEMD_UKI) as dirs:
        yield dirs


@pytest.fixture
def home(dirs: BootDirs) -> Path:
    path = Path(dirs.binaries.path, HOME)
    path.mkdir(parents=True)
    return path


def names(dirs: BootDirs) -> list[str]:
    return [addon.name for addon in list_addons(dirs.binaries, HOME)]


def test_what_an_addon_says() -> None:
    sections = ((b".uname", b"6.12\0"), (b".cmdline", b"a\tb\0"), (b".ucode", b"x"))
    program = pe.signed(pe.signable(*sections))
    assert read_content(io.BytesIO(program)) == AddonContent(
        "a b", "6.12", 0x8664, (".cmdline", ".ucode"), signed=True
    )
    program = pe.signable((b".dtb", b"x"))
    assert read_content(io.BytesIO(program)) == AddonContent(
        None, None, 0x8664, (".dtb",), signed=False
    )


def test_only_names_that_a_stub_uses(dirs: BootDirs, home: Path) -> None:
    for name in ("b.addon.efi", "A.ADDON.EFI", ".tmp-file-c.addon.efi", "é.addon.efi", "x.efi"):
        (home / name).write_bytes(QUIET)
    (home / "dir.addon.efi").mkdir()
    assert names(dirs) == ["A.ADDON.EFI", "b.addon.efi"]
    assert list_addons(dirs.binaries, "nowhere") == ()
    assert list_addons(dirs.binaries, f"{HOME}/x.efi") == ()


def test_what_cannot_be_read_is_listed(dirs: BootDirs, home: Path) -> None:
    os.mkfifo(home / "fifo.addon.efi")
    (home / "kernel.addon.efi").write_bytes(pe.program(*pe.UKI_SECTIONS))
    (home / "short.addon.efi").write_bytes(QUIET[:50])
    assert {addon.name: addon.problem for addon in list_addons(dirs.binaries, HOME)} == {
        "fifo.addon.efi": "not a regular file",
        "kernel.addon.efi": "it is a unified kernel image: it has a kernel",
        "short.addon.efi": "UKI is not valid EFI executable: truncated header at offset 60",
    }


def test_a_directory_is_read_up_to_a_size(
    dirs: BootDirs, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addons, "_MAX_DIRECTORY_BYTES", 2 * len(QUIET))
    for name in "abc":
        (home / f"{name}.addon.efi").write_bytes(QUIET)
    problems = [addon.problem for addon in list_addons(dirs.binaries, HOME)]
    assert problems == ["", "", "file is larger than 0 bytes"]


def test_a_directory_has_a_bounded_number_of_names(dirs: BootDirs, home: Path) -> None:
    for number in range(257):
        (home / str(number)).touch()
    with pytest.raises(OSError, match="holds more than 256 entries"):
        list_addons(dirs.binaries, HOME)


@pytest.mark.parametrize("text", ["composefs=x", "composefs.other=1", '"composefs=x"', 'a="'])
def test_arguments_that_no_image_may_get(text: str) -> None:
    content = AddonContent(text, None, 0, (".cmdline",), signed=True)
    with pytest.raises(WrongUki):
        check_content(content, sealed=False)


def test_a_root_is_refused_for_sealed_images_only() -> None:
    content = AddonContent("quiet root=/dev/sda", None, 0, (".cmdline",), signed=True)
    check_content(content, sealed=False)
    with pytest.raises(WrongAddon, match="'root=/dev/sda' contradicts the seal"):
        check_content(content, sealed=True)


@pytest.mark.parametrize("size", [0, 1, 63, 200, len(QUIET) - 600])
def test_a_file_that_is_cut(size: int) -> None:
    with pytest.raises(PeError):
        read_content(io.BytesIO(QUIET[:size]))


def test_what_the_disk_has_is_compared(
    dirs: BootDirs, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "a.addon.efi").write_bytes(b"old")
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *args: pread(*args)[::-1])
    with pytest.raises(NotOnDisk, match="does not have the content that was written to it"):
        write_addons(dirs, HOME, [("a.addon.efi", QUIET)])
    assert [path.name for path in home.iterdir()] == ["a.addon.efi"]
    assert (home / "a.addon.efi").read_bytes() == b"old"


def test_removing_twice(dirs: BootDirs, home: Path) -> None:
    write_addons(dirs, HOME, [("a.addon.efi", QUIET)])
    assert (home / "a.addon.efi").read_bytes() == QUIET
    for _ in range(2):
        remove_addon(dirs, f"{HOME}/a.addon.efi")
        assert names(dirs) == []
