"""The device of a TPM: a socket answers in its place."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.kernel.tpm import Tpm, is_announced, open_tpm

COMMAND = b"\x80\x01\0\0\0\x0a\0\0\0\0"
REPLY = b"\x80\x01\0\0\0\x0c\0\0\0\0ab"


@pytest.fixture
def pair() -> Iterator[tuple[Tpm, socket.socket]]:
    near, far = socket.socketpair()
    near.setblocking(False)
    with far, Tpm(near.detach(), deadline_s=0.2) as tpm:
        yield tpm, far


@pytest.mark.parametrize("parts", [[REPLY], [REPLY[:3], REPLY[3:]], [REPLY[:11], REPLY[11:]]])
def test_a_reply_has_the_size_that_it_states(
    pair: tuple[Tpm, socket.socket], parts: list[bytes]
) -> None:
    tpm, far = pair

    def answer() -> None:
        for part in parts:
            far.send(part)

    thread = threading.Thread(target=answer)
    thread.start()
    assert tpm.transmit(COMMAND) == REPLY
    thread.join()
    assert far.recv(64) == COMMAND


@pytest.mark.parametrize("said", [b"", REPLY[:11]])
def test_a_tpm_that_does_not_answer(pair: tuple[Tpm, socket.socket], said: bytes) -> None:
    tpm, far = pair
    far.send(said)
    with pytest.raises(OSError, match="the TPM does not answer") as caught:
        tpm.transmit(COMMAND)
    assert caught.value.errno == errno.ETIMEDOUT


@pytest.mark.parametrize("size", [0, 9, 4097, 0xFFFFFFFF])
def test_a_reply_of_a_wrong_size(pair: tuple[Tpm, socket.socket], size: int) -> None:
    tpm, far = pair
    far.send(b"\x80\x01" + size.to_bytes(4, "big") + bytes(4))
    with pytest.raises(OSError, match="the size of the TPM's reply is wrong"):
        tpm.transmit(COMMAND)


def test_a_reply_that_ends(pair: tuple[Tpm, socket.socket]) -> None:
    tpm, far = pair
    far.send(REPLY[:11])
    far.shutdown(socket.SHUT_WR)
    with pytest.raises(OSError, match="the TPM ended its reply early"):
        tpm.transmit(COMMAND)


def test_a_machine_without_tpm(tmp_path: Path) -> None:
    assert open_tpm(str(tmp_path / "tpmrm0")) is None
    # The firmware announces none, so there is nothing to wait for.
    table = str(tmp_path / "TPM2")
    assert open_tpm(str(tmp_path / "tpmrm0"), wait_s=3600, table=table) is None


def test_a_driver_that_is_late(tmp_path: Path) -> None:
    device, table = tmp_path / "tpmrm0", tmp_path / "TPM2"
    table.write_bytes(b"TPM2")
    assert is_announced(str(table))
    assert open_tpm(str(device), wait_s=0.1, table=str(table)) is None
    timer = threading.Timer(0.2, device.touch)
    timer.start()
    opened = open_tpm(str(device), wait_s=30, table=str(table))
    timer.join()
    assert opened is not None
    with opened:
        pass


def test_a_device_that_is_closed_afterwards(tmp_path: Path) -> None:
    (tmp_path / "tpmrm0").write_bytes(b"")
    before = set(os.listdir("/proc/self/fd"))
    device = open_tpm(str(tmp_path / "tpmrm0"))
    assert device is not None
    with device:
        pass
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_device_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        open_tpm(str(tmp_path))
