"""The files by which upstream's program records deployments on A/B partitions.

They are in ``state/boot/aboot/``:

===============  ===============================================================
``pending``      the staged deployment, and the SHA-256 of its payload
``attempted``    the deployment that a shutdown began to write, and in which boot
``rollback``     the deployment that a rollback chose, and in which boot
``slots/a``      the deployment that was seen booted from the slot, in hex
===============  ===============================================================

The first three are canonical JSON.

Source: bootc 1.17.5, its A/B backend.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from bootc.errors import Error
from bootc.formats.digest import Digest, DigestError

_T = TypeVar("_T")
#: A boot id and a SHA-256 are shorter.
_MAX_TEXT = 128


class AbootRecordError(Error):
    """A record of the A/B backend is malformed."""


@dataclass(frozen=True, slots=True)
class Pending:
    """The staged deployment.

    Attributes:
        deployment: The deployment.
        payload_sha256: The SHA-256 of its unified kernel image, in hex.
    """

    deployment: Digest
    payload_sha256: str

    def to_bytes(self) -> bytes:
        """Return the content of the file.

        After a power cut upstream's program stages the deployment again by this record. The
        record cannot tell whether the user wanted it held back, so it says that.
        """
        return _canonical(
            boot_image_sha256=self.payload_sha256,
            depl_id=self.deployment.hex,
            finalization_locked=True,
            vbmeta_image_sha256=None,
        )

    @classmethod
    def parse(cls, data: bytes) -> Pending:
        """Read the content of the file.

        Raises:
            AbootRecordError: it is malformed.
        """
        return _parsed(
            data, lambda v: cls(Digest.from_hex(v["depl_id"]), _text(v["boot_image_sha256"]))
        )


@dataclass(frozen=True, slots=True)
class Chosen:
    """A deployment that a command chose: the content of ``attempted`` and ``rollback``.

    Attributes:
        deployment: The deployment.
        boot_id: The boot in which the command ran.
    """

    deployment: Digest
    boot_id: str

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        return _canonical(boot_id=self.boot_id, depl_id=self.deployment.hex)

    @classmethod
    def parse(cls, data: bytes) -> Chosen:
        """Read the content of the file.

        Raises:
            AbootRecordError: it is malformed.
        """
        return _parsed(data, lambda v: cls(Digest.from_hex(v["depl_id"]), _text(v["boot_id"])))


@dataclass(frozen=True, slots=True)
class Order:
    """The deployments in their next order: a file of this program, which upstream ignores."""

    deployments: tuple[Digest, ...]

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        return _canonical(depl_ids=[deployment.hex for deployment in self.deployments])

    @classmethod
    def parse(cls, data: bytes) -> Order:
        """Read the content of the file.

        Raises:
            AbootRecordError: it is malformed.
        """
        return _parsed(data, lambda v: cls(tuple(map(Digest.from_hex, v["depl_ids"]))))


def _canonical(**values: Any) -> bytes:
    return json.dumps(values, separators=(",", ":"), sort_keys=True).encode()


def _parsed(data: bytes, make: Callable[[Any], _T]) -> _T:
    try:
        return make(json.loads(data))
    except (ValueError, RecursionError, LookupError, TypeError, DigestError) as exc:
        raise AbootRecordError(f"it is no record of a staged deployment: {exc!r:.200}") from None


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise TypeError("a text is missing")
    return value
