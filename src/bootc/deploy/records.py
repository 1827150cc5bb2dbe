"""Small notes of ours, which other implementations pass over.

Owns two files in the state directory of a deployment, additions of ours that other
implementations pass over: ``pinned``, empty, says that the user wants the deployment kept;
``finalize-failure.json`` says why a staged deployment did not become the default. A third,
``cleanup-failures.json``, is about all deployments and is in ``state``, above their
directories: it lists what the last clean-up could not remove. And one is in ``/run/composefs``,
in memory, because a look at the registry changes no disk: ``cached-update.json`` is what the
last one found, as the Host schema writes an image.

Promises: a note is there wholly or not at all, one on a disk survives a power cut once the call
has returned, and writing what is there already, or removing what is not, is fine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from bootc.deploy.host.facts import CleanupFailure, FinalizeFailure
from bootc.deploy.host.model import ImageSpec, ImageStatus, Timestamp
from bootc.errors import Error, doing
from bootc.formats.digest import OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import Signature
from bootc.fs import atomic
from bootc.fs.dir import Dir
from bootc.printable import printable

PINNED = "pinned"
CACHED_UPDATE = "cached-update.json"
FINALIZE_FAILURE = "finalize-failure.json"
CLEANUP_FAILURES = "cleanup-failures.json"

_MAX_BYTES = 1 << 16
#: Longer reasons are cut, and more failures not written down than a note may be long.
MAX_REASON_CHARS = 1500
_MAX_FAILURES = 100
#: What a note has besides the failures.
_FRAME_BYTES = 100


class RecordError(Error):
    """A note is malformed."""


def is_pinned(state_dir: Dir) -> bool:
    """Tell whether the user wants a deployment kept. Whatever has that name says so."""
    return state_dir.exists(PINNED)


def set_pinned(state_dir: Dir, pinned: bool) -> None:
    """Write down that the user wants a deployment kept, or no longer wants it kept."""
    if is_pinned(state_dir) == pinned:
        return
    with doing(f"{'Pinning' if pinned else 'Unpinning'} {state_dir.path}"):
        if pinned:
            atomic.write_file(state_dir, PINNED, b"", durable=True)
        else:
            _remove(state_dir, PINNED)


def read_cached_update(run: Dir) -> ImageStatus | None:
    """Return what the last look at the registry since the boot found, or None if nobody looked.

    Raises:
        RecordError: the note is malformed.
    """
    value = _read(run, CACHED_UPDATE)
    if value is None:
        return None
    try:
        return _parse_image(value)
    except _MALFORMED as exc:
        raise _malformed(CACHED_UPDATE, exc) from None


def write_cached_update(run: Dir, update: ImageStatus) -> None:
    """Write down what a look at the registry found, also when it is what runs already."""
    with doing(f"Recording the available update in {run.path}"):
        _write(run, CACHED_UPDATE, update.to_json(), durable=False)


def read_failure(state_dir: Dir) -> FinalizeFailure | None:
    """Return why a staged deployment did not become the default, or None if nothing failed.

    Raises:
        RecordError: the note is malformed.
    """
    value = _read(state_dir, FINALIZE_FAILURE)
    if value is None:
        return None
    try:
        reason, time = value["reason"], value.get("time")
        if not isinstance(reason, str):
            raise TypeError("its reason is no text")
        return FinalizeFailure(printable(reason), None if time is None else _moment(time))
    except _MALFORMED as exc:
        raise _malformed(FINALIZE_FAILURE, exc) from None


def write_failure(state_dir: Dir, failure: FinalizeFailure) -> None:
    """Write down why a staged deployment does not become the default."""
    time = None if failure.time is None else failure.time.to_json()
    with doing(f"Recording the failure in {state_dir.path}"):
        note = {"reason": failure.reason, "time": time}
        _write(state_dir, FINALIZE_FAILURE, note, durable=True)


def clear_failure(state_dir: Dir) -> None:
    """Forget why a staged deployment did not become the default."""
    with doing(f"Clearing the failure in {state_dir.path}"):
        _remove(state_dir, FINALIZE_FAILURE)


def read_cleanup_failures(parent_dir: Dir) -> tuple[CleanupFailure, ...]:
    """Return what the last clean-up could not remove.

    Args:
        parent_dir: The directory above those of the deployments.

    Raises:
        RecordError: the note is malformed.
    """
    value = _read(parent_dir, CLEANUP_FAILURES)
    if value is None:
        return ()
    try:
        return tuple(_parse_cleanup_failure(failure) for failure in value["failures"])
    except _MALFORMED as exc:
        raise _malformed(CLEANUP_FAILURES, exc) from None


def write_cleanup_failures(parent_dir: Dir, failures: Sequence[CleanupFailure]) -> None:
    """Write down what a clean-up could not remove, or that it removed everything."""
    with doing(f"Recording what could not be removed in {parent_dir.path}"):
        if not failures:
            _remove(parent_dir, CLEANUP_FAILURES)
            return
        found = [
            {
                "reason": failure.reason[:MAX_REASON_CHARS],
                "repository": failure.in_repository,
                "time": None if failure.time is None else failure.time.to_json(),
            }
            for failure in failures[:_MAX_FAILURES]
        ]
        while len(json.dumps(found)) > _MAX_BYTES - _FRAME_BYTES:
            found.pop()
        _write(parent_dir, CLEANUP_FAILURES, {"failures": found}, durable=True)


def _parse_cleanup_failure(value: Any) -> CleanupFailure:
    reason, time = value["reason"], value.get("time")
    if not isinstance(reason, str):
        raise TypeError("a reason is no text")
    return CleanupFailure(
        printable(reason),
        in_repository=bool(value.get("repository")),
        time=None if time is None else _moment(time),
    )


_MALFORMED = (ValueError, LookupError, TypeError, AttributeError, RecursionError, Error)


def _malformed(name: str, exc: Exception) -> RecordError:
    said = exc.message if isinstance(exc, Error) else repr(exc)
    return RecordError(f"{name} is malformed: {said[:200]}")


def _read(directory: Dir, name: str) -> Any:
    try:
        data = directory.read_bytes(name, _MAX_BYTES)
    except FileNotFoundError:
        return None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise _malformed(name, exc) from None
    if not isinstance(value, dict):
        raise RecordError(f"{name} is malformed: it holds no JSON object")
    return value


def _write(directory: Dir, name: str, value: dict[str, Any], *, durable: bool) -> None:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    atomic.write_file(directory, name, text.encode(), durable=durable)


def _remove(state_dir: Dir, name: str) -> None:
    state_dir.remove_tree(name)
    os.fsync(state_dir.fileno())


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
        # What is written down ends up on terminals.
        raise TypeError(f"{value!r} is no text of one line")
    return value


def _moment(value: object) -> Timestamp:
    moment = Timestamp.parse(_text(value))
    if moment is None:
        raise ValueError(f"{value!r} is no moment")
    return moment
