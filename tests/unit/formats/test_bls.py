from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootc.formats.bls import (
    BlsError,
    BootCounter,
    Entry,
    boot_counter,
    compare_versions,
    entry_file_name,
    menu_order,
    parse_entry,
    serialise_entry,
    sort_key,
    with_counter_of,
    without_counter,
)

FULL = b"""\
title Fedora Linux 43
version 43
linux /EFI/Linux/bootc_composefs-aa/vmlinuz
initrd /ucode
initrd /EFI/Linux/bootc_composefs-aa/initrd
options root=UUID=1 rw composefs=aa
machine-id 0123
sort-key bootc-fedora-0
devicetree /dtb
devicetree-overlay /a /b
"""


def test_an_entry_survives_the_round_trip() -> None:
    entry = parse_entry(FULL)
    assert entry == Entry(
        title="Fedora Linux 43",
        version="43",
        linux="/EFI/Linux/bootc_composefs-aa/vmlinuz",
        initrd=("/ucode", "/EFI/Linux/bootc_composefs-aa/initrd"),
        options="root=UUID=1 rw composefs=aa",
        machine_id="0123",
        sort_key="bootc-fedora-0",
        extra=(("devicetree", "/dtb"), ("devicetree-overlay", "/a /b")),
    )
    assert serialise_entry(entry) == FULL


@pytest.mark.parametrize("key", ["uki", "efi"])
def test_entries_that_start_an_efi_program(key: str) -> None:
    text = f"title t\nversion 1\n{key} /EFI/x.efi\nsort-key s\n".encode()
    assert serialise_entry(parse_entry(text)) == text


def test_the_parser_forgives_what_loaders_forgive() -> None:
    text = (
        b"# comment\r\n\r\n \tversion\t 1 \r\nlinux /old\n linux   /new \noptions\nfoo\n#linux /x\n"
    )
    assert parse_entry(text) == Entry(version="1", linux="/new")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Arguments add up, whatever stands between their lines.
        (b"options a b\nlinux /v\noptions c\n", Entry(linux="/v", options="a b c")),
        (b"options\noptions a\noptions \nlinux /v", Entry(linux="/v", options="a")),
        (b"linux /v\ninitrd /1\ninitrd /2", Entry(linux="/v", initrd=("/1", "/2"))),
        # Of any other key the last one counts.
        (b"title 1\ntitle 2\nlinux /1\nlinux /2", Entry(title="2", linux="/2")),
        (b"efi /1\nefi /2\nsort-key 1\nsort-key 2", Entry(efi="/2", sort_key="2")),
        (
            b"version 1\nversion 2\nmachine-id 1\nmachine-id 2\nuki /1\nuki /2",
            Entry(version="2", machine_id="2", uki="/2"),
        ),
        # What is not known here stays, each time it is there.
        (
            b"x 1\ndevicetree-overlay /a /b\nx 2\ndevicetree-overlay /c\nlinux /v",
            Entry(
                linux="/v",
                extra=(
                    ("x", "1"),
                    ("devicetree-overlay", "/a /b"),
                    ("x", "2"),
                    ("devicetree-overlay", "/c"),
                ),
            ),
        ),
        # CR ends a line for the boot loader, a zero byte the file.
        (
            b"title x\roptions init=/bin/sh\rlinux /v",
            Entry(title="x", linux="/v", options="init=/bin/sh"),
        ),
        (b"linux /v\noptions a\n\0options b\n\xff", Entry(linux="/v", options="a")),
        # Quotes around a value are no part of it.
        (
            b'title "x y"\nlinux \'/v\'\noptions "a b"',
            Entry(title="x y", linux="/v", options="a b"),
        ),
        (b'linux /v\noptions "a=b c" d="e f"', Entry(linux="/v", options='"a=b c" d="e f"')),
        (b"linux /v\ntitle \"\noptions ''", Entry(linux="/v", title='"')),
    ],
)
def test_lines_mean_what_they_mean_to_the_loader(text: bytes, expected: Entry) -> None:
    entry = parse_entry(text)
    assert entry == expected
    assert parse_entry(serialise_entry(entry)) == expected


def test_arguments_are_written_in_one_line() -> None:
    """GRUB and bootc 1.16 read one ``options`` line only."""
    data = serialise_entry(parse_entry(b"linux /v\noptions a\noptions b\nx 1\nx 2\n"))
    assert data == b"linux /v\noptions a b\nx 1\nx 2\n"


@pytest.mark.parametrize("value", ["'x'", '"x"', "'\"x\"'", '"', "a'b", "'a' b 'c'"])
def test_a_value_keeps_its_quotes(value: str) -> None:
    entry = Entry(title=value, linux="/v")
    assert parse_entry(serialise_entry(entry)) == entry


def test_the_order_of_entries_without_a_version() -> None:
    old, new = Entry(linux="/v", sort_key="k"), Entry(version="1", linux="/v", sort_key="k")
    assert menu_order([("b.conf", old), ("a.conf", new)]) == [("a.conf", new), ("b.conf", old)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"version 1\n", "boot entry needs one of 'linux', 'efi' and 'uki', but has none"),
        (
            b"version 1\nlinux /v\nuki /u\n",
            "boot entry needs one of 'linux', 'efi' and 'uki', but has 'linux' and 'uki'",
        ),
        (b"version 1\nlinux /\xff\n", "boot entry is not UTF-8 at offset 17"),
        (
            b"version 1\nefi /v\nuki /u\n",
            "boot entry needs one of 'linux', 'efi' and 'uki', but has 'efi' and 'uki'",
        ),
        (b"", "boot entry needs one of 'linux', 'efi' and 'uki', but has none"),
    ],
)
def test_malformed_entries_are_named(text: bytes, message: str) -> None:
    with pytest.raises(BlsError) as caught:
        parse_entry(text)
    assert caught.value.message == message


def test_lines_end_where_the_loader_ends_them() -> None:
    text = "title x\rversion 1\r\noptions a\x0b\x85=\u2028\nlinux /v\r"
    entry = parse_entry(text.encode())
    assert entry == Entry(version="1", title="x", options="a\x0b\x85=\u2028", linux="/v")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("title", "a\nlinux /evil", "boot entry cannot hold 'a\\nlinux /evil' as 'title'"),
        ("options", " ", "boot entry cannot hold ' ' as 'options'"),
        ("options", "", "boot entry cannot hold '' as 'options'"),
        ("version", "1\r", "boot entry cannot hold '1\\r' as 'version'"),
        ("title", "a\rlinux /evil", "boot entry cannot hold 'a\\rlinux /evil' as 'title'"),
        ("title", "a\0b", "boot entry cannot hold 'a\\x00b' as 'title'"),
        ("options", "a=\udcff", "boot entry cannot hold 'a=\\udcff' as 'options'"),
    ],
)
def test_a_value_cannot_break_out_of_its_line(field: str, value: str, message: str) -> None:
    entry = Entry(**{"version": "1", "linux": "/v", field: value})  # type: ignore[arg-type]
    with pytest.raises(BlsError) as caught:
        serialise_entry(entry)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("fedora", "43", 1), "bootc_fedora-43-1.conf"),
        (("opensuse-leap", "15.6", 0), "bootc_opensuse_leap-15.6-0.conf"),
        (("a", "12 (bookworm)", 1), "bootc_a-12 (bookworm)-1.conf"),
        (("../x", "1/2\n", 1), "bootc_.._x-1_2_-1.conf"),
        # A plus would make a boot counter of the rest.
        (("a+3", "13+2", 1), "bootc_a_3-13_2-1.conf"),
    ],
)
def test_entry_file_name(arguments: tuple[str, str, int], name: str) -> None:
    assert entry_file_name(*arguments) == name


def test_sort_key_keeps_the_dash() -> None:
    assert sort_key("opensuse-leap", 0) == "bootc-opensuse-leap-0"


def entry(key: str | None, version: str = "1", machine_id: str | None = None) -> Entry:
    return Entry(version=version, linux="/v", sort_key=key, machine_id=machine_id)


def test_menu_order() -> None:
    ordered = [
        ("z.conf", entry("bootc-fedora-0", "43")),
        ("y.conf", entry("bootc-fedora-1", "44")),
        ("x.conf", entry("bootc-fedora-1", "9", "a")),
        ("w.conf", entry("bootc-fedora-1", "10", "b")),
        ("d-2.conf", entry("bootc-fedora-1", "9", "b")),
        ("D-1.conf", entry("bootc-fedora-1", "9", "b")),
        ("no-key-10.conf", entry(None, "1")),
        ("no-key-9.conf", entry(None, "2")),
    ]
    for permutation in itertools.islice(itertools.permutations(ordered), 0, 40320, 97):
        assert menu_order(permutation) == ordered


@pytest.mark.parametrize(
    ("name", "counter", "without"),
    [
        ("bootc_debian-13-1+3.conf", BootCounter(3), "bootc_debian-13-1.conf"),
        ("bootc_debian-13-1+2-1.conf", BootCounter(2, 1), "bootc_debian-13-1.conf"),
        ("bootc_debian-13-1+0-3.CONF", BootCounter(0, 3), "bootc_debian-13-1.CONF"),
        ("x+03-001.efi", BootCounter(3, 1), "x.efi"),
        ("a+1+2.conf", BootCounter(2), "a+1.conf"),
        ("bootc_debian-13-1.conf", None, "bootc_debian-13-1.conf"),
        ("a+.conf", None, "a+.conf"),
        ("a+x-1.conf", None, "a+x-1.conf"),
        ("a+1-.conf", None, "a+1-.conf"),
        ("a+1-2-3.conf", None, "a+1-2-3.conf"),
        ("a+-1.conf", None, "a+-1.conf"),
        ("a+1", None, "a+1"),
        ("a+1.conf.bak", None, "a+1.conf.bak"),
        ("a+1.conf\n", None, "a+1.conf\n"),
        ("a+\u0661.conf", None, "a+\u0661.conf"),
        ("a+9999999999.conf", None, "a+9999999999.conf"),
        ("", None, ""),
    ],
)
def test_counters_in_file_names(name: str, counter: BootCounter | None, without: str) -> None:
    assert boot_counter(name) == counter
    assert without_counter(name) == without
    assert with_counter_of(name, name) == name


def test_counters_in_the_menu_order() -> None:
    """The rule of systemd-boot, ``boot_entry_compare``."""
    good, later = entry("bootc-a-0"), entry("bootc-a-1")
    ordered = [
        ("a+3.conf", good),
        ("a+2-1.conf", good),
        ("a+2-2.conf", good),
        ("c.conf", later),
        ("b+1-5.conf", later),
        ("z+9.conf", entry(None)),
        ("a+0-3.conf", good),
        ("a+0-4.conf", good),
        ("b+0.conf", later),
    ]
    for permutation in itertools.islice(itertools.permutations(ordered), 0, 362880, 997):
        assert menu_order(permutation) == ordered


#: From old to new; the examples of the UAPI version format specification and its corners.
ASCENDING = [
    "~rc1",
    "",
    "-1",
    "^1",
    ".1",
    "a",
    "abc",
    "abcd",
    "1~rc1",
    "1~rc2",
    "1",
    "1-1",
    "1-1.fc43",
    "1^post",
    "1.0",
    "1.0.1",
    "1a",
    "11",
    "122.1",
    "123~rc1-1",
    "123",
    "123-a",
    "123-a.1",
    "123-1",
    "123-1.1",
    "123^post1",
    "123.a-1",
    "123.1-1",
    "123a-1",
    "124-1",
]


def test_version_order() -> None:
    for i, a in enumerate(ASCENDING):
        for j, b in enumerate(ASCENDING):
            result = compare_versions(a, b)
            assert ((result > 0) - (result < 0)) == ((i > j) - (i < j)), (a, b)


@pytest.mark.parametrize(
    ("a", "b"), [("001", "1"), ("1_2", "1 2"), ("_1", "1"), ("1_", "1"), ("~~", "~~"), ("é", "")]
)
def test_equal_versions(a: str, b: str) -> None:
    assert compare_versions(a, b) == 0


@pytest.mark.timeout(20)
def test_long_versions_take_no_longer_than_they_are() -> None:
    text = "1." * 200_000
    assert compare_versions(text, text) == 0


versions = st.text(alphabet="019aB~^.-_ ", max_size=8)


@given(versions, versions, versions)
def test_version_order_is_an_order(a: str, b: str, c: str) -> None:
    assert compare_versions(a, b) == -compare_versions(b, a)
    if compare_versions(a, b) == 0:
        assert compare_versions(a, c) == compare_versions(b, c)


@pytest.mark.parametrize("blank", ["\u3000", "\x0b", "\x1f", "\x85"])
def test_only_blanks_and_line_ends_mean_nothing(blank: str) -> None:
    text = f"title {blank}\nversion {blank}1{blank}\nlinux /v\n".encode()
    entry = parse_entry(text)
    assert (entry.title, entry.version) == (blank, f"{blank}1{blank}")
    assert serialise_entry(entry) == text


@given(st.binary(max_size=200))
def test_hostile_bytes_parse_or_fail_as_bls(data: bytes) -> None:
    try:
        parsed = parse_entry(b"version 1\nlinux /v\n" + data)
    except BlsError:
        return
    assert parse_entry(serialise_entry(parsed)) == parsed
