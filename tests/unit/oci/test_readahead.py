"""An iterator that runs in a thread, a little ahead."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator

import pytest

from bootc.oci.readahead import ReadAhead

CHUNKS = [b"%d" % number for number in range(100)]


def alive() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "bootc-read-ahead"]


@pytest.mark.parametrize("count", [0, 1, 3, 100])
def test_the_chunks_arrive_in_their_order(count: int) -> None:
    with ReadAhead((chunk for chunk in CHUNKS[:count]), limit_bytes=3) as chunks:
        assert list(chunks) == CHUNKS[:count]
        assert next(chunks, None) is None
    assert alive() == []


def test_it_is_a_bounded_number_of_bytes_ahead() -> None:
    made = []

    def make() -> Generator[bytes, None, None]:
        for chunk in CHUNKS:
            made.append(chunk)
            yield chunk

    with ReadAhead(make(), limit_bytes=3) as chunks:
        assert next(chunks) == CHUNKS[0]
        until = time.monotonic() + 10
        while len(made) < 4 and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.2)
        # One was taken, and three bytes wait.
        assert len(made) == 4
    assert alive() == []


def test_an_exception_comes_in_its_place_and_ends_it() -> None:
    def make() -> Generator[bytes, None, None]:
        yield b"a"
        raise OSError(5, "broken")

    with ReadAhead(make()) as chunks:
        assert next(chunks) == b"a"
        with pytest.raises(OSError, match="broken"):
            next(chunks)
        assert next(chunks, None) is None
    assert alive() == []


def test_a_reader_that_leaves_ends_the_thread() -> None:
    closed = threading.Event()

    def make() -> Generator[bytes, None, None]:
        try:
            while True:
                yield bytes(10)
        finally:
            closed.set()

    with ReadAhead(make(), limit_bytes=2) as chunks:
        next(chunks)
    assert alive() == []
    assert closed.wait(10)


def test_an_interrupted_reader_does_not_wait_for_the_source() -> None:
    goes_on = threading.Event()

    def make() -> Generator[bytes, None, None]:
        yield b"a"
        goes_on.wait(60)
        yield b"b"

    def interrupted() -> None:
        with ReadAhead(make()) as chunks:
            next(chunks)
            raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - start < 30
    goes_on.set()
    until = time.monotonic() + 30
    while alive() and time.monotonic() < until:
        time.sleep(0.01)
    assert alive() == []
