"""Whose rules hold where composefs's two implementations disagree.

What bootc writes follows composefs-rs, always. Only the tools that stand in for those of
libcomposefs follow the C implementation, so that their output is the same.
"""

from __future__ import annotations

import enum


class Dialect(enum.Enum):
    """An implementation of composefs."""

    #: composefs-rs: what bootc's images and digests are made by.
    RUST = "composefs-rs"
    #: libcomposefs 1.0: ``mkcomposefs``, ``composefs-info``.
    C = "libcomposefs"
