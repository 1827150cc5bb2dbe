from __future__ import annotations

import contextlib
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bootc.boot.loader import Bootloader, LoaderTraces
from bootc.deploy import journal
from bootc.deploy.host.boot_state import BootedState
from bootc.deploy.host.gather import gather
from bootc.deploy.journal import Event, JournalMessage, SystemdJournal
from bootc.formats.imgref import ImageReference
from support.sysroot import FakeSysroot, image_id

A, B = image_id("aa"), image_id("bb")


class Journal:
    """A journal's end of the socket."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.journal = SystemdJournal(self.path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)

    def read(self) -> dict[str, str] | None:
        """Return the fields of the next message, as the protocol wants them read."""
        try:
            rest = self.socket.recv(1 << 20)
        except BlockingIOError:
            return None
        fields = {}
        while rest:
            line, _, rest = rest.partition(b"\n")
            name, equals, value = line.partition(b"=")
            if not equals:
                (length,) = struct.unpack_from("<Q", rest)
                value, end, rest = (
                    rest[8 : 8 + length],
                    rest[8 + length : 9 + length],
                    rest[9 + length :],
                )
                assert end == b"\n"
            fields[name.decode()] = value.decode()
        return fields


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Journal]:
    journald = Journal(tmp_path / "socket")
    yield journald
    journald.socket.close()


def message(event: Event, text: str = "x", **about: Any) -> JournalMessage:
    return JournalMessage(event, text, **about)


def test_a_message_and_its_fields(told: Journal) -> None:
    image = ImageReference("registry", "quay.io/example/os:1")
    assert told.journal.send(message(Event.PINNED, "Pinned it", deployment=A, image=image))
    assert told.read() == {
        "MESSAGE": "Pinned it",
        "MESSAGE_ID": "43693b22f0bd4802b0f78c20885164c1",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "bootc",
        "BOOTC_DEPLOYMENT": A.hex,
        "BOOTC_IMAGE": "docker://quay.io/example/os:1",
    }


def test_values_with_lines_and_without_utf_8(told: Journal) -> None:
    image = ImageReference("dir", "caf\udce9=b\nc\n")
    assert told.journal.send(message(Event.FINALIZE_FAILED, "a=b\n\x1bc", image=image))
    fields = told.read()
    assert fields is not None
    # journalctl shows no message that has control characters.
    assert fields["MESSAGE"] == "a=b\\n\\x1bc"
    assert fields["BOOTC_IMAGE"] == "dir:caf\\udce9=b\nc\n"
    assert fields["PRIORITY"] == "3"


def test_a_field_without_a_value_is_left_out(told: Journal) -> None:
    told.journal.send(message(Event.ROLLBACK))
    fields = told.read()
    assert fields is not None
    assert not any(name.startswith("BOOTC_") for name in fields)


def test_a_long_story_is_cut_and_still_arrives(told: Journal) -> None:
    told.journal.send(message(Event.FINALIZE_FAILED, "é" * 1_000_000))
    fields = told.read()
    assert fields is not None
    assert fields["MESSAGE"] == "é" * (1 << 14)


@pytest.mark.parametrize("path", ["/nonexistent/socket", "/dev/null", "/" + 200 * "x"])
def test_no_journal_is_no_failure(path: str) -> None:
    assert not SystemdJournal(path).send(message(Event.ROLLBACK))


def test_a_journal_that_does_not_listen_is_not_waited_for_long(
    told: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_PATIENCE_S", 0.01)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b"X=Y\n", told.path)
    assert not told.journal.send(message(Event.ROLLBACK))


def test_a_deployment_without_an_origin_is_told_of(told: Journal, tmp_path: Path) -> None:
    system = FakeSysroot(tmp_path / "system")
    system.add_state(A)
    system.state_dir(B).mkdir(parents=True)
    booted = BootedState(A, missing_verity_allowed=True, loader=LoaderTraces(Bootloader.SYSTEMD))
    with system.open(booted) as opened:
        journal.report_damage(gather(opened), told.journal)
    fields = told.read()
    assert fields is not None
    assert fields["MESSAGE_ID"] == "d264f924dadb4c31bff0412107d391fb"
    assert fields["BOOTC_DEPLOYMENT"] == B.hex
    assert fields["PRIORITY"] == "4"
    assert told.read() is None


def test_ids_are_what_journalctl_takes_and_what_is_documented() -> None:
    page = Path(__file__).parents[3] / "docs" / "reference" / "journal.md"
    documented = re.findall(
        r"^\| `([A-Z_]+)` \| `([^`]*)` \|", page.read_text("utf-8"), re.MULTILINE
    )
    assert documented == [(event.name, event.value) for event in Event]
    for event in Event:
        assert re.fullmatch(r"[0-9a-f]{32}", event.value)
