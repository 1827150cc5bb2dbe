"""The seam to the compiled kernel: who is chosen, and that both give the same bytes."""

from __future__ import annotations

import hashlib
import mmap
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable

import pytest

from bootc.formats._speed import Choice, SpeedChoiceError, choose, leaves_compiled, leaves_pure
from bootc.formats.digest import Algorithm

BYTES = hashlib.shake_128(b"blocks").digest(50 * 4096)


@pytest.fixture
def blocks_functions(kernel: str) -> dict[Algorithm, Callable[..., bytes]]:
    from bootc.formats import _verity

    return {Algorithm.SHA256: _verity.sha256_blocks, Algorithm.SHA512: _verity.sha512_blocks}


@pytest.mark.parametrize(
    ("demand", "extension", "kernel", "expected"),
    [
        ("", "built", "avx512", Choice("avx512", "faster than hashlib on this processor")),
        (
            "",
            "built",
            None,
            Choice("hashlib", "compiled extension: it has no kernel for this processor"),
        ),
        ("", "not built", None, Choice("hashlib", "compiled extension: not built")),
        ("", "broken: x", None, Choice("hashlib", "compiled extension: broken: x")),
        ("c", "built", "avx512", Choice("avx512", "faster than hashlib on this processor")),
        ("pure", "built", "avx512", Choice("hashlib", "BOOTC_SPEED=pure")),
        ("pure", "not built", None, Choice("hashlib", "BOOTC_SPEED=pure")),
    ],
)
def test_who_hashes(demand: str, extension: str, kernel: str | None, expected: Choice) -> None:
    assert choose(demand, extension, kernel) == expected


@pytest.mark.parametrize(
    ("demand", "extension", "message"),
    [
        ("c", "not built", "BOOTC_SPEED=c demands the compiled extension: not built"),
        (
            "c",
            "built",
            "BOOTC_SPEED=c demands the compiled extension: it has no kernel for this processor",
        ),
        ("fast", "built", "BOOTC_SPEED is 'fast'"),
    ],
)
def test_what_cannot_be_had_is_an_error(demand: str, extension: str, message: str) -> None:
    with pytest.raises(SpeedChoiceError) as caught:
        choose(demand, extension, None)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("demand", "function"), [("pure", "leaves_pure"), ("c", "leaves_compiled")]
)
def test_the_environment_decides(
    demand: str, function: str, request: pytest.FixtureRequest
) -> None:
    if demand == "c":
        request.getfixturevalue("kernel")
    code = "from bootc.formats import _speed; print(_speed.leaves.__name__)"
    out = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"BOOTC_SPEED": demand},
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout == f"{function}\n"


@pytest.mark.parametrize("algorithm", Algorithm)
def test_pure_is_the_definition(algorithm: Algorithm) -> None:
    new = algorithm.new
    assert leaves_pure(b"", algorithm, 4096) == b""
    assert leaves_pure(BYTES[:5000], algorithm, 4096) == (
        new(BYTES[:4096]).digest() + new(BYTES[4096:5000] + bytes(3192)).digest()
    )


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("block_size", [128, 256, 4096])
@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_every_number_of_lanes(
    blocks_functions, algorithm: Algorithm, block_size: int, extra: int
) -> None:
    for blocks in range(1, 36):
        data = BYTES[: blocks * block_size + extra]
        expected = leaves_pure(data, algorithm, block_size)
        assert blocks_functions[algorithm](data, block_size) == expected
        assert leaves_compiled(data, algorithm, block_size) == expected


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("shift", [1, 3, 8, 63])
def test_unaligned_memory(blocks_functions, algorithm: Algorithm, shift: int) -> None:
    view = memoryview(BYTES)[shift : shift + 70_000]
    assert blocks_functions[algorithm](view, 4096) == leaves_pure(view, algorithm, 4096)


@pytest.mark.parametrize("block_size", [-128, 0, 1, 64, 4095, 4224, sys.maxsize])
def test_a_wrong_block_size_is_refused(blocks_functions, block_size: int) -> None:
    for function in blocks_functions.values():
        with pytest.raises(ValueError, match=f"block size {block_size} "):
            function(BYTES, block_size)


def test_what_is_no_plain_memory_is_refused(blocks_functions) -> None:
    for function in blocks_functions.values():
        with pytest.raises(TypeError):
            function("text", 4096)
        with pytest.raises(TypeError):
            function(BYTES)
        with pytest.raises(BufferError):
            function(memoryview(BYTES)[::2], 4096)


def test_memory_is_let_go(blocks_functions) -> None:
    for function in blocks_functions.values():
        held = bytearray(BYTES)
        function(held, 4096)
        with pytest.raises(ValueError, match="block size"):
            function(held, 7)
        held.clear()  # a BufferError if an export were left
        with mmap.mmap(-1, 40_000) as mapped, memoryview(mapped) as view:
            function(view, 4096)


def test_nothing_leaks(blocks_functions) -> None:
    for function in blocks_functions.values():
        references = sys.getrefcount(BYTES)
        tracemalloc.start()
        try:
            for _ in range(200):
                function(BYTES, 4096)
            remaining, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert sys.getrefcount(BYTES) == references
        assert remaining < 4096


def test_other_threads_run_meanwhile(blocks_functions) -> None:
    """With a switch interval of hours, another thread runs only when the GIL is given up."""
    data = bytes(16 << 20)
    gate, other_ran = threading.Lock(), []
    gate.acquire()
    waiting = threading.Event()

    def other() -> None:
        waiting.set()
        with gate:
            other_ran.append(True)

    thread = threading.Thread(target=other)
    thread.start()
    waiting.wait()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(10_000)
    try:
        gate.release()
        calls = 0
        while not other_ran and calls < 1000:
            blocks_functions[Algorithm.SHA512](data, 4096)
            calls += 1
    finally:
        sys.setswitchinterval(interval)
        thread.join()
    assert calls < 1000


def test_threads_do_not_disturb_each_other(blocks_functions) -> None:
    data = BYTES * 4
    found: list[bytes] = []

    def hash_it(algorithm: Algorithm) -> None:
        expected = leaves_pure(data, algorithm, 4096)
        found.extend(
            digests
            for _ in range(10)
            if (digests := blocks_functions[algorithm](data, 4096)) != expected
        )

    threads = [threading.Thread(target=hash_it, args=(a,)) for a in (*Algorithm, *Algorithm)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == []
