"""Digests as types: fs-verity object ids and OCI content digests.

A :class:`Digest` is an fs-verity digest (4 KiB blocks, no salt) and names an
object of a repository or a whole image. An :class:`OciDigest` is the plain hash
of a blob, written ``sha256:<hex>``. Hex appears only at the edges.
"""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from bootc.errors import Error

_HEX = re.compile(r"[0-9a-f]*\Z")
_OCI_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}


class DigestError(Error):
    """A string is not a digest."""


class DigestMismatch(Error):
    """Content is not what its digest or size says. ``actual`` is the digest it has, if known."""

    def __init__(self, message: str, *, hint: str | None = None, actual: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.actual = actual


class Algorithm(enum.Enum):
    """An fs-verity hash algorithm. ``value`` is its number for the kernel and for composefs."""

    SHA256 = 1
    SHA512 = 2

    @property
    def hash_name(self) -> str:
        """Name as hashlib knows it."""
        return self.name.lower()

    @property
    def digest_size(self) -> int:
        """Bytes in a digest."""
        return 32 if self is Algorithm.SHA256 else 64

    @property
    def label(self) -> str:
        """Name in a repository's ``meta.json``."""
        return f"fsverity-{self.hash_name}-12"

    @property
    def new(self) -> Callable[..., hashlib._Hash]:
        """The hashlib constructor."""
        return hashlib.sha256 if self is Algorithm.SHA256 else hashlib.sha512

    @classmethod
    def from_label(cls, label: str) -> Algorithm:
        """Parse a ``meta.json`` algorithm name.

        Raises:
            DigestError: the name is unknown.
        """
        for algorithm in cls:
            if algorithm.label == label:
                return algorithm
        raise DigestError(f"unknown fs-verity algorithm {label!r:.80}")


@dataclass(frozen=True, slots=True)
class Digest:
    """An fs-verity digest: the name of an object, or of a deployment."""

    algorithm: Algorithm
    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != self.algorithm.digest_size:
            raise DigestError(f"{self.algorithm.hash_name} digest of {len(self.raw)} bytes")

    @property
    def hex(self) -> str:
        """Lower-case hex."""
        return self.raw.hex()

    @property
    def object_path(self) -> str:
        """Path below ``objects/``: first byte, slash, the rest."""
        text = self.raw.hex()
        return f"{text[:2]}/{text[2:]}"

    @classmethod
    def from_hex(cls, text: str) -> Digest:
        """Parse lower-case hex; its length picks the algorithm.

        Raises:
            DigestError: wrong length or not lower-case hex.
        """
        if _HEX.match(text):
            for algorithm in Algorithm:
                if len(text) == 2 * algorithm.digest_size:
                    return cls(algorithm, bytes.fromhex(text))
        raise DigestError(f"not an fs-verity digest: {text[:140]!r}")

    def __str__(self) -> str:
        return self.hex


@dataclass(frozen=True, slots=True)
class OciDigest:
    """Content digest of a blob (OCI image specification, "Digests")."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> OciDigest:
        """Parse ``sha256:<hex>`` (or sha384, sha512).

        Raises:
            DigestError: unknown algorithm, wrong length or not lower-case hex.
        """
        algorithm, colon, value = text.partition(":")
        length = _OCI_LENGTHS.get(algorithm)
        if not colon or length is None or len(value) != length or not _HEX.match(value):
            raise DigestError(f"not an OCI digest: {text[:140]!r}")
        return cls(algorithm, value)

    @classmethod
    def of(cls, data: bytes) -> OciDigest:
        """Return the sha256 digest of ``data``."""
        return cls("sha256", hashlib.sha256(data).hexdigest())

    def new(self) -> hashlib._Hash:
        """Return an empty hash object of this digest's algorithm."""
        return hashlib.new(self.algorithm)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def check_digest(what: str, found_hex: str, wanted: OciDigest) -> None:
    """Compare the digest of some content with the one wanted.

    Raises:
        DigestMismatch: they differ.
    """
    if found_hex != wanted.hex:
        actual = f"{wanted.algorithm}:{found_hex}"
        raise DigestMismatch(
            f"{what} has the digest {actual} instead of {wanted}",
            hint="the image is damaged, or was changed on its way here",
            actual=actual,
        )
