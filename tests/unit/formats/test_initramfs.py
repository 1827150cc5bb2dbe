"""Names come out of every kind of initramfs that is made, and nothing worse out of others."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from bootc.formats.initramfs import MAX_BYTES, InitramfsError, initramfs_names
from support import require
from support.initramfs import archive, member, named

EARLY = named(["kernel/x86/microcode/AuthenticAMD.bin"])
MAIN = archive(("init", b"#!/bin/sh\n"), ("./usr/lib/a", b"12345"), ("/etc/b", b""))
NAMES = [b"init", b"usr/lib/a", b"etc/b"]

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "zstd": zstandard.ZstdCompressor().compress,
}


def names(data: bytes, max_bytes: int = MAX_BYTES) -> list[bytes]:
    return list(initramfs_names(io.BytesIO(data).read, max_bytes=max_bytes))


def refusal(data: bytes, max_bytes: int = MAX_BYTES) -> str:
    with pytest.raises(InitramfsError) as caught:
        names(data, max_bytes)
    return caught.value.message


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_compressions(compression: str) -> None:
    compress = COMPRESSIONS[compression]
    assert names(compress(MAIN)) == NAMES
    early = [b"kernel/x86/microcode/AuthenticAMD.bin"]
    assert names(EARLY + bytes(500) + compress(bytes(8) + MAIN + MAIN)) == early + NAMES * 2


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_whatever_is_cut_off_is_an_error(compression: str) -> None:
    whole = COMPRESSIONS[compression](MAIN)
    for size in range(1, len(whole) - 40):
        assert " at offset " in refusal(whole[:size])


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_damage_is_an_error_or_other_names(compression: str) -> None:
    whole = bytearray(COMPRESSIONS[compression](MAIN))
    dice = random.Random(1)
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        with contextlib.suppress(InitramfsError):
            names(bytes(damaged))


def test_nothing() -> None:
    assert names(b"") == names(bytes(10_000_000)) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"vmlinuz", "neither cpio nor a known compression (766d6c696e75) at offset 0"),
        (MAIN[:50], "truncated at offset 50"),
        (member("a", b"1") + bytes(200), "no header of a file at offset 116"),
        (b"070701" + b"z" * 104, "a header with wrong numbers at offset 0"),
        (b"070701" + b"f" * 104, "a header with wrong numbers at offset 0"),
        (
            gzip.compress(b"no archive", mtime=0),
            "no cpio archive in the compressed data at offset 0",
        ),
        (gzip.compress(MAIN, mtime=0)[:-9], "truncated gzip data at offset "),
    ],
)
def test_refusals(data: bytes, message: str) -> None:
    assert refusal(data).startswith(f"bad initramfs: {message}")


@pytest.mark.parametrize("compression", ["gzip", "bzip2", "xz", "zstd"])
def test_a_bomb_is_given_up(compression: str) -> None:
    bomb = COMPRESSIONS[compression](bytes(1 << 24))
    assert refusal(bomb, 1 << 20).startswith("bad initramfs: more than 1048576 bytes at offset ")


@pytest.mark.interop
@pytest.mark.parametrize("compressor", ["gzip -9n", "bzip2", "xz --check=crc32", "zstd -q -19 -T0"])
def test_cpio_and_the_compressors_of_initramfs_generators(compressor: str, tmp_path: Path) -> None:
    for tool in ("cpio", compressor.split()[0]):
        require.tool(tool)
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/é").write_bytes(bytes(5001))
    (tmp_path / "usr/lib/link").symlink_to("é")
    script = f"find . | LC_ALL=C sort | cpio --quiet -o -H newc | {compressor}"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True, stdout=subprocess.PIPE)
    assert names(done.stdout) == [b".", b"usr", b"usr/lib", b"usr/lib/link", "usr/lib/é".encode()]
