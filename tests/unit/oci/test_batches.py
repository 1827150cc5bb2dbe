"""A stream whose objects are stored in batches has the order in which it was written."""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Sequence

import pytest

from bootc.formats import splitstream
from bootc.formats.digest import Algorithm, Digest
from bootc.formats.splitstream import StreamWriter
from bootc.formats.verity import verity_digest
from bootc.oci.batches import BatchedStream
from support.memory import Memory

ALGORITHM = Algorithm.SHA256


def new_stream() -> StreamWriter:
    return StreamWriter(ALGORITHM, splitstream.OCI_LAYER)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [0, 1, 5, 2000])
def test_the_stream_is_what_a_stream_without_batches_is(seed: int, count: int) -> None:
    rng = random.Random(seed)
    plain, memory = new_stream(), Memory()
    with BatchedStream(new_stream(), memory) as batched:
        for number in range(count):
            match rng.randrange(4):
                case 0:
                    data = rng.randbytes(rng.randrange(70_000 if number % 50 == 0 else 600))
                    plain.inline(data)
                    batched.inline(data)
                case 1:
                    data = b"%d" % rng.randrange(300) * rng.choice([20, 1000, 40_000])
                    plain.external(verity_digest(data, ALGORITHM), len(data))
                    batched.content(data)
                case 2:
                    digest = verity_digest(b"kept %d" % number, ALGORITHM)
                    plain.keep(digest)
                    batched.keep(digest)
                case _:
                    digest = verity_digest(b"%d" % number, ALGORITHM)
                    plain.external(digest, number)
                    batched.external(digest, number)
        stream = batched.finish()
    assert stream == plain.finish()
    assert threads() == []


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("bootc-store")]


class Full(Memory):
    """A store that is full after some objects."""

    def put_many(self, contents: Sequence[bytes]) -> list[Digest]:
        if len(self.objects) + len(contents) > 400:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().put_many(contents)


def test_a_fault_of_the_store_is_a_fault_of_the_stream() -> None:
    fault = number = 0
    with BatchedStream(new_stream(), Full()) as batched:
        # What waits is bounded, so the fault comes soon.
        for number in range(2000):
            try:
                batched.content(b"%d" % number * 20)
            except OSError as exc:
                fault = exc.errno or 0
                break
    assert fault == errno.ENOSPC
    assert 400 <= number < 1999
    assert threads() == []


class Slow(Memory):
    """A store that counts the bytes that it is asked to store at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def put_many(self, contents: Sequence[bytes]) -> list[Digest]:
        self.largest = max(self.largest, sum(map(len, contents)))
        return super().put_many(contents)


def test_a_batch_is_bounded() -> None:
    store = Slow()
    with BatchedStream(new_stream(), store) as batched:
        for number in range(40):
            batched.content(bytes([number]) * 300_000)
        batched.finish()
    assert 300_000 <= store.largest < (1 << 20) + 300_000
