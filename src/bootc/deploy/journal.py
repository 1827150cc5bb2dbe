"""What happened to this machine, told to the systemd journal.

Owns: the ids of our messages (``docs/reference/journal.md`` lists them) and the protocol,
which is systemd's "Native Journal Protocol": one datagram a message, its fields as
``NAME=value`` lines, or with their length in front where the value has lines of its own.

Promises: telling changes no outcome. Where there is no journal, or where it does not
listen, nothing happens.

The ids 26f3… and d264… are upstream's for the same events. Its other ids have 33 digits,
which journalctl does not take for ids, so that there are no others to share.
"""

from __future__ import annotations

import enum
import logging
import socket
import struct
from collections.abc import Mapping

from bootc.deploy.host.boot_state import Staged, read_staged
from bootc.deploy.host.facts import Facts
from bootc.errors import Error, one_line
from bootc.fs.dir import Dir
from bootc.printable import printable

_log = logging.getLogger(__name__)

SOCKET = "/run/systemd/journal/socket"

#: A journal that is stopped, or drowning, must not hold up a shutdown.
_PATIENCE_S = 1.0
#: The datagram has to fit into a socket's buffer, and nobody reads more.
_MAX_VALUE_BYTES = 1 << 15
_LENGTH = struct.Struct("<Q")


class Event(enum.Enum):
    """What can have happened. ``value`` is the message's id."""

    UPGRADE_STAGED = "de5edec523144becb92f5bb2c870123a"
    SWITCH_STAGED = "ede69db9f1164ac6a2f563b04a19d762"
    STAGED_DROPPED = "26f3b1eb24464d12aa5e7b544a6b5468"
    ROLLBACK = "1e1db20d4c6c4b31b4f3d0ec61585bb0"
    FINALIZED = "b7fae592c71a4dc9a809c258a19edae8"
    FINALIZE_FAILED = "b9b19ae5abeb4b8c9337b84b8a94e228"
    PINNED = "43693b22f0bd4802b0f78c20885164c1"
    UNPINNED = "63e795fefee44999aa74819e51a9874e"
    DEPLOYMENT_DELETED = "92f0aa18a96d485d91ca4a381191dd31"
    GARBAGE_COLLECTED = "676ebb7362aa448db85df7f85199ea79"
    MISSING_ORIGIN = "d264f924dadb4c31bff0412107d391fb"


#: As in syslog(3).
_INFO, _WARNING, _ERR = 6, 4, 3
_PRIORITIES = {Event.FINALIZE_FAILED: _ERR, Event.MISSING_ORIGIN: _WARNING}


def send(
    event: Event,
    text: str,
    fields: Mapping[str, str | None] | None = None,
    *,
    socket_path: str = SOCKET,
) -> bool:
    """Tell the journal that something happened.

    Args:
        event: What.
        text: The same in one sentence, for people.
        fields: More about it, by name; see :func:`subject`. One without a value is left out.
        socket_path: Where the journal listens.

    Returns:
        Whether the journal took the message.
    """
    message = {
        # One line, which journalctl shows as it is.
        "MESSAGE": printable(text),
        "MESSAGE_ID": event.value,
        "PRIORITY": str(_PRIORITIES.get(event, _INFO)),
        "SYSLOG_IDENTIFIER": "bootc",
        **(fields or {}),
    }
    datagram = b"".join(_field(name, value) for name, value in message.items() if value is not None)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
            journal.settimeout(_PATIENCE_S)
            journal.sendto(datagram, socket_path)
    except OSError as exc:
        _log.debug("the journal was not told: %s", exc)
        return False
    return True


def subject(deployment: object = None, image: object = None) -> dict[str, str | None]:
    """Return the fields that say what a message is about."""
    return {
        "BOOTC_DEPLOYMENT": None if deployment is None else str(deployment),
        "BOOTC_IMAGE": None if image is None else str(image),
    }


def report_staging(
    event: Event,
    run: Dir,
    before: Staged | None,
    *,
    image: object = None,
    socket_path: str = SOCKET,
) -> None:
    """Tell the journal if another deployment is announced for the next boot than was.

    Args:
        event: What that is.
        run: Where deployments are announced.
        before: What was announced before the command.
        image: What the command asked for.
        socket_path: Where the journal listens.
    """
    now = _announced(run, before)
    if now is None:
        report_dropping(run, before, socket_path=socket_path)
    elif now != before:
        when = "boots when it is released" if now.locked else "boots next"
        text = f"Staged deployment {now.image_id}, which {when}"
        send(event, text, subject(now.image_id, image), socket_path=socket_path)


def report_dropping(run: Dir, before: Staged | None, *, socket_path: str = SOCKET) -> None:
    """Tell the journal if nothing is announced for the next boot any more.

    Args:
        run: Where deployments are announced.
        before: What was announced before the command.
        socket_path: Where the journal listens.
    """
    if before is not None and _announced(run, before) is None:
        text = f"Dropped the staged deployment {before.image_id}"
        send(Event.STAGED_DROPPED, text, subject(before.image_id), socket_path=socket_path)


def report_damage(facts: Facts, *, socket_path: str = SOCKET) -> None:
    """Tell the journal of the deployments that no command can do anything with."""
    for deployment, state in facts.states.items():
        if state.origin is None:
            text = f"Deployment {deployment} has no origin file that can be read, and is ignored"
            if not send(Event.MISSING_ORIGIN, text, subject(deployment), socket_path=socket_path):
                return  # each further message would have to wait, too


def _announced(run: Dir, otherwise: Staged | None) -> Staged | None:
    """Return what is announced for the next boot; where nobody can tell, the second argument."""
    try:
        return read_staged(run)
    except (Error, OSError) as exc:
        _log.debug("the journal was not told: %s", one_line(exc))
        return otherwise


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")[:_MAX_VALUE_BYTES]
    if b"\n" in data:
        return name.encode() + b"\n" + _LENGTH.pack(len(data)) + data + b"\n"
    return name.encode() + b"=" + data + b"\n"
