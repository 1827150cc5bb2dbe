from __future__ import annotations

import struct
import zlib

import pytest

from bootc.formats.ukiboot import (
    INITIAL,
    ControlBlock,
    ControlBlockError,
    Name,
    Slot,
    effective,
    parse_control_block,
)

A, B = Name.A, Name.B


def with_crc(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


#: A 15/7/0, B 14/7/0, put together by hand.
RAW = with_crc(bytes.fromhex("08e1ab54 0f070000 0e070000 0000000000000000"))


def test_the_bytes() -> None:
    assert INITIAL.to_bytes() == RAW
    assert parse_control_block(RAW + b"the rest of the sector") == INITIAL
    block = ControlBlock(Slot(14, 0, True), Slot(15, 1))
    assert block.to_bytes()[4:12] == bytes.fromhex("0e000100 0f010000")
    assert parse_control_block(block.to_bytes()) == block


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (RAW[:-1], "only 23 bytes"),
        (b"", "only 0 bytes"),
        (bytes(24), "magic"),
        (RAW[:4] + b"\x01" + RAW[5:], "checksum"),
        (RAW[:20] + bytes(4), "checksum"),
    ],
)
def test_a_damaged_block_counts_as_the_initial_one(data: bytes, words: str) -> None:
    with pytest.raises(ControlBlockError, match=words):
        parse_control_block(data)
    assert effective(data) == INITIAL


def starts(block: ControlBlock, times: int) -> str:
    """Return the slots that the loader starts one after the other."""
    found = ""
    for _ in range(times):
        found += (block.active or "-")[-1]
        block = block.started()
    return found


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        # As the loader was seen to do: B once, then A.
        (ControlBlock(Slot(14, 0, True), Slot(15, 1)), "baaa"),
        (INITIAL, "aaaaaaabbbbbbb-"),
        (ControlBlock(Slot(5, 0, True), Slot(5, 0, True)), "aa"),
        (ControlBlock(Slot(15), Slot(0, 0, True)), "bb"),
        (ControlBlock(Slot(15), Slot(15)), "--"),
    ],
)
def test_what_the_loader_starts(block: ControlBlock, expected: str) -> None:
    assert starts(block, len(expected)) == expected


@pytest.mark.parametrize("running", list(Name))
@pytest.mark.parametrize("boots", [True, False])
def test_an_update(running: Name, boots: bool) -> None:
    new = running.other
    block = INITIAL.marked(running)
    prepared = block.prepared(new)
    # However much of the new slot is written, the running one starts.
    assert starts(prepared, 3) == running * 3
    switched = prepared.switched(new)
    assert switched.active is new
    if boots:
        assert starts(switched.started().marked(new), 9) == new * 9
    else:
        assert starts(switched, 9) == new * 7 + running * 2
    assert new.label == f"ukiboot_{new}"
