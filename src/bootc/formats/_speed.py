"""Chooses between pure Python and the optional compiled hash (ADR 14).

The choice is made once, when this module is imported. ``BOOTC_SPEED=pure`` forbids the
compiled code and ``BOOTC_SPEED=c`` demands it. Without the variable it is used if it is
faster than :mod:`hashlib`. Both give the same bytes; the pure function is the
specification.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from bootc.errors import Error
from bootc.formats.digest import Algorithm

#: What became of the extension: ``built``, ``not built``, or ``broken`` and why.
EXTENSION = "built"
#: The instructions its kernel is made of; None where this processor lacks them.
KERNEL: str | None = None
try:
    import bootc.formats._verity as _verity  # noqa: PLR0402  (tells absent from broken)
except ModuleNotFoundError:
    EXTENSION = "not built"
except ImportError as exc:
    EXTENSION = f"broken: {exc}"
else:
    KERNEL = _verity.KERNEL

Buffer = bytes | bytearray | memoryview

#: Blocks hashed at once, and from how many on that is faster than hashing one after another.
_LANES = {Algorithm.SHA256: (16, 7), Algorithm.SHA512: (8, 3)}


class SpeedChoiceError(Error):
    """The value of ``BOOTC_SPEED`` is unknown, or the demanded code is not available."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The code that hashes blocks, and the reason: ``kernel`` is ``hashlib`` or a CPU feature."""

    kernel: str
    reason: str


def choose(demand: str, extension: str, kernel: str | None) -> Choice:
    """Decide who hashes.

    Args:
        demand: The value of ``BOOTC_SPEED``.
        extension: As :data:`EXTENSION`.
        kernel: As :data:`KERNEL`.

    Raises:
        SpeedChoiceError: the demand is unknown or cannot be met.
    """
    if demand not in ("", "c", "pure"):
        raise SpeedChoiceError(
            f"BOOTC_SPEED is {demand!r}", hint="it may be c, or pure, or not set"
        )
    if demand == "pure":
        return Choice("hashlib", "BOOTC_SPEED=pure")
    if kernel is not None:
        return Choice(kernel, "faster than hashlib on this processor")
    lacking = "it has no kernel for this processor" if extension == "built" else extension
    if demand == "c":
        raise SpeedChoiceError(
            f"BOOTC_SPEED=c demands the compiled extension: {lacking}",
            hint="without BOOTC_SPEED hashlib is used instead",
        )
    return Choice("hashlib", f"compiled extension: {lacking}")


def leaves_pure(data: Buffer, algorithm: Algorithm, block_size: int) -> bytes:
    """Return the digests of all blocks of ``data``, the last one padded with zeros."""
    new = algorithm.new
    end = len(data) - len(data) % block_size
    with memoryview(data) as view:
        digests = [
            new(view[offset : offset + block_size]).digest() for offset in range(0, end, block_size)
        ]
        if end < len(view):
            digests.append(new(bytes(view[end:]).ljust(block_size, b"\0")).digest())
    return b"".join(digests)


def leaves_compiled(data: Buffer, algorithm: Algorithm, block_size: int) -> bytes:
    """Return what :func:`leaves_pure` does; other Python threads run meanwhile."""
    lanes, wins_from = _LANES[algorithm]
    blocks = -(-len(data) // block_size)
    odd = blocks % lanes
    if odd >= wins_from:
        odd = 0
    if odd == blocks:
        return leaves_pure(data, algorithm, block_size)
    hash_blocks = _verity.sha256_blocks if algorithm is Algorithm.SHA256 else _verity.sha512_blocks
    if not odd:
        return hash_blocks(data, block_size)
    cut = (blocks - odd) * block_size
    with memoryview(data) as view:
        return hash_blocks(view[:cut], block_size) + leaves_pure(view[cut:], algorithm, block_size)


CHOICE = choose(os.environ.get("BOOTC_SPEED", ""), EXTENSION, KERNEL)
leaves = leaves_pure if CHOICE.kernel == "hashlib" else leaves_compiled
