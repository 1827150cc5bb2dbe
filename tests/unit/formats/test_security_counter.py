"""The counter on a fake TPM; tests/interop/test_swtpm.py uses a real one."""

from __future__ import annotations

import errno
import struct

import pytest

from bootc.formats import security_counter, tpm2nv
from bootc.formats.security_counter import (
    INDEX,
    MAX_RISE,
    CounterUnreadable,
    CounterUnusable,
    RiseTooLarge,
)
from bootc.formats.tpm2nv import TpmRefused, TpmReplyError
from support.faketpm import BAD_AUTH, Died, FakeTpm, Index

READ, READ_PUBLIC, DEFINE = 0x14E, 0x169, 0x12A
FAILURE = 0x101


def test_no_counter_requires_nothing() -> None:
    tpm = FakeTpm()
    assert security_counter.read(tpm.transmit) is None
    assert security_counter.rise(tpm.transmit, 3) is None
    security_counter.remove(tpm.transmit)
    assert tpm.indexes == {}


@pytest.mark.parametrize("highest", [0, 1, 56, 1 << 40])
def test_a_new_counter_is_zero_wherever_the_tpm_starts(highest: int) -> None:
    tpm = FakeTpm(highest=highest)
    security_counter.define(tpm.transmit)
    assert security_counter.read(tpm.transmit) == 0
    assert tpm.indexes[INDEX].value == highest + 2
    assert security_counter.rise(tpm.transmit, 4) == 4
    assert security_counter.rise(tpm.transmit, 2) == 4
    commands = len(tpm.commands)
    security_counter.define(tpm.transmit)
    assert tpm.commands[commands:] == [READ_PUBLIC, READ]
    assert security_counter.read(tpm.transmit) == 4


def test_a_definition_that_is_interrupted_requires_nothing() -> None:
    for dies_at in range(8):
        tpm = FakeTpm(highest=9, dies_at=dies_at)
        with pytest.raises(Died):
            security_counter.define(tpm.transmit)
        tpm.dies_at = None
        try:
            assert security_counter.read(tpm.transmit) in (None, 0)
        except CounterUnusable:
            assert dies_at in (2, 3, 4, 6)
        security_counter.define(tpm.transmit)
        assert security_counter.read(tpm.transmit) == 0


def test_a_rise_that_is_interrupted_goes_on() -> None:
    for dies_at in range(2, 7):
        tpm = FakeTpm(dies_at=dies_at).with_counter(1)
        with pytest.raises(Died):
            security_counter.rise(tpm.transmit, 4)
        tpm.dies_at = None
        assert security_counter.read(tpm.transmit) == 1 + min(dies_at - 2, 3)
        assert security_counter.rise(tpm.transmit, 4) == 4


def test_a_rise_is_bounded() -> None:
    tpm = FakeTpm().with_counter(2)
    with pytest.raises(RiseTooLarge) as caught:
        security_counter.rise(tpm.transmit, 20261130)
    assert caught.value.message == (
        "the security counter is 2, and cannot rise to 20261130: "
        "it rises one by one, by at most 1000 at once"
    )
    assert tpm.commands == [READ_PUBLIC, READ]
    assert security_counter.rise(tpm.transmit, 2 + MAX_RISE) == 2 + MAX_RISE


@pytest.mark.parametrize(
    "index",
    [
        Index(0x22060014, b"bootc security counter 2" + bytes(8), 5),
        Index(0x22060014, b"", 5),
        Index(0x22060014, b"bootc security counter 1" + bytes(9), 5),
        Index(0x22060004, b"bootc security counter 1" + bytes(8), 5),
        Index(0x22060014, b"bootc security counter 1" + bytes(8), 5, size=16),
    ],
    ids=["mark", "empty", "long", "ordinary", "size"],
)
def test_an_index_of_others_is_left_alone(index: Index) -> None:
    tpm = FakeTpm({INDEX: index})
    for change in (security_counter.read, security_counter.define, security_counter.remove):
        with pytest.raises(CounterUnusable) as caught:
            change(tpm.transmit)
        assert caught.value.hint == "if nothing else needs it: tpm2_nvundefine 0x0180b007"
    assert tpm.indexes == {INDEX: index}


def test_other_counters_appear_all_the_time() -> None:
    tpm = FakeTpm()

    def beside_another(command: bytes) -> bytes:
        tpm.highest += 1
        return tpm.transmit(command)

    with pytest.raises(CounterUnusable, match="does not tell where a new counter starts"):
        security_counter.define(beside_another)
    assert tpm.indexes == {}


def test_a_counter_that_cannot_be_read_is_a_counter() -> None:
    tpm = FakeTpm(refuse={READ: FAILURE}).with_counter(3)
    with pytest.raises(CounterUnreadable, match="the TPM refused a command with code 0x101"):
        security_counter.read(tpm.transmit)


def test_a_tpm_that_tells_nothing() -> None:
    with pytest.raises(TpmRefused) as refused:
        security_counter.read(FakeTpm(refuse={READ_PUBLIC: FAILURE}).transmit)
    assert not refused.value.undefined
    with pytest.raises(OSError, match="gone"):
        security_counter.read(FakeTpm(broken=OSError(errno.EIO, "gone")).transmit)


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (BAD_AUTH, "the owner of the TPM has a password: remove it with tpm2_changeauth"),
        (0x98E, "the owner of the TPM has a password: remove it with tpm2_changeauth"),
        (0x14B, "the TPM has no space left: remove an index with tpm2_nvundefine"),
        (FAILURE, None),
    ],
)
def test_a_definition_that_is_refused(code: int, hint: str | None) -> None:
    tpm = FakeTpm(refuse={DEFINE: code})
    with pytest.raises(TpmRefused) as caught:
        security_counter.define(tpm.transmit)
    assert (caught.value.code, caught.value.hint) == (code, hint)
    assert tpm.indexes == {}


PUBLIC = struct.pack(">IHIH", INDEX, 0xB, 0x22060014, 0) + b"\0\x08"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0",
        b"\0\xff" + PUBLIC,
        b"\0\x02ab",
        struct.pack(">H", len(PUBLIC) - 1) + PUBLIC[:-1],
        struct.pack(">HI", len(PUBLIC), 1) + PUBLIC[4:],
    ],
)
def test_a_public_area_that_is_malformed(body: bytes) -> None:
    reply = struct.pack(">HII", 0x8001, 10 + len(body), 0) + body
    with pytest.raises(TpmReplyError):
        tpm2nv.read_public(lambda _: reply, INDEX)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        bytes(9),
        struct.pack(">HII", 0x8002, 11, 0),
        struct.pack(">HII", 0x8001, 10, 0),
        struct.pack(">HII", 0x8002, 10, 0),
        struct.pack(">HIII", 0x8002, 14, 0, 99),
        struct.pack(">HIIIHI", 0x8002, 20, 0, 6, 4, 7),
        struct.pack(">HIIIHQB", 0x8002, 25, 0, 11, 8, 7, 0),
    ],
)
def test_a_value_that_is_malformed(reply: bytes) -> None:
    with pytest.raises(TpmReplyError):
        tpm2nv.read_number(lambda _: reply, INDEX)


def test_the_bytes_of_a_command() -> None:
    sent: list[bytes] = []

    def record(command: bytes) -> bytes:
        sent.append(command)
        return FakeTpm().with_counter(0).transmit(command)

    tpm2nv.increment(record, INDEX)
    assert sent == [bytes.fromhex("80020000001f000001340180b0070180b00700000009400000090000000000")]
