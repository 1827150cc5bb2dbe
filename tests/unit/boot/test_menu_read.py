from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootc.boot.findings import Finding, FindingKind
from bootc.boot.menu import read_menu
from bootc.boot.menu_compose import compose_menu
from bootc.boot.menu_read import OLD_MARK, Menu, foreign_files
from bootc.boot.scheme import Scheme
from bootc.formats.bls import Entry
from bootc.fs.dir import Dir
from support.bootdirs import (
    GRUB,
    GRUB_CC,
    GRUB_UKI,
    SCHEMES,
    SYSTEMD,
    SYSTEMD_UKI,
    deployment,
    item_of,
    open_boot,
    scheme_name,
)

A, B, C = (deployment(number) for number in (1, 2, 3))
#: What nobody can take for an entry of ours.
WINDOWS = b"version 1\nefi /EFI/Microsoft/x.efi\n"


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def root_of(tmp_path: Path, scheme: Scheme) -> Path:
    return tmp_path / ("esp" if scheme.menu_on_esp else "boot")


def put_menu(tmp_path: Path, scheme: Scheme, *numbers: int, staged: bool = False) -> None:
    place = root_of(tmp_path, scheme) / (scheme.staged if staged else scheme.entries)
    for name, data in compose_menu(scheme, [item_of(scheme, number) for number in numbers]):
        put(place if scheme.menu_is_file else place / name, data)


def menu_of(tmp_path: Path, scheme: Scheme = SYSTEMD, *, staged: bool = False) -> Menu:
    with open_boot(tmp_path, scheme) as dirs:
        return read_menu(dirs, staged=staged)


@pytest.mark.parametrize("scheme", SCHEMES, ids=scheme_name)
def test_what_was_written_is_read(tmp_path: Path, scheme: Scheme) -> None:
    put_menu(tmp_path, scheme, 3, 1, 2)
    put_menu(tmp_path, scheme, 9, 3, staged=True)
    menu = menu_of(tmp_path, scheme)
    assert menu.deployments == (C, A, B)
    assert [item.artifact for item in menu.items] == [C.hex, A.hex, B.hex]
    assert (menu.foreign, menu.findings) == ((), ())
    assert menu_of(tmp_path, scheme, staged=True).deployments == (deployment(9), C)


@pytest.mark.parametrize("scheme", SCHEMES, ids=scheme_name)
def test_no_menu_is_an_empty_one(tmp_path: Path, scheme: Scheme) -> None:
    assert menu_of(tmp_path, scheme) == Menu()
    assert menu_of(tmp_path, scheme, staged=True) == Menu()


@pytest.mark.parametrize("scheme", [SYSTEMD, GRUB_CC])
def test_both_kinds_in_one_menu(tmp_path: Path, scheme: Scheme) -> None:
    uki = Scheme(scheme.bootloader, SYSTEMD_UKI.boot_type)
    files = compose_menu(scheme, [item_of(uki, 2), item_of(scheme, 1)])
    for name, data in files:
        put(tmp_path / "esp/loader/entries" / name, data)
    for reader in (scheme, uki):
        menu = menu_of(tmp_path, reader)
        assert menu.deployments == (B, A)
        assert [item.artifact for item in menu.items] == [B.hex, A.hex]


@pytest.mark.parametrize("scheme", [GRUB, GRUB_UKI])
def test_both_menus_of_grub(tmp_path: Path, scheme: Scheme) -> None:
    put_menu(tmp_path, GRUB, 1)
    put_menu(tmp_path, GRUB_UKI, 2, 1)
    menu = menu_of(tmp_path, scheme)
    assert menu.deployments == (B, A)
    (finding,) = menu.findings
    assert (finding.kind, finding.subject) == (FindingKind.DUPLICATE, "bootc_fedora-9999-1.conf")


def test_a_user_cfg_of_settings_hides_nothing(tmp_path: Path) -> None:
    put_menu(tmp_path, GRUB, 1)
    put(tmp_path / "boot/grub2/user.cfg", b"GRUB2_PASSWORD=grub.pbkdf2.sha512.1\n")
    assert menu_of(tmp_path, GRUB).deployments == (A,)


def test_old_names_of_artifacts(tmp_path: Path) -> None:
    linux = f"version 1\nlinux /EFI/Linux/{A}/vmlinuz\noptions composefs={B}\n"
    uki = f"version 1\nuki /EFI/Linux/bootc/{C}.efi\n"
    put(tmp_path / "esp/loader/entries/b.conf", linux.encode())
    put(tmp_path / "esp/loader/entries/a.conf", uki.encode())
    menu = menu_of(tmp_path)
    assert [(item.deployment, item.artifact) for item in menu.items] == [(B, A.hex), (C, C.hex)]
    assert menu.foreign == ()


def test_arguments_on_several_lines(tmp_path: Path) -> None:
    data = f"linux /vmlinuz\noptions root=UUID=1 rw\noptions composefs=?{A}\noptions quiet\n"
    put(tmp_path / "esp/loader/entries/mine.conf", data.encode())
    (item,) = menu_of(tmp_path).items
    assert isinstance(item.entry, Entry)
    assert item.entry.options == f"root=UUID=1 rw composefs=?{A} quiet"
    assert item.deployment == A


def test_a_kernel_at_no_place_of_ours(tmp_path: Path) -> None:
    data = f"version 1\nlinux /vmlinuz\noptions composefs=?{A}\n"
    put(tmp_path / "esp/loader/entries/mine.conf", data.encode())
    (item,) = menu_of(tmp_path).items
    assert (item.deployment, item.artifact) == (A, None)


def test_a_deployment_counts_once(tmp_path: Path) -> None:
    put_menu(tmp_path, SYSTEMD, 1, 2)
    entries = tmp_path / "esp/loader/entries"
    copy = (entries / "bootc_fedora-43-1.conf").read_bytes().replace(b"fedora-0", b"fedora-7")
    put(entries / "copy.conf", copy)
    menu = menu_of(tmp_path)
    assert menu.deployments == (A, B)
    assert menu.items[0].name == "bootc_fedora-43-1.conf"
    text = f"starts deployment {A}, which 'bootc_fedora-43-1.conf' already starts"
    assert menu.findings == (Finding(FindingKind.DUPLICATE, "copy.conf", text),)
    assert menu.foreign == ()


@pytest.mark.parametrize(
    ("name", "data", "kind", "foreign"),
    [
        ("bootc_x-1-1.conf", b"\xff", FindingKind.MALFORMED, False),
        ("bootc_x-1-1.conf", b"", FindingKind.MALFORMED, False),
        ("BOOTC_x-1-1.CONF", b"", FindingKind.MALFORMED, False),
        ("bootc_x-1-1.conf", b"version 1\nlinux /v\n", FindingKind.MALFORMED, False),
        ("bootc_x-1-1.conf", WINDOWS, FindingKind.MALFORMED, False),
        ("a.conf", b"title x\n", FindingKind.FOREIGN, True),
        ("other.conf", b"title x\nefi /EFI/other.efi\n", FindingKind.FOREIGN, True),
        ("mine.conf", b"options composefs=abc\n", FindingKind.MALFORMED, True),
        ("mine.conf", b"linux /v\nuki /EFI/Linux/bootc/x.efi\n", FindingKind.MALFORMED, True),
        ("mine.conf", b"linux /v\noptions composefs=abc\n", FindingKind.FOREIGN, True),
        ("a.conf", b"#" * 70_000, FindingKind.UNREADABLE, True),
        ("windows.conf", WINDOWS, FindingKind.FOREIGN, True),
        ("memtest.conf", b"version 1\nlinux /memtest\n", FindingKind.FOREIGN, True),
        ("notes.txt", b"\xff", None, True),
        (".tmp-file-x", b"", None, False),
        (OLD_MARK, b"", None, False),
    ],
)
def test_odd_files(
    tmp_path: Path, name: str, data: bytes, kind: FindingKind | None, foreign: bool
) -> None:
    put_menu(tmp_path, SYSTEMD, 1)
    put(tmp_path / "esp/loader/entries" / name, data)
    menu = menu_of(tmp_path)
    assert menu.deployments == (A,)
    assert menu.foreign == ((name,) if foreign else ())
    assert [finding.kind for finding in menu.findings] == ([kind] if kind else [])
    assert all(finding.subject == name and "\n" not in finding.text for finding in menu.findings)
    with Dir.open(tmp_path / "esp/loader/entries") as directory:
        assert foreign_files(directory) == menu.foreign


def test_things_that_are_no_files(tmp_path: Path) -> None:
    put_menu(tmp_path, SYSTEMD, 1)
    entries = tmp_path / "esp/loader/entries"
    (entries / "directory.conf").mkdir()
    (entries / "link.conf").symlink_to("bootc_fedora-43-1.conf")
    os.mkfifo(entries / "pipe.conf")
    (entries / os.fsdecode(b"\xff.conf")).write_bytes(b"")
    menu = menu_of(tmp_path)
    assert menu.deployments == (A,)
    assert len(menu.findings) == len(menu.foreign) == 4


@pytest.mark.parametrize("scheme", SCHEMES, ids=scheme_name)
@pytest.mark.parametrize("staged", [False, True])
def test_something_else_in_place_of_the_menu(tmp_path: Path, scheme: Scheme, staged: bool) -> None:
    place = root_of(tmp_path, scheme) / (scheme.staged if staged else scheme.entries)
    if scheme.menu_is_file:
        place.mkdir(parents=True)
        kinds = [FindingKind.UNREADABLE]
    else:
        put(place, b"")
        kinds = []
    menu = menu_of(tmp_path, scheme, staged=staged)
    assert menu.items == ()
    assert [finding.kind for finding in menu.findings] == kinds


def test_a_menu_that_leads_outside(tmp_path: Path) -> None:
    (tmp_path / "esp").mkdir()
    (tmp_path / "esp/loader").symlink_to(tmp_path / "elsewhere")
    put(tmp_path / "elsewhere/entries/a.conf", WINDOWS)
    (finding,) = menu_of(tmp_path).findings
    assert (finding.kind, finding.subject) == (FindingKind.UNREADABLE, "loader/entries")


def test_a_user_cfg_of_others_too(tmp_path: Path) -> None:
    put_menu(tmp_path, GRUB_UKI, 1, 2)
    path = tmp_path / "boot/grub2/user.cfg"
    path.write_bytes(path.read_bytes() + b'menuentry "Windows" {\nchainloader /EFI/M/x.efi\n}\n')
    menu = menu_of(tmp_path, GRUB_UKI)
    assert menu.deployments == (A, B)
    assert menu.foreign == ("Windows",)
    path.write_bytes(path.read_bytes() + b"menuentry {\n")
    menu = menu_of(tmp_path, GRUB_UKI)
    assert menu.items == ()
    (finding,) = menu.findings
    assert (finding.kind, finding.subject) == (FindingKind.MALFORMED, "grub2/user.cfg")


@pytest.mark.parametrize("place", ["entries", "entries.staged"])
def test_a_mark_of_earlier_versions_hides_nothing(tmp_path: Path, place: str) -> None:
    put_menu(tmp_path, SYSTEMD, 1)
    put_menu(tmp_path, SYSTEMD, 2, 1, staged=True)
    put(tmp_path / "esp/loader" / place / OLD_MARK, b"")
    assert menu_of(tmp_path, staged=True).deployments == (B, A)
    assert menu_of(tmp_path).deployments == (A,)
