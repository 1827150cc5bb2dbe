from __future__ import annotations

import os
import struct
import uuid
from pathlib import Path

import pytest

from bootc.boot import firmware_entries
from bootc.boot.firmware_entries import (
    LoadOption,
    NoFreeNumber,
    ProgramPlace,
    ensure_entry,
    load_option,
    parse_load_option,
    placed,
    read_order,
)
from bootc.errors import one_line
from bootc.kernel.efivars import GLOBAL_GUID

ESP = uuid.UUID("01234567-89ab-cdef-0123-456789abcdef")
PLACE = ProgramPlace(2, 4096, 2097152, ESP, "EFI/systemd/systemd-bootx64.efi")
#: The bytes that firmware accepted, taken apart by hand.
OPTION = (
    struct.pack("<IH", 1, 0x2A + 4 + 66 + 4)
    + "Linux\0".encode("utf-16-le")
    + bytes.fromhex("04012a00 02000000 0010000000000000 0000200000000000")
    + bytes.fromhex("67452301ab89efcd0123456789abcdef 0202")
    + bytes.fromhex("04044600")
    + "\\EFI\\systemd\\systemd-bootx64.efi\0".encode("utf-16-le")
    + bytes.fromhex("7fff0400")
)
OTHER = struct.pack("<IH", 1, 4) + "Windows\0".encode("utf-16-le") + b"\x7f\xff\x04\x00"


def put(root: Path, name: str, payload: bytes) -> None:
    (root / f"{name}-{GLOBAL_GUID}").write_bytes(b"\x07\0\0\0" + payload)


def variables(root: Path) -> dict[str, bytes]:
    return {path.name.partition("-")[0]: path.read_bytes() for path in root.iterdir()}


def order(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}H", *numbers)


def test_the_bytes_of_an_entry() -> None:
    assert len("\\EFI\\systemd\\systemd-bootx64.efi\0".encode("utf-16-le")) == 66
    assert load_option(PLACE, "Linux") == OPTION


def test_an_entry_that_bootctl_wrote_is_left_alone(tmp_path: Path) -> None:
    put(tmp_path, "Boot0003", OPTION)
    put(tmp_path, "Boot0000", OTHER)
    put(tmp_path, "BootOrder", order(0, 3))
    before = variables(tmp_path)
    assert not ensure_entry(PLACE, "Linux", root=str(tmp_path))
    assert variables(tmp_path) == before


@pytest.mark.parametrize(
    ("found", "known", "number", "numbers"),
    [
        ({}, (), 0, (0,)),
        ({"Boot0000": OTHER, "Boot0001": OTHER}, (1, 0), 2, (2, 1, 0)),
        ({"Boot0001": OTHER}, (1,), 0, (0, 1)),
        # The entry is there, and the firmware does not try it.
        ({"Boot0004": OPTION, "Boot0000": OTHER}, (0,), 4, (4, 0)),
        # An entry of another partition, and names that only look like entries.
        (
            {"Boot0000": OPTION.replace(ESP.bytes_le, bytes(16)), "Bootx": b"", "Boot12": OPTION},
            (0,),
            1,
            (1, 0),
        ),
    ],
)
def test_a_missing_entry_is_written(
    tmp_path: Path,
    found: dict[str, bytes],
    known: tuple[int, ...],
    number: int,
    numbers: tuple[int, ...],
) -> None:
    for name, payload in found.items():
        put(tmp_path, name, payload)
    if known:
        put(tmp_path, "BootOrder", order(*known))
    assert ensure_entry(PLACE, "Linux", root=str(tmp_path))
    written = variables(tmp_path)
    assert written[f"Boot{number:04X}"] == b"\x07\0\0\0" + OPTION
    assert written["BootOrder"] == b"\x07\0\0\0" + order(*numbers)
    assert read_order(root=str(tmp_path)) == numbers
    for name, payload in found.items():
        assert written[name] == b"\x07\0\0\0" + payload
    assert not ensure_entry(PLACE, "Linux", root=str(tmp_path))


@pytest.mark.parametrize(
    ("known", "numbers"),
    [
        ((1, 2, 3), (1, 2, 0, 3)),
        ((3, 2), (3, 2, 0)),
        ((2, 3, 2, 1), (2, 3, 2, 0, 1)),
        # The partition has no entry.
        ((1, 3), (1, 3, 0)),
        ((), (0,)),
    ],
)
def test_an_entry_behind_those_of_another_partition(
    tmp_path: Path, known: tuple[int, ...], numbers: tuple[int, ...]
) -> None:
    main = uuid.uuid4()
    for number, payload in ((1, OTHER), (2, OPTION.replace(ESP.bytes_le, main.bytes_le)), (3, b"")):
        put(tmp_path, f"Boot{number:04X}", payload)
    put(tmp_path, "BootOrder", order(*known))
    assert ensure_entry(PLACE, "Linux", behind=main, root=str(tmp_path))
    assert read_order(root=str(tmp_path)) == numbers


def test_each_variable_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The firmware takes each write for a whole variable."""
    put(tmp_path, "BootOrder", order(1))
    opened = os.open

    def without_truncation(path: str, flags: int, mode: int = 0o777) -> int:
        assert not flags & os.O_TRUNC
        return opened(path, flags, mode)

    monkeypatch.setattr(os, "open", without_truncation)
    ensure_entry(PLACE, "Linux", root=str(tmp_path))
    assert read_order(root=str(tmp_path)) == (0, 1)


def test_an_odd_order_counts_as_far_as_it_goes(tmp_path: Path) -> None:
    put(tmp_path, "BootOrder", order(5) + b"\x01")
    assert read_order(root=str(tmp_path)) == (5,)


def test_no_room_for_another_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = [(number, OTHER) for number in range(1 << 16)]
    monkeypatch.setattr(firmware_entries, "_entries", lambda root: iter(full))
    with pytest.raises(NoFreeNumber):
        ensure_entry(PLACE, "Linux", root=str(tmp_path))
    assert variables(tmp_path) == {}


def test_no_variables_at_all(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        ensure_entry(PLACE, "Linux", root=str(tmp_path / "none"))
    assert one_line(caught.value).startswith("Writing a boot entry of the firmware: ")


def test_an_entry_is_read_as_it_was_written() -> None:
    place = PLACE.partuuid, "/EFI/systemd/systemd-bootx64.efi"
    assert parse_load_option(3, OPTION) == LoadOption(3, True, "Linux", *place)
    inactive = b"\0" + OPTION[1:]
    assert parse_load_option(3, inactive) == LoadOption(3, False, "Linux", *place)


#: What OVMF made of a short entry when it had started it: the path of the hardware before it.
_HARDWARE = bytes.fromhex("02010c00 d041030a 00000000 01010600 0003") + bytes.fromhex(
    "010106000000"
)
_DRIVE = OPTION[6 + len("Linux\0") * 2 :][:42]


def option(title: bytes, path: bytes) -> bytes:
    return struct.pack("<IH", 1, len(path)) + title + path


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", None),
        (b"\1\0\0\0\4", None),
        # A description without an end.
        (b"\1\0\0\0\4\0" + b"a\0b\0", None),
        (b"\1\0\0\0\4\0" + b"a\0b\0c", None),
        (OTHER, ("Windows", None, "")),
        (option(b"a\0\0\0", b""), ("a", None, "")),
        # Two parts of a path, behind the path of the hardware.
        (
            option(
                b"a\0\0\0",
                _HARDWARE
                + _DRIVE
                + b"\4\4\x0c\0\\\0E\0F\0I\0"
                + b"\4\4\x0e\0x\0.\0e\0f\0i\0"
                + b"\x7f\xff\4\0"
                + b"\4\4\6\0z\0",
            ),
            ("a", ESP, "/EFI/x.efi"),
        ),
        # Lengths that lead nowhere.
        (option(b"a\0\0\0", b"\4\4\0\0" * 3), ("a", None, "")),
        (option(b"a\0\0\0", b"\4\4\xff\0x\0"), ("a", None, "")),
        (option(b"a\0\0\0", b"\4\1\x2b\0" + bytes(39)), ("a", None, "")),
        # A partition of an MBR disk.
        (option(b"a\0\0\0", _DRIVE[:40] + b"\1\1"), ("a", None, "")),
    ],
)
def test_other_entries(data: bytes, expected: tuple[str, uuid.UUID | None, str] | None) -> None:
    found = parse_load_option(1, data)
    assert (found and (found.title, found.partuuid, found.path)) == expected


@pytest.mark.parametrize(
    ("before", "ours", "numbers", "after"),
    [
        ((), (), (1, 2), (1, 2)),
        ((7, 8), (), (1,), (1, 7, 8)),
        ((7, 1, 8, 2, 9), (1, 2), (2, 1), (7, 2, 1, 8, 9)),
        ((7, 1, 8, 2), (1, 2, 3), (3, 1), (7, 3, 1, 8)),
        ((1, 7), (1,), (), (7,)),
        # A number that is there twice, and one of which there is no entry.
        ((1, 7, 1, 9), (1,), (1,), (1, 7, 9)),
    ],
)
def test_foreign_entries_keep_their_order(
    before: tuple[int, ...], ours: tuple[int, ...], numbers: tuple[int, ...], after: tuple[int, ...]
) -> None:
    assert placed(before, ours, numbers) == after
