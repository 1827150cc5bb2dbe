"""Kernel images of nothing but a header."""

from __future__ import annotations


def bzimage(release: str) -> bytes:
    """Return what a kernel of x86 begins with, and states as its release."""
    image = bytearray(0x400)
    image[:2] = b"MZ"
    image[0x202:0x206] = b"HdrS"
    image[0x20E:0x210] = (0x200).to_bytes(2, "little")
    return bytes(image) + release.encode() + b" (builder@host) #1 SMP\0"
