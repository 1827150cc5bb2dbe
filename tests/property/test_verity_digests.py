"""Any content, fed in any way, by any kernel, has one digest."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bootc.formats._speed import leaves_compiled, leaves_pure
from bootc.formats.digest import Algorithm
from bootc.formats.verity import VerityHasher, verity_digest, verity_digests

SETTINGS = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
#: Lengths near the edges of blocks and of full registers, where mistakes are made.
lengths = st.builds(
    lambda blocks, extra: max(0, blocks * 4096 + extra),
    st.integers(0, 40),
    st.sampled_from([-1, 0, 1]) | st.integers(-4096, 4096),
)


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    seed = draw(st.binary(max_size=4))
    return hashlib.shake_128(seed).digest(draw(lengths))


@SETTINGS
@given(contents(), st.sampled_from(Algorithm), st.integers(1, 32))
def test_compiled_equals_pure(kernel: str, data: bytes, algorithm: Algorithm, units: int) -> None:
    size = units * 128
    assert leaves_compiled(data, algorithm, size) == leaves_pure(data, algorithm, size)


@pytest.mark.usefixtures("hashing")
@SETTINGS
@given(contents(), st.sampled_from(Algorithm), st.lists(lengths, max_size=5))
def test_pieces_do_not_matter(data: bytes, algorithm: Algorithm, pieces: list[int]) -> None:
    hasher = VerityHasher(algorithm)
    start = 0
    for length in pieces:
        hasher.update(data[start : start + length])
        start += length
    hasher.update(data[start:])
    assert hasher.digest() == verity_digest(data, algorithm)


@pytest.mark.usefixtures("hashing")
@SETTINGS
@given(st.lists(contents(), max_size=8), st.sampled_from(Algorithm))
def test_many_at_once(files: list[bytes], algorithm: Algorithm) -> None:
    assert verity_digests(files, algorithm) == [verity_digest(file, algorithm) for file in files]
