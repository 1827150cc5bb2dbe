"""The small JSON notes that bootc keeps about deployments, as bytes and as values.

Three of them are this project's own, and other implementations ignore them
(docs/reference/state.md shows them):

- ``finalize-failure.json``: why a staged deployment did not become the default.
- ``cleanup-failures.json``: what the last clean-up could not remove.
- ``cached-update.json``: the image that the last look at the registry found, in the form of
  the Host schema.

The fourth, ``<image id>.imginfo``, is from old versions of bootc. It holds the manifest and the
configuration of the image of a deployment whose origin names no manifest.

Promises: every malformed note raises :class:`MalformedNote`, text in a parsed note is safe to
show, and what this module writes is at most :data:`MAX_NOTE_BYTES` long. Nothing here reads or
writes files: :mod:`bootc.deploy.host.statedir` and :mod:`bootc.deploy.host.boot_state` do.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bootc.deploy.host.model import ImageSpec, ImageStatus, Timestamp
from bootc.errors import Error
from bootc.formats.digest import OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import Signature
from bootc.printable import printable

CACHED_UPDATE = "cached-update.json"
FINALIZE_FAILURE = "finalize-failure.json"
CLEANUP_FAILURES = "cleanup-failures.json"

#: The most that is read of a note, except of an imginfo.
MAX_NOTE_BYTES = 1 << 16
#: Longer reasons are cut.
MAX_REASON_CHARS = 1500
#: The note of a clean-up leaves out further failures.
_MAX_FAILURES = 100
#: Room for what the note of a clean-up holds besides the failures.
_FRAME_BYTES = 100
#: What taking a note apart can raise. Deeply nested JSON exceeds Python's recursion limit.
_MALFORMED = (ValueError, LookupError, TypeError, AttributeError, RecursionError, Error)


class MalformedNote(Error):
    """A note is malformed."""


@dataclass(frozen=True, slots=True)
class FinalizeFailure:
    """Why a staged deployment did not become the default when the machine went down."""

    reason: str
    time: Timestamp | None = None


@dataclass(frozen=True, slots=True)
class CleanupFailure:
    """Why a clean-up could not remove something that no deployment needs, and since when.

    If ``in_repository`` is true, only a clean-up that includes the repository tries again.
    """

    reason: str
    in_repository: bool
    time: Timestamp | None = None


@dataclass(frozen=True, slots=True)
class LegacyDocuments:
    """The manifest and the configuration of an image, as an old bootc wrote them down."""

    manifest_raw: bytes
    config_raw: bytes

    @property
    def manifest_digest(self) -> OciDigest:
        """The digest of the manifest in compact JSON.

        Nobody knows which digest it had in its registry; the old bootc names this one.
        """
        return OciDigest.of(self.manifest_raw)


def parse_failure(data: bytes) -> FinalizeFailure:
    """Parse ``finalize-failure.json``.

    Raises:
        MalformedNote: it is malformed.
    """
    value = _json_object(FINALIZE_FAILURE, data)
    try:
        reason, time = value["reason"], value.get("time")
        if not isinstance(reason, str):
            raise TypeError("its reason is no text")
        return FinalizeFailure(printable(reason), None if time is None else _moment(time))
    except _MALFORMED as exc:
        raise _malformed(FINALIZE_FAILURE, exc) from None


def serialise_failure(failure: FinalizeFailure) -> bytes:
    """Return ``finalize-failure.json``."""
    time = None if failure.time is None else failure.time.to_json()
    return _to_bytes({"reason": failure.reason, "time": time})


def parse_cleanup_failures(data: bytes) -> tuple[CleanupFailure, ...]:
    """Parse ``cleanup-failures.json``.

    Raises:
        MalformedNote: it is malformed.
    """
    value = _json_object(CLEANUP_FAILURES, data)
    try:
        return tuple(_parse_cleanup_failure(failure) for failure in value["failures"])
    except _MALFORMED as exc:
        raise _malformed(CLEANUP_FAILURES, exc) from None


def serialise_cleanup_failures(failures: Sequence[CleanupFailure]) -> bytes:
    """Return ``cleanup-failures.json``, with as many of the failures as a note can hold."""
    found = [
        {
            "reason": failure.reason[:MAX_REASON_CHARS],
            "repository": failure.in_repository,
            "time": None if failure.time is None else failure.time.to_json(),
        }
        for failure in failures[:_MAX_FAILURES]
    ]
    while len(json.dumps(found)) > MAX_NOTE_BYTES - _FRAME_BYTES:
        found.pop()
    return _to_bytes({"failures": found})


def parse_cached_update(data: bytes) -> ImageStatus:
    """Parse ``cached-update.json``.

    Raises:
        MalformedNote: it is malformed.
    """
    value = _json_object(CACHED_UPDATE, data)
    try:
        return _parse_image(value)
    except _MALFORMED as exc:
        raise _malformed(CACHED_UPDATE, exc) from None


def serialise_cached_update(update: ImageStatus) -> bytes:
    """Return ``cached-update.json``."""
    return _to_bytes(update.to_json())


def parse_imginfo(data: bytes) -> LegacyDocuments:
    """Parse an ``.imginfo`` file. The documents in it are not checked.

    Raises:
        MalformedNote: it does not hold both documents.
    """
    try:
        value = json.loads(data)
        return LegacyDocuments(_compact(value["manifest"]), _compact(value["config"]))
    except (ValueError, RecursionError, LookupError, TypeError) as exc:
        raise MalformedNote(f"it holds no manifest and configuration: {exc!r:.200}") from None


def _malformed(name: str, exc: Exception) -> MalformedNote:
    said = exc.message if isinstance(exc, Error) else repr(exc)
    return MalformedNote(f"{name} is malformed: {said[:200]}")


def _json_object(name: str, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise _malformed(name, exc) from None
    if not isinstance(value, dict):
        raise MalformedNote(f"{name} is malformed: it holds no JSON object")
    return value


def _to_bytes(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _parse_cleanup_failure(value: Any) -> CleanupFailure:
    reason, time = value["reason"], value.get("time")
    if not isinstance(reason, str):
        raise TypeError("a reason is no text")
    return CleanupFailure(
        printable(reason),
        in_repository=bool(value.get("repository")),
        time=None if time is None else _moment(time),
    )


def _parse_image(value: Any) -> ImageStatus:
    spec = value["image"]
    version, timestamp = value.get("version"), value.get("timestamp")
    return ImageStatus(
        image=ImageSpec(
            ImageReference.of(_text(spec["transport"]), _text(spec["image"])),
            _parse_signature(spec.get("signature")),
        ),
        digest=OciDigest.parse(_text(value["imageDigest"])),
        architecture=_text(value["architecture"]),
        version=None if version is None else _text(version),
        timestamp=None if timestamp is None else _moment(timestamp),
    )


def _parse_signature(value: Any) -> Signature | None:
    if value is None:
        return None
    return Signature() if value == "containerPolicy" else Signature(_text(value["ostreeRemote"]))


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable():
        # Commands print these texts on terminals.
        raise TypeError(f"{value!r} is no text of one line")
    return value


def _moment(value: object) -> Timestamp:
    moment = Timestamp.parse(_text(value))
    if moment is None:
        raise ValueError(f"{value!r} is no moment")
    return moment
