"""Names of the two implementations of composefs, which disagree in places.

bootc's own images follow composefs-rs. Only the commands that stand in for the tools of
libcomposefs follow the C implementation (:mod:`bootc.formats.libcomposefs`).
"""

from __future__ import annotations

import enum


class Dialect(enum.Enum):
    """An implementation of composefs."""

    #: The rules of bootc's own images and digests.
    RUST = "composefs-rs"
    #: The rules of ``mkcomposefs`` and ``composefs-info``, version 1.0.
    C = "libcomposefs"
