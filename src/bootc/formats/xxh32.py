"""XXH32, the hash behind the xattr name filter of EROFS.

Names are short, so plain Python is enough. Source: the xxHash fast digest
algorithm specification, version 0.1.1, section "XXH32".
"""

from __future__ import annotations

import struct

_P1, _P2, _P3, _P4, _P5 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1
_MASK = 0xFFFFFFFF
_STRIPE = struct.Struct("<4I")
_LANE = struct.Struct("<I")


def xxh32(data: bytes, seed: int) -> int:
    """Return the 32-bit hash of ``data``.

    >>> hex(xxh32(b"", 0))
    '0x2cc5d05'
    """
    offset = 0
    if len(data) >= 16:
        lanes = [seed + _P1 + _P2, seed + _P2, seed, seed - _P1]
        while offset + 16 <= len(data):
            for i, word in enumerate(_STRIPE.unpack_from(data, offset)):
                lanes[i] = _rotl(lanes[i] + word * _P2, 13) * _P1
            offset += 16
        value = sum(_rotl(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18), strict=True))
    else:
        value = seed + _P5
    value += len(data)
    while offset + 4 <= len(data):
        value = _rotl(value + _LANE.unpack_from(data, offset)[0] * _P3, 17) * _P4
        offset += 4
    for byte in data[offset:]:
        value = _rotl(value + byte * _P5, 11) * _P1
    value &= _MASK
    value = (value ^ value >> 15) * _P2 & _MASK
    value = (value ^ value >> 13) * _P3 & _MASK
    return value ^ value >> 16


def _rotl(value: int, by: int) -> int:
    value &= _MASK
    return value << by | value >> 32 - by
