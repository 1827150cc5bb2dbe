"""Time and memory are bounded by the input's size, whatever the input is made of.

Each input is a quarter of a megabyte of what a careless parser would take the square of
that time for, or much memory. A linear one takes a second, a quadratic one hours.
"""

from __future__ import annotations

import tracemalloc

import pytest

from fuzz.targets import TARGETS
from support import initramfs

INPUT_BYTES = 1 << 18
#: Bytes of Python objects for each byte of input: one small string a character.
MOST_MEMORY = 64

ROOT = b"/ 0 40755 1 0 0 0 0.0 - - -"
BLS = b"version 1\nlinux /v\n"
ORIGIN = b"[boot]\nboot_type=bls\n"
SECTIONS = bytes(60) + b"\x40\0\0\0PE\0\0\0\0" + (6000).to_bytes(2, "little") + bytes(16)


def filled(start: bytes, unit: bytes, end: bytes = b"") -> bytes:
    """Return input made of ``unit`` between start and end."""
    return start + unit * ((INPUT_BYTES - len(start) - len(end)) // len(unit)) + end


def numbered(start: bytes, unit: bytes) -> bytes:
    """Return input in which every unit is another one."""
    return start + b"".join(unit % n for n in range(INPUT_BYTES // (len(unit) + 3)))


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("bls", filled(b"version ", b"1.", b"\nlinux /v\n")),
        ("bls", filled(BLS, b"initrd /a\n")),
        ("bls", filled(b"version 1\nlinux", b" \t", b"v\n")),
        ("cmdline", filled(b"", b"a=1 ")),
        ("cmdline", filled(b"", b'"')),
        ("dumpfile", numbered(ROOT + b"\n", b"/%d 0 40755 1 0 0 0 0.0 - - -\n")),
        ("dumpfile", numbered(ROOT, b" user.%d=v")),
        ("dumpfile", filled(ROOT + b"\n/a 1 100644 1 0 0 0 0.0 - ", b"\\x41", b" -\n")),
        ("grubcfg", filled(b"", b'menuentry "t" {}\n')),
        ("grubcfg", filled(b'menuentry "t" {', b"{}", b"}")),
        ("grubcfg", filled(b'menuentry "t" {', b"a b\n", b"}")),
        ("grubcfg", filled(b'menuentry "', b"\\a")),
        ("grubcfg", filled(b"", b"\n \t")),
        ("imgref", filled(b"", b"oci:")),
        ("initramfs", filled(b"", b"\0")),
        ("initramfs", filled(b"", initramfs.member("a", b""))),
        ("metadata", filled(b'{"version":', b"[")),
        ("ocispec", filled(b'{"schemaVersion":2,"manifests":[', b"{},", b"{}]}")),
        ("ocispec", filled(b"", b'{"a":')),
        ("origin", numbered(ORIGIN, b"key%d=v\n")),
        ("origin", filled(ORIGIN, b"[a]\n")),
        ("osrelease", filled(b'ID="', b"\\a")),
        ("osrelease", filled(b"", b"A=\n")),
        ("pe", numbered(SECTIONS, b"%08d" + bytes(32))),
        ("sigpolicy", filled(b'{"default":', b"[")),
        ("sigpolicy", filled(b'{"default":[', b'{"type":"reject"},', b'{"type":"reject"}]}')),
        ("splitstream-unpacked", filled(b"\0\0", bytes(8))),
        ("splitstream-unpacked", filled(b"", b"0:a\0", b"\0\0")),
        ("tar-with-checksums", filled(b"", b"ustar".rjust(262, b"a").ljust(512, b"\0"))),
    ],
)
def test_large_input(name: str, data: bytes) -> None:
    tracemalloc.start()
    try:
        TARGETS[name].run(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MOST_MEMORY * len(data)
