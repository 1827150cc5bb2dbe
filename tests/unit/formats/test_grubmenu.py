from __future__ import annotations

import pytest

from bootc.formats.bls import Entry
from bootc.formats.grubcfg import GrubCfgError
from bootc.formats.grubmenu import MenuItem, check_entry, kernel_parameters, quoted, serialise


def test_a_menu() -> None:
    entry = Entry(
        title="Debian's \\ $x",
        linux="/boot/k/vmlinuz",
        initrd=("/boot/k/initrd",),
        options='root=UUID=1 rw dyndbg="file a.c +p" composefs=?00',
    )
    assert serialise("00", [MenuItem("bootc-00", entry)]).decode().splitlines() == [
        "set bootc_first='00'",
        "menuentry 'Debian'\\''s \\ $x' --id 'bootc-00' {",
        "\tlinux '/boot/k/vmlinuz' 'root=UUID=1' 'rw' 'dyndbg=file a.c +p' 'composefs=?00'",
        "\tinitrd '/boot/k/initrd'",
        "}",
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("q=?x q=i$j {} ; #", ["q=?x", "q=i$j", "{}", ";", "#"]),
        ('"whole=a b" empty=""', ["whole=a b", "empty="]),
    ],
)
def test_parameters_arrive_as_the_entry_has_them(options: str, words: list[str]) -> None:
    assert kernel_parameters(options) == words


@pytest.mark.parametrize("options", ["q=g\\h", "q=it's", 'q="a"b"c"', 'k"e y"=1', 'q="a\tb"'])
def test_what_grub_would_change_is_refused(options: str) -> None:
    with pytest.raises(GrubCfgError, match="GRUB cannot pass on the kernel argument") as caught:
        check_entry(Entry(linux="/vmlinuz", options=f"rw {options} quiet"))
    assert "backslashes" in (caught.value.hint or "")


def test_the_kernel_would_cut_off_the_end() -> None:
    fits = "x" * (2047 - len("BOOT_IMAGE=/vmlinuz "))
    check_entry(Entry(linux="/vmlinuz", options=fits))
    with pytest.raises(GrubCfgError, match="with GRUB's own, the kernel arguments have 2048 bytes"):
        check_entry(Entry(linux="/vmlinuz", options=f"{fits}x"))


def test_no_word_ends_its_line() -> None:
    with pytest.raises(GrubCfgError, match="cannot hold"):
        quoted("a\nb")
    with pytest.raises(GrubCfgError, match="starts no kernel"):
        check_entry(Entry(efi="/x.efi"))
