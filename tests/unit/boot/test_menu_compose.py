from __future__ import annotations

import dataclasses

import pytest

from bootc.boot.menu_compose import CannotCompose, NewItem, compose_menu, new_item, upgraded_options
from bootc.boot.menu_read import Item, NotOurEntry, images_of
from bootc.boot.scheme import Scheme
from bootc.formats.bls import BlsError, Entry, parse_entry
from bootc.formats.cmdline import CmdlineError
from bootc.formats.digest import Digest
from bootc.formats.grubcfg import parse_menu
from bootc.formats.origin import BootType
from bootc.formats.osrelease import OsRelease, parse_os_release
from support.bootdirs import (
    GRUB,
    GRUB_CC,
    GRUB_UKI,
    SYSTEMD,
    SYSTEMD_UKI,
    deployment,
    item_of,
)

ID = "ab" * 64
A = Digest.from_hex(ID)
FEDORA = parse_os_release(b'ID=fedora\nVERSION_ID=43\nPRETTY_NAME="Fedora Linux 43"\n')
OPTIONS = f"root=UUID=1 rw composefs={ID}"


def names(scheme: Scheme, *items: NewItem | Item) -> list[str]:
    return [name for name, _ in compose_menu(scheme, items)]


def existing(name: str, entry: Entry, digest: Digest = A) -> Item:
    return Item(name, digest, digest.hex, entry)


def entry(**changes: str | None) -> Entry:
    return dataclasses.replace(Entry(version="43", linux="/v", options=OPTIONS), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scheme", "directory"),
    [
        (SYSTEMD, "/EFI/Linux"),
        (GRUB, "/boot"),
        (dataclasses.replace(GRUB, separate_boot=True), ""),
    ],
)
def test_an_installation_to_the_byte(scheme: Scheme, directory: str) -> None:
    ((name, data),) = compose_menu(scheme, [new_item(scheme, A, FEDORA, options=OPTIONS)])
    assert name == ("bootc_fedora-43-1.conf" if scheme is SYSTEMD else "bootc_fedora-9999-1.conf")
    assert data.decode() == (
        "title Fedora Linux 43\n"
        "version 43\n"
        f"linux {directory}/bootc_composefs-{ID}/vmlinuz\n"
        f"initrd {directory}/bootc_composefs-{ID}/initrd\n"
        f"options {OPTIONS}\n"
        "sort-key bootc-fedora-0\n"
    )


@pytest.mark.parametrize(
    ("scheme", "version", "key"),
    [
        (SYSTEMD_UKI, 258, "uki"),
        (SYSTEMD_UKI, 257, "efi"),
        (SYSTEMD_UKI, 0, "efi"),
        (dataclasses.replace(SYSTEMD_UKI, bootloader=GRUB_CC.bootloader), 260, "efi"),
    ],
)
def test_a_unified_image_to_the_byte(scheme: Scheme, version: int, key: str) -> None:
    item = new_item(scheme, A, FEDORA, systemd_version=version)
    ((_, data),) = compose_menu(scheme, [item])
    assert data.decode() == (
        "title Fedora Linux 43 43\n"
        "version 43\n"
        f"{key} /EFI/Linux/bootc/bootc_composefs-{ID}.efi\n"
        "sort-key bootc-fedora-0\n"
    )


def test_a_unified_image_for_grub() -> None:
    ((name, data),) = compose_menu(GRUB_UKI, [new_item(GRUB_UKI, A, FEDORA)])
    assert name == "user.cfg"
    assert f'menuentry "Fedora Linux 43 43: ({ID})" {{' in data.decode()
    assert f"chainloader /EFI/Linux/bootc/bootc_composefs-{ID}.efi\n" in data.decode()


def test_an_image_that_does_not_say_what_it_is() -> None:
    item = new_item(SYSTEMD, A, parse_os_release(b"PRETTY_NAME=' '"), options="rw")
    ((name, data),) = compose_menu(SYSTEMD, [item])
    assert name == f"bootc_bootc-{ID}-1.conf"
    value = parse_entry(data)
    assert (value.title, value.version, value.sort_key) == (ID, ID, "bootc-bootc-0")


def test_a_shared_kernel() -> None:
    other = deployment(7)
    item = new_item(SYSTEMD, A, FEDORA, options=OPTIONS, artifact=other.hex)
    assert isinstance(item.entry, Entry)
    assert item.artifact == other.hex
    assert item.entry.linux == f"/EFI/Linux/bootc_composefs-{other.hex}/vmlinuz"
    assert images_of(item.entry) == (A,)


def test_names_and_keys_of_many() -> None:
    items = [item_of(SYSTEMD, number) for number in range(12)]
    files = compose_menu(SYSTEMD, items)
    assert [name for name, _ in files][:4] == [
        "bootc_fedora-43-1.conf",
        "bootc_fedora-43-0.conf",
        "bootc_fedora-43_2-0.conf",
        "bootc_fedora-43_3-0.conf",
    ]
    keys = [parse_entry(data).sort_key or "" for _, data in files]
    assert keys[:2] == ["bootc-fedora-0", "bootc-fedora-1"]
    assert keys == sorted(keys)
    assert names(GRUB, *(item_of(GRUB, number) for number in range(3))) == [
        "bootc_fedora-9999-1.conf",
        "bootc_fedora-9998-0.conf",
        "bootc_fedora-9997-0.conf",
    ]


def test_names_differ_in_more_than_case() -> None:
    releases = [OsRelease({"ID": "x", "VERSION_ID": v}) for v in ("1", "Rc_2", "rC")]
    items = [item_of(SYSTEMD, n, release) for n, release in enumerate(releases)]
    assert names(SYSTEMD, *items) == [
        "bootc_x-1-1.conf",
        "bootc_x-Rc_2-0.conf",
        "bootc_x-rC_2_-0.conf",
    ]


def test_what_a_name_cannot_hold() -> None:
    release = OsRelease({"ID": "my-os/é", "VERSION_ID": "4-3:*é" + "9" * 300})
    ((name, data),) = compose_menu(SYSTEMD, [item_of(SYSTEMD, 1, release)])
    assert name.startswith("bootc_my_os__-4_3___999")
    assert name.count("-") == 2
    assert len(name.encode()) < 256
    value = parse_entry(data)
    assert value.version == release.version
    assert value.sort_key == "bootc-my-os__-0"


def test_the_first_names_the_family() -> None:
    """An image was renamed: its entries and those of before are one family (no two default)."""
    new = item_of(SYSTEMD, 1, OsRelease({"ID": "bluefin", "VERSION_ID": "2"}))
    old = existing("bootc_bootc-1-1.conf", entry(version="1", sort_key="bootc-bootc-0"))
    assert names(SYSTEMD, new, old) == ["bootc_bluefin-2-1.conf", "bootc_bluefin-1-0.conf"]
    assert names(SYSTEMD, old, new) == ["bootc_bootc-1-1.conf", "bootc_bootc-2-0.conf"]


@pytest.mark.parametrize(
    ("name", "key", "os_id"),
    [
        ("bootc_a-1-1.conf", "bootc-opensuse-leap-0", "opensuse-leap"),
        ("bootc_a-1-1.conf", "bootc-opensuse-leap-a10", "opensuse-leap"),
        ("bootc_a-1-1.conf", None, "a"),
        ("bootc_a-1-1.conf", "mine", "a"),
        ("mine.conf", "mine", "bootc"),
    ],
)
def test_who_an_entry_is(name: str, key: str | None, os_id: str) -> None:
    ((_, data),) = compose_menu(SYSTEMD, [existing(name, entry(sort_key=key))])
    assert parse_entry(data).sort_key == f"bootc-{os_id}-0"


def test_local_changes_stay() -> None:
    mine = entry(
        title="mine", options=f"debug composefs={ID}", machine_id="1", sort_key="bootc-fedora-0"
    )
    mine = dataclasses.replace(mine, extra=(("x-key", "1"),))
    (_, (name, data)) = compose_menu(
        SYSTEMD, [item_of(SYSTEMD, 1), existing("bootc_fedora-43-1.conf", mine)]
    )
    assert name == "bootc_fedora-43-0.conf"
    assert parse_entry(data) == dataclasses.replace(mine, sort_key="bootc-fedora-1")


def test_menus_that_cannot_be() -> None:
    with pytest.raises(CannotCompose, match="cannot be empty"):
        compose_menu(SYSTEMD, [])
    with pytest.raises(CannotCompose, match="twice"):
        compose_menu(SYSTEMD, [item_of(SYSTEMD, 1), item_of(SYSTEMD, 1)])
    with pytest.raises(CannotCompose, match=f"deployment {deployment(2)} is in another boot menu"):
        compose_menu(GRUB_UKI, [item_of(GRUB_UKI, 1), item_of(GRUB, 2)])
    with pytest.raises(CannotCompose, match="another boot menu than loader/entries"):
        compose_menu(GRUB, [item_of(GRUB_UKI, 1)])
    with pytest.raises(BlsError):
        compose_menu(SYSTEMD, [existing("a.conf", entry(version="1\n2"))])


@pytest.mark.parametrize("mark", ["", "?"])
def test_an_entry_tells_its_deployment(mark: str) -> None:
    value = Entry(version="1", linux="/elsewhere/vmlinuz", options=f"rw composefs={mark}{ID}")
    assert images_of(value) == (A,)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            Entry(version="1", uki="/a.efi"),
            "it starts an EFI program that is not a deployment, /a.efi",
        ),
        (Entry(version="1", linux="/v"), "no composefs image in the kernel command line"),
        (Entry(version="1", linux="/v", options="composefs=zz"), "composefs=zz"),
    ],
)
def test_entries_of_others(value: Entry, message: str) -> None:
    with pytest.raises(NotOurEntry, match=message):
        images_of(value)


NEW = "cd" * 64


@pytest.mark.parametrize(
    ("booted", "old", "new", "optional", "expected"),
    [
        (f"rw composefs={ID} quiet", [], [], False, f"rw composefs={NEW} quiet"),
        (f"rw composefs=?{ID} mine", [], [], True, f"rw composefs=?{NEW} mine"),
        (
            f"rw composefs={ID} a=1 b c",
            ["a=1", "b"],
            ["a=2", "b"],
            False,
            f"rw composefs={NEW} b c a=2",
        ),
        # Removed by hand, and asked for by both images: it stays removed.
        (f"rw composefs={ID}", ["quiet"], ["quiet"], False, f"rw composefs={NEW}"),
        # Changed by hand: that is not what the old image asked for.
        (f"rw a=mine composefs={ID}", ["a=1"], [], False, f"rw a=mine composefs={NEW}"),
        (
            f"composefs={ID} composefs.digest=v1-sha512-12:{ID} rw composefs={ID}",
            [],
            [],
            False,
            f"composefs={NEW} rw",
        ),
        # Each spelling, and all of them: one argument takes the place of the first.
        (f"a composefs.digest=v1-sha512-12:{ID} b", [], [], False, f"a composefs={NEW} b"),
        (f"a composefs.digest=?v1-sha512-12:{ID} b", [], [], True, f"a composefs=?{NEW} b"),
        (
            f"composefs.digest=v1-sha512-12:{ID} b composefs={'cd' * 64} "
            f"composefs.digest=v2-sha512-12:{'cd' * 64} composefs",
            [],
            [],
            False,
            f"composefs={NEW} b",
        ),
        # Nor does an image that was deployed unchecked have a say.
        (f"rw composefs={ID}", [], [f"composefs=?{ID}", "x"], False, f"rw composefs={NEW} x"),
        (f"rw composefs={ID}", [f"composefs={NEW}"], [], False, f"rw composefs={NEW}"),
        ("rw", [], [], False, f"rw composefs={NEW}"),
        # Quotes around a parameter change nothing.
        (
            f'"composefs={ID}" rw "composefs.digest=v1-sha512-12:{ID}" a="1"',
            ['"a=1"'],
            [],
            False,
            f"composefs={NEW} rw",
        ),
        # systemd-boot would take the first quote and the last one off.
        ('"a=b c" rw', [], ['d="e f"'], False, f'a="b c" rw composefs={NEW} d="e f"'),
    ],
)
def test_arguments_of_an_upgrade(
    booted: str, old: list[str], new: list[str], optional: bool, expected: str
) -> None:
    digest = Digest.from_hex(NEW)
    assert upgraded_options(booted, digest, old, new, optional=optional) == expected


@pytest.mark.parametrize("last", ['dyndbg="file x', "a\x1b", "a\u00a0b"])
def test_an_upgrade_that_nothing_can_be_appended_to(last: str) -> None:
    with pytest.raises(CannotCompose) as caught:
        upgraded_options(f"rw composefs={ID} {last}", A, [], ["quiet"], optional=False)
    assert caught.value.message == (
        f"the boot entry of the running system has the bad kernel argument {last!r}"
    )
    assert "correct the line 'options'" in (caught.value.hint or "")


def test_arguments_that_the_kernel_would_cut_off() -> None:
    fits = OPTIONS.ljust(2047, "x")
    assert new_item(SYSTEMD, A, FEDORA, options=fits).deployment == A
    with pytest.raises(CmdlineError, match="have 2048 bytes, and the kernel takes 2047"):
        new_item(SYSTEMD, A, FEDORA, options=fits + "x")


@pytest.mark.parametrize("scheme", [SYSTEMD, SYSTEMD_UKI, GRUB, GRUB_UKI])
def test_what_an_image_says_of_itself_stays_in_its_place(scheme: Scheme) -> None:
    """A boot loader ends lines at CR as well, and GRUB's menu is a program."""
    evil = b'x\roptions init=/bin/sh\x1b[2J\x00"\\"; } menuentry $root \xff/../'
    release = parse_os_release(
        b"".join(k + b"='" + evil + b"'\n" for k in (b"ID", b"NAME", b"VERSION"))
    )
    options = None if scheme.boot_type is BootType.UKI else OPTIONS
    ((name, data),) = compose_menu(scheme, [new_item(scheme, A, release, options=options)])
    assert name.isprintable()
    assert "/" not in name
    assert data.decode().replace("\n", "").isprintable()
    if scheme is GRUB_UKI:
        (item,) = parse_menu(data)
        assert item.chainloader == f"/EFI/Linux/bootc/bootc_composefs-{ID}.efi"
        assert [command for command, _ in item.commands] == [
            "insmod",
            "insmod",
            "search",
            "chainloader",
        ]
    else:
        assert parse_entry(data).options == options


def test_an_entry_without_a_version() -> None:
    value = entry(version=None)
    ((name, data),) = compose_menu(SYSTEMD, [existing("bootc_fedora-43-1.conf", value)])
    assert name == f"bootc_fedora-{ID}-1.conf"
    assert parse_entry(data) == dataclasses.replace(value, sort_key="bootc-fedora-0")


def test_an_upgrade_without_arguments_to_start_from() -> None:
    with pytest.raises(CannotCompose, match="has no kernel arguments"):
        upgraded_options(None, A, [], [], optional=False)
