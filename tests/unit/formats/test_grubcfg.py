r"""GRUB's menu of UKIs (bootc, "GRUB user.cfg for UKIs")."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootc.formats import grubcfg
from bootc.formats.digest import Digest
from bootc.formats.grubcfg import (
    GrubCfgError,
    MenuEntry,
    parse_menu,
    parse_settings,
    serialise_menu,
    uki_entry,
)

A, B = Digest.from_hex("ab" * 64), Digest.from_hex("cd" * 64)
#: To the byte what bootc writes.
USER_CFG = f"""
if [ -f ${{config_directory}}/efiuuid.cfg ]; then
        source ${{config_directory}}/efiuuid.cfg
fi
menuentry "Fedora Linux 43 43: ({A.hex})" {{
insmod fat
insmod chain
search --no-floppy --set=root --fs-uuid "${{EFI_PART_UUID}}"
chainloader /EFI/Linux/bootc/bootc_composefs-{A.hex}.efi
}}
menuentry "Fedora Linux 43 43: ({B.hex})" {{
insmod fat
insmod chain
search --no-floppy --set=root --fs-uuid "${{EFI_PART_UUID}}"
chainloader /EFI/Linux/bootc/bootc_composefs-{B.hex}.efi
}}
""".encode()


def entry(deployment: Digest) -> MenuEntry:
    path = f"/EFI/Linux/bootc/bootc_composefs-{deployment.hex}.efi"
    return uki_entry("Fedora Linux 43 43", deployment, path)


def test_the_file_to_the_byte() -> None:
    assert serialise_menu([entry(A), entry(B)]) == USER_CFG
    assert parse_menu(USER_CFG) == (entry(A), entry(B))
    assert entry(A).chainloader == f"/EFI/Linux/bootc/bootc_composefs-{A.hex}.efi"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n \n",
        b"set timeout=10\nif [ -f ${x}/y ]; then\n source ${x}/y\nfi\n",
        b'# menuentry "no" {\n',
        b' \t# a menuentry "no" {}\n',
        b"set menuentry_id_option=--id\n",
        b"echo $menuentry xmenuentry menuentry2\n",
    ],
)
def test_files_without_entries(text: bytes) -> None:
    assert parse_menu(text) == ()
    assert serialise_menu(()) == USER_CFG[: USER_CFG.index(b"menuentry")]


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ('menuentry "t" {}', ()),
        ('menuentry\n\t "t"\n{\n}', ()),
        ('menuentry "t"{ chainloader /a }', (("chainloader", "/a"),)),
        ('menuentry "t" {\n # c d\n#\n}', (("#", "c d"), ("#",))),
        ('menuentry "t" {\n\tset  root=(hd0,1)\t\r\n fi \n}', (("set", "root=(hd0,1)"), ("fi",))),
        ('menuentry "t" {\ninsmod fat\ninsmod\tchain\n}', (("insmod", "fat"), ("insmod", "chain"))),
        (
            'menuentry "t" {\nif [ -f ${x}/y ]; then\nsource ${x}/y\nfi\n}',
            (("if", "[ -f ${x}/y ]; then"), ("source", "${x}/y"), ("fi",)),
        ),
        ('menuentry "t" {\na { {b} } c\n}', (("a", "{ {b} } c"),)),
        ('menuentry "t" {\na \\} \\{ \\\\\n}', (("a", "\\} \\{ \\\\"),)),
        ('menuentry "t" {\na \\\n}', (("a", "\\"),)),
        ('menuentry "t" {\na }', (("a",),)),
        ('menuentry "t" {\n\u3000a b\u3000\n}', (("\u3000a", "b\u3000"),)),
        ('menuentry "t" {\nmenuentry "inner" {\n}\n}', (("menuentry", '"inner" {'), ("}",))),
    ],
)
def test_commands(text: str, commands: tuple[tuple[str, ...], ...]) -> None:
    expected = MenuEntry("t", tuple((c[0], "".join(c[1:])) for c in commands))
    assert parse_menu(text.encode()) == (expected,)
    assert parse_menu(serialise_menu([expected])) == (expected,)


@pytest.mark.parametrize(
    ("quoted", "label"),
    [
        (r"say \"hello\" twice", 'say "hello" twice'),
        (r"back\\slash", "back\\slash"),
        (r"\${root}", "${root}"),
        ("é { } # ;", "é { } # ;"),
    ],
)
def test_titles(quoted: str, label: str) -> None:
    made = uki_entry(label, A, "/x.efi")
    assert made.title == f"{quoted}: ({A.hex})"
    assert parse_menu(serialise_menu([made])) == (made,)


def test_escapes_that_mean_nothing_stay() -> None:
    assert parse_menu(rb'menuentry "a\n\"\\" {}') == (MenuEntry(r"a\n\"\\"),)


def test_what_stands_between_entries_is_passed_over() -> None:
    text = b"""
set timeout=10; menuentry "first" {
    chainloader /1
    chainloader /2
}menuentry "second" {}
# it's a menuentry
set default=0
submenu "more" {
    menuentry "third" { }
}
trailing
"""
    first, *others = parse_menu(text)
    assert first.chainloader == "/2"
    assert [other.title for other in others] == ["second", "third"]
    assert others[0].chainloader is None


NO_TITLE = "menuentry without a title in double quotes and '{'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'menuentry "t {\n}', f"line 1: {NO_TITLE}"),
        (b'\nmenuentry "t\\" {\n}', f"line 2: {NO_TITLE}"),
        (b'menuentry "t\\', f"line 1: {NO_TITLE}"),
        (b"menuentry 't' {}", f"line 1: {NO_TITLE}"),
        (b"menuentry t {}", f"line 1: {NO_TITLE}"),
        (b'menuentry"t" {}', f"line 1: {NO_TITLE}"),
        (b'menuentry "t" --class x {}', f"line 1: {NO_TITLE}"),
        (b'menuentry "t"\n', f"line 1: {NO_TITLE}"),
        (b"menuentry", f"line 1: {NO_TITLE}"),
        (b'\n\nmenuentry "" {}', "line 3: menuentry with empty title"),
        (b'menuentry "t" {\na\n', "line 1: menuentry without its '}'"),
        (b'menuentry "t" {\n}\nmenuentry "t" {{}', "line 3: menuentry without its '}'"),
        (b'menuentry "t" {\\}', "line 1: menuentry without its '}'"),
        (b'menuentry "t" {}\xff', "is not UTF-8 at offset 16"),
    ],
)
def test_malformed_menus_are_named(text: bytes, message: str) -> None:
    with pytest.raises(GrubCfgError) as caught:
        parse_menu(text)
    assert caught.value.message == f"GRUB menu {message}"


@pytest.mark.parametrize(
    "bad",
    [
        MenuEntry(""),
        MenuEntry('a" {}\nmenuentry "b'),
        MenuEntry("a\\"),
        MenuEntry("\udcff"),
        MenuEntry("t", (("a", "}"),)),
        MenuEntry("t", (("a", "{"),)),
        MenuEntry("t", (("a", "x\nb"),)),
        MenuEntry("t", (("a", " x"),)),
        MenuEntry("t", (("a b", ""),)),
        MenuEntry("t", (("", "x"),)),
    ],
)
def test_nothing_breaks_out_of_its_place(bad: MenuEntry) -> None:
    with pytest.raises(GrubCfgError) as caught:
        serialise_menu([entry(A), bad])
    assert caught.value.message == f"GRUB menu cannot hold the entry {bad.title!r}"


def test_the_example() -> None:
    assert doctest.testmod(grubcfg).failed == 0


texts = st.text(alphabet='menuentry "\\{}#$\n\t;x', max_size=60)


@settings(deadline=None)
@given(texts)
def test_what_was_read_is_written(text: str) -> None:
    try:
        entries = parse_menu(f'menuentry "t" {{{text}}}'.encode())
    except GrubCfgError:
        return
    assert parse_menu(serialise_menu(entries)) == entries


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_label_stays_one_title(label: str) -> None:
    made = uki_entry(label, A, "/x.efi")
    assert parse_menu(serialise_menu([made])) == (made,)


def test_settings_between_entries() -> None:
    text = (
        b"GRUB2_PASSWORD=grub.pbkdf2.sha512.10000.AB\n# timeout=9\n"
        b'menuentry "A" {\nset x=1\n}\n  set timeout=3\nif true; then\n'
        b"a=1; b=2\nfi\nexport y=2"
    )
    settings = ("GRUB2_PASSWORD=grub.pbkdf2.sha512.10000.AB", "set timeout=3", "export y=2")
    assert parse_settings(text) == settings
    again = serialise_menu(parse_menu(text), settings)
    assert parse_settings(again) == settings
    assert parse_menu(again) == parse_menu(text)
    with pytest.raises(GrubCfgError, match="UTF-8"):
        parse_settings(b"\xff")
    with pytest.raises(GrubCfgError, match="cannot hold the setting 'a b'"):
        serialise_menu((), ["a b"])
