"""The decisions about paths of ``/etc``, kept until the next update is merged.

Owns the format of ``etc-decisions.json``, and how a user gives a path. The file is in the state
directory of the deployment whose ``/etc`` it is about
(:class:`~bootc.deploy.host.statedir.StateDir`). It is a JSON object::

    {"version": 1, "decisions": {"ssh/sshd_config": "keep", "caf%E9": "take"}}

Paths are relative to ``/etc``; ``.`` is all of it. JSON knows characters and no bytes, so
``%`` and whatever is not printable text is written as ``%`` and two hex digits for each
byte of it (in UTF-8). Any ``%XX`` is read as that byte.

Promises: a reader sees the decisions before or after a change. A change is on the disk when
:func:`write_decisions` returns.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping

from bootc.deploy.etc.merge import Choice
from bootc.deploy.host.statedir import DECISIONS, StateDir
from bootc.errors import Error

_VERSION = 1
_ETC = b"/etc"
_ALL_OF_ETC = "."
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")


class MalformedDecisions(Error):
    """The file of decisions is malformed."""


class InvalidEtcPath(Error):
    """A path that cannot be in ``/etc``."""


def etc_path(given: str | bytes) -> bytes:
    """Return a path relative to ``/etc``. The user gives it absolute, or relative to ``/etc``.

    All of ``/etc`` is the empty path.

    Raises:
        InvalidEtcPath: it is empty, outside ``/etc``, contains ``..``, or is no path.
    """
    raw = os.fsencode(given)
    parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
    if not raw or b"\0" in raw or b".." in parts:
        raise _invalid(raw)
    if raw.startswith(b"/"):
        if parts[:1] != [_ETC[1:]]:
            raise _invalid(raw)
        del parts[0]
    return b"/".join(parts)


def read_decisions(state: StateDir) -> dict[bytes, Choice]:
    """Return the decisions stored in a state directory, by path relative to ``/etc``.

    Raises:
        MalformedDecisions: the file is damaged; the hint says the way out.
        OSError: it cannot be read.
    """
    data = state.read_decisions()
    if data is None:
        return {}
    try:
        return _parse(data)
    # Nested deeply enough, JSON is too much for its reader.
    except (ValueError, RecursionError, InvalidEtcPath) as exc:
        reason = str(exc) if not isinstance(exc, RecursionError) else "nested too deeply"
        raise MalformedDecisions(
            f"{state.path}/{DECISIONS} is malformed: {reason}",
            hint="correct the file, or remove it to decide nothing",
        ) from exc


def write_decisions(state: StateDir, decisions: Mapping[bytes, Choice]) -> None:
    """Store decisions in a state directory in place of all that were there.

    Raises:
        OSError: writing failed; what was stored is still there.
    """
    stored = {_to_text(path): choice.value for path, choice in sorted(decisions.items())}
    document = {"version": _VERSION, "decisions": stored}
    text = json.dumps(document, ensure_ascii=False, indent=2)
    state.write_decisions(text.encode() + b"\n")


def _parse(data: bytes) -> dict[bytes, Choice]:
    document = json.loads(data)
    if not isinstance(document, dict) or document.get("version") != _VERSION:
        raise ValueError(f"no decisions of version {_VERSION}")
    stored = document.get("decisions")
    if not isinstance(stored, dict):
        raise ValueError('"decisions" is no object')
    decisions: dict[bytes, Choice] = {}
    for text, value in stored.items():
        path = _from_text(text)
        if value not in (Choice.KEEP.value, Choice.TAKE.value):
            raise ValueError(f"the decision about {text!r} is neither keep nor take")
        if decisions.setdefault(path, Choice(value)) is not Choice(value):
            raise ValueError(f"two decisions about {text!r}")
    return decisions


def _to_text(path: bytes) -> str:
    if not path:
        return _ALL_OF_ETC
    pieces = []
    for char in path.decode("utf-8", "surrogateescape"):
        if char.isprintable() and char != "%":
            pieces.append(char)
        else:
            raw = char.encode("utf-8", "surrogateescape")
            pieces.append("".join(f"%{byte:02X}" for byte in raw))
    return "".join(pieces)


def _from_text(text: str) -> bytes:
    def byte(match: re.Match[bytes]) -> bytes:
        if match[1] is None:
            raise ValueError(f"{text!r} has a % without two hex digits")
        return bytes.fromhex(match[1].decode())

    # JSON can spell half a character, which cannot be encoded.
    path = _ESCAPE.sub(byte, text.encode("utf-8"))
    if path.startswith(b"/"):
        raise ValueError(f"{text!r} is not relative to /etc")
    return etc_path(path)


def _invalid(path: bytes) -> InvalidEtcPath:
    return InvalidEtcPath(
        f"{path.decode('utf-8', 'backslashreplace')!r} is not a path in /etc",
        hint="give it as /etc/NAME, or as NAME relative to /etc, without ..",
    )
