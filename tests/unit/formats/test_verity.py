from __future__ import annotations

import mmap
import tracemalloc

import pytest

from bootc.formats.digest import Algorithm
from bootc.formats.verity import BLOCK_SIZE, VerityHasher, verity_digest, verity_digests

pytestmark = pytest.mark.usefixtures("hashing")

ZEROS_4097 = "093756e4ea9683329106d4a16982682ed182c14bf076463a9e7f97305cbac743"


@pytest.mark.parametrize(
    ("data", "sha256"),
    [
        (b"", "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95"),
        (b"hello world", "1e2eaa4202d750a41174ee454970b92c1bc2f925b1e35076d8c7d5f56362ba64"),
        (bytes(4095), "5372beb83c78537c8970c8361e3254119fafdf1763854ecd57d3f0fe2da7c719"),
        (bytes(4096), "babc284ee4ffe7f449377fbf6692715b43aec7bc39c094a95878904d34bac97e"),
        (bytes(4097), ZEROS_4097),
    ],
    ids=["empty", "hello", "4095", "4096", "4097"],
)
def test_pinned_sha256(data: bytes, sha256: str) -> None:
    assert verity_digest(data, Algorithm.SHA256).hex == sha256


@pytest.mark.parametrize(
    ("data", "sha512"),
    [
        (
            b"",
            "ccf9e5aea1c2a64efa2f2354a6024b90dffde6bbc017825045dce374474e13d1"
            "0adb9dadcc6ca8e17a3c075fbd31336e8f266ae6fa93a6c3bed66f9e784e5abf",
        ),
        (
            b"hello world",
            "18430270729d162d4e469daca123ae61893db4b0583d8f7081e3bf4f92b88ba5"
            "14e7982f10733fb6aa895195c5ae8fd2eb2c47a8be05513ce5a0c51a6f570409",
        ),
    ],
    ids=["empty", "hello"],
)
def test_pinned_sha512(data: bytes, sha512: str) -> None:
    assert verity_digest(data, Algorithm.SHA512).hex == sha512


def by_the_book(data: bytes, algorithm: Algorithm) -> str:
    """The definition, level after level over the whole content."""
    new = algorithm.new
    level = data
    root = bytes(algorithm.digest_size)
    while level:
        digests = [
            new(level[i : i + BLOCK_SIZE].ljust(BLOCK_SIZE, b"\0")).digest()
            for i in range(0, len(level), BLOCK_SIZE)
        ]
        root = digests[0]
        level = b"".join(digests) if len(digests) > 1 else b""
    descriptor = bytes([1, algorithm.value, 12, 0, 0, 0, 0, 0]) + len(data).to_bytes(8, "little")
    return new((descriptor + root).ljust(256, b"\0")).hexdigest()


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("extra", [-1, 0, 1])
@pytest.mark.parametrize("blocks", [1, 2, 63, 64, 65, 128, 129, 64 * 64, 64 * 64 + 64])
def test_edges_of_levels(algorithm: Algorithm, blocks: int, extra: int) -> None:
    data = bytes(range(251)) * ((blocks * BLOCK_SIZE + extra) // 251 + 1)
    data = data[: blocks * BLOCK_SIZE + extra]
    assert verity_digest(data, algorithm).hex == by_the_book(data, algorithm)


def test_two_full_levels_of_sha256() -> None:
    data = bytes(128 * 128 * BLOCK_SIZE)
    assert verity_digest(data, Algorithm.SHA256).hex == by_the_book(data, Algorithm.SHA256)


@pytest.mark.parametrize("step", [1, 4095, 4096, 4097, 10000, 65535, 65536, 65537, 70000])
def test_slices_do_not_matter(step: int) -> None:
    data = bytes(i * 7 % 256 for i in range(140_000))
    hasher = VerityHasher(Algorithm.SHA256)
    for offset in range(0, len(data), step):
        hasher.update(data[offset : offset + step])
    assert hasher.digest() == verity_digest(data, Algorithm.SHA256)
    assert hasher.size_bytes == len(data)


def test_digest_does_not_end_the_stream() -> None:
    hasher = VerityHasher(Algorithm.SHA256)
    hasher.update(bytes(4096))
    first = hasher.digest()
    hasher.update(bytes(1))
    assert first == verity_digest(bytes(4096), Algorithm.SHA256)
    assert hasher.digest().hex == ZEROS_4097


def test_a_stream_can_be_asked_at_any_point() -> None:
    data = bytes(i * 11 % 256 for i in range(300_000))
    hasher = VerityHasher(Algorithm.SHA512)
    for start in range(0, len(data), 9_973):
        hasher.update(data[start : start + 9_973])
        end = min(start + 9_973, len(data))
        assert hasher.digest().hex == by_the_book(data[:end], Algorithm.SHA512)


@pytest.mark.parametrize("algorithm", Algorithm)
def test_many_files_at_once(algorithm: Algorithm) -> None:
    sizes = [0, 1, 32, 64, 65, 4095, 4096, 4097, 0, 64 * 4096, 64 * 4096 + 1, 129 * 4096]
    files = [bytes(i % 256 for i in range(size)) for size in sizes]
    assert verity_digests(files, algorithm) == [verity_digest(file, algorithm) for file in files]
    assert verity_digests([], algorithm) == []


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer(kind: type) -> None:
    assert verity_digest(kind(bytes(4097)), Algorithm.SHA256).hex == ZEROS_4097


def test_mapped_memory_is_let_go() -> None:
    with mmap.mmap(-1, 4097) as mapped:
        assert verity_digest(mapped, Algorithm.SHA256).hex == ZEROS_4097
    assert mapped.closed


def test_memory_is_constant() -> None:
    data = memoryview(bytes(64 << 20))
    tracemalloc.start()
    try:
        verity_digest(data, Algorithm.SHA512)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 18
