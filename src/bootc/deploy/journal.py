"""Messages for the systemd journal: what bootc changed on this machine.

Owns the ids of the messages (``docs/reference/journal.md`` lists them) and the protocol, which
is systemd's "Native Journal Protocol". A message is one datagram. Its fields are ``NAME=value``
lines; a value that has lines of its own comes with its length in front.

Promises: a message that cannot be sent fails no command.

The ids 26f3… and d264… are upstream's for the same events. Upstream's other ids have 33 digits.
journalctl does not accept those as ids, so there are no others to share.
"""

from __future__ import annotations

import enum
import logging
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from bootc.deploy.host.facts import Facts
from bootc.formats.digest import Digest
from bootc.formats.imgref import ImageReference
from bootc.printable import printable

_log = logging.getLogger(__name__)

SOCKET = "/run/systemd/journal/socket"

#: A journal that is stopped or overloaded must not delay a shutdown.
_PATIENCE_S = 1.0
#: The datagram has to fit into a socket's buffer, and nobody reads more.
_MAX_VALUE_BYTES = 1 << 15
_LENGTH = struct.Struct("<Q")


class Event(enum.Enum):
    """What happened. ``value`` is the id of the message."""

    UPGRADE_STAGED = "de5edec523144becb92f5bb2c870123a"
    SWITCH_STAGED = "ede69db9f1164ac6a2f563b04a19d762"
    STAGED_DROPPED = "26f3b1eb24464d12aa5e7b544a6b5468"
    ROLLBACK = "1e1db20d4c6c4b31b4f3d0ec61585bb0"
    FINALIZED = "b7fae592c71a4dc9a809c258a19edae8"
    FINALIZE_FAILED = "b9b19ae5abeb4b8c9337b84b8a94e228"
    PINNED = "43693b22f0bd4802b0f78c20885164c1"
    UNPINNED = "63e795fefee44999aa74819e51a9874e"
    DEPLOYMENT_DELETED = "92f0aa18a96d485d91ca4a381191dd31"
    ADDON_ADDED = "813311385563424b86345f08457f6474"
    ADDON_REMOVED = "309c8e8e086243b0b2760c5d7b1cdd7b"
    GARBAGE_COLLECTED = "676ebb7362aa448db85df7f85199ea79"
    MISSING_ORIGIN = "d264f924dadb4c31bff0412107d391fb"


#: As in syslog(3).
_INFO, _WARNING, _ERR = 6, 4, 3
_PRIORITIES = {Event.FINALIZE_FAILED: _ERR, Event.MISSING_ORIGIN: _WARNING}


@dataclass(frozen=True, slots=True)
class JournalMessage:
    """One message.

    Attributes:
        event: What happened.
        text: The same in one sentence, for people.
        deployment: The deployment that the message is about.
        image: The image that the user asked for.
    """

    event: Event
    text: str
    deployment: Digest | None = None
    image: ImageReference | None = None

    def fields(self) -> dict[str, str]:
        """Return the fields of the message by name."""
        subjects = {"BOOTC_DEPLOYMENT": self.deployment, "BOOTC_IMAGE": self.image}
        return {
            # journalctl shows no text that has control characters.
            "MESSAGE": printable(self.text),
            "MESSAGE_ID": self.event.value,
            "PRIORITY": str(_PRIORITIES.get(self.event, _INFO)),
            "SYSLOG_IDENTIFIER": "bootc",
            **{name: str(value) for name, value in subjects.items() if value is not None},
        }


class Journal(Protocol):
    """Keeps messages about this machine."""

    def send(self, message: JournalMessage) -> bool:
        """Send a message, and return whether the journal took it. It never raises."""


@dataclass(frozen=True, slots=True)
class SystemdJournal:
    """The journal of a booted machine.

    Attributes:
        socket_path: Where it listens.
    """

    socket_path: str = SOCKET

    def send(self, message: JournalMessage) -> bool:
        """Send a message, and return whether the journal took it."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
                journal.settimeout(_PATIENCE_S)
                journal.sendto(_datagram(message.fields()), self.socket_path)
        except OSError as exc:
            _log.debug("the journal did not take a message: %s", exc)
            return False
        return True


def report_damage(facts: Facts, journal: Journal) -> None:
    """Send a message about each deployment that has no origin: no command can use it."""
    for deployment, state in facts.states.items():
        if state.origin is None:
            text = f"Deployment {deployment} has no origin file that can be read, and is ignored"
            if not journal.send(JournalMessage(Event.MISSING_ORIGIN, text, deployment)):
                return  # each further message would have to wait as well


def _datagram(fields: Mapping[str, str]) -> bytes:
    return b"".join(_field(name, value) for name, value in fields.items())


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")[:_MAX_VALUE_BYTES]
    if b"\n" in data:
        return name.encode() + b"\n" + _LENGTH.pack(len(data)) + data + b"\n"
    return name.encode() + b"=" + data + b"\n"
