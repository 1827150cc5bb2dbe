from __future__ import annotations

import pytest

from bootc.formats.aboot import AbootRecordError, Chosen, Order, Pending
from bootc.formats.digest import Digest

A, B = (Digest.from_hex(letter * 128) for letter in "ab")


def test_records_come_back() -> None:
    pending, chosen = Pending(A, "00" * 32), Chosen(B, "1-2")
    assert Pending.parse(pending.to_bytes()) == pending
    assert Chosen.parse(chosen.to_bytes()) == chosen
    assert chosen.to_bytes() == b'{"boot_id":"1-2","depl_id":"' + b"b" * 128 + b'"}'
    assert Order.parse(Order((B, A)).to_bytes()) == Order((B, A))


def test_unknown_keys_are_ignored() -> None:
    data = b'{"boot_image_sha256":"x","depl_id":"' + b"a" * 128 + b'","new":[]}'
    assert Pending.parse(data) == Pending(A, "x")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b"{}",
        b"[" * 5000,
        b'{"depl_id":"x","boot_image_sha256":"x","boot_id":"x","depl_ids":["x"]}',
        b'{"depl_id":"' + b"a" * 128 + b'","boot_image_sha256":3,"boot_id":3,"depl_ids":3}',
    ],
)
def test_what_is_no_record(data: bytes) -> None:
    for kind in (Pending, Chosen, Order):
        with pytest.raises(AbootRecordError, match="no record of a staged deployment"):
            kind.parse(data)
