"""The fs-verity digest of a byte stream, as the kernel computes it.

Blocks of 4 KiB, no salt. The Merkle tree grows while the stream passes, so memory
stays bounded however long the stream is. Blocks are hashed by :mod:`bootc.formats._speed`.

Source: Linux Documentation/filesystems/fsverity.rst ("Merkle tree", "fs-verity
descriptor"); composefs calls these parameters ``fsverity-<hash>-12``.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bootc.formats import _speed
from bootc.formats.digest import Algorithm, Digest

if TYPE_CHECKING:
    import mmap

    _Buffer = bytes | bytearray | memoryview | mmap.mmap

BLOCK_SIZE = 4096

#: Version, hash algorithm, log2 of the block size, salt length, reserved, data size,
#: root hash, salt, reserved.
_DESCRIPTOR = struct.Struct("<BBBB4xQ64s32x144x")
assert _DESCRIPTOR.size == 256

#: Shorter pieces are gathered to this length: enough blocks to be hashed at once.
_GATHER = 16 * BLOCK_SIZE
#: Bytes hashed between two feedings of the tree: bounds the leaf digests held at once.
_BATCH = 256 * BLOCK_SIZE


class VerityHasher:
    """Computes the fs-verity digest of what is fed to :meth:`update`.

    >>> hasher = VerityHasher(Algorithm.SHA256)
    >>> hasher.update(b"hello ")
    >>> hasher.update(b"world")
    >>> hasher.digest().hex[:16]
    '1e2eaa4202d750a4'
    """

    __slots__ = ("_levels", "_pending", "algorithm", "size_bytes")

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm
        self.size_bytes = 0
        self._pending = bytearray()
        # Level 0 holds digests of data blocks, level n + 1 digests of blocks of level n;
        # each less than one block, since a full one is hashed into the next level at once.
        self._levels: list[bytearray] = []

    def update(self, data: _Buffer) -> None:
        """Feed the next bytes; slices of any length give the same digest."""
        with memoryview(data) as whole, whole.cast("B") as view:
            self.size_bytes += len(view)
            start = 0
            if self._pending or len(view) < _GATHER:
                start = min(_GATHER - len(self._pending), len(view))
                self._pending += view[:start]
                if len(self._pending) < _GATHER:
                    return
                self._push(0, self._hash(self._pending))
                self._pending.clear()
            end = len(view) - (len(view) - start) % _GATHER
            for offset in range(start, end, _BATCH):
                self._push(0, self._hash(view[offset : min(offset + _BATCH, end)]))
            self._pending += view[end:]

    def update_zeros(self, count: int) -> None:
        """Feed ``count`` zero bytes, for a hole of a file, in very little time."""
        align = min(-len(self._pending) % _GATHER, count)
        self.update(bytes(align))
        blocks, rest = divmod(count - align, BLOCK_SIZE)
        if blocks:
            self.size_bytes += blocks * BLOCK_SIZE
            self._push_run(0, self._hash(bytes(BLOCK_SIZE)), blocks)
        self.update(bytes(rest))

    def digest(self) -> Digest:
        """Return the digest of everything fed so far; feeding may go on afterwards."""
        descriptor = _descriptor(self.algorithm, self.size_bytes, self._root())
        return Digest(self.algorithm, self.algorithm.new(descriptor).digest())

    def _hash(self, blocks: _speed.Buffer) -> bytes:
        return _speed.leaves(blocks, self.algorithm, BLOCK_SIZE)

    def _push(self, level: int, digests: bytes) -> None:
        """Append digests to a level, hashing each block that gets full into the next."""
        if level == len(self._levels):
            self._levels.append(bytearray())
        held = self._levels[level]
        held += digests
        full = len(held) - len(held) % BLOCK_SIZE
        if full:
            blocks = bytes(held[:full])
            del held[:full]
            self._push(level + 1, self._hash(blocks))

    def _push_run(self, level: int, digest: bytes, count: int) -> None:
        """Append one digest many times. All full blocks of it have the same digest."""
        in_block = BLOCK_SIZE // len(digest)
        held = len(self._levels[level]) // len(digest) if level < len(self._levels) else 0
        align = min(-held % in_block, count)
        self._push(level, digest * align)
        blocks, rest = divmod(count - align, in_block)
        if blocks:
            self._push_run(level + 1, self._hash(digest * in_block), blocks)
        self._push(level, digest * rest)

    def _root(self) -> bytes:
        """Close copies of all levels from the bottom, each partial block padded with zeros."""
        *lower, highest = self._levels or [bytearray()]
        digests = self._hash(self._pending)
        for held in lower:
            digests = self._hash(held + digests)
        digests = bytes(highest + digests)
        while len(digests) > self.algorithm.digest_size:
            digests = self._hash(digests)
        return digests


def _descriptor(algorithm: Algorithm, size_bytes: int, root: bytes) -> bytes:
    return _DESCRIPTOR.pack(1, algorithm.value, 12, 0, size_bytes, root)


def verity_digest(data: _Buffer, algorithm: Algorithm) -> Digest:
    """Return the fs-verity digest of ``data``."""
    hasher = VerityHasher(algorithm)
    hasher.update(data)
    return hasher.digest()


def verity_digests(files: Sequence[bytes], algorithm: Algorithm) -> list[Digest]:
    """Return the digest of each of many small files, hashed together level by level.

    A block of one file alone leaves most lanes of the compiled kernel empty; blocks of many
    fill them. The contents are copied once: give large files to :class:`VerityHasher`.
    """
    size = algorithm.digest_size
    levels = list(files)
    # A file is done when its level is one digest; the empty one has the root of zeros. The
    # content of a file is no digest, however long, so each is hashed at least once.
    todo = [index for index, content in enumerate(files) if content]
    while todo:
        padded = b"".join(levels[i] + bytes(-len(levels[i]) % BLOCK_SIZE) for i in todo)
        digests = _speed.leaves(padded, algorithm, BLOCK_SIZE)
        start = 0
        for i in todo:
            end = start + size * -(-len(levels[i]) // BLOCK_SIZE)
            levels[i] = digests[start:end]
            start = end
        todo = [i for i in todo if len(levels[i]) > size]
    descriptors = b"".join(
        _descriptor(algorithm, len(content), root)
        for content, root in zip(files, levels, strict=True)
    )
    digests = _speed.leaves(descriptors, algorithm, _DESCRIPTOR.size)
    return [
        Digest(algorithm, digests[start : start + size]) for start in range(0, len(digests), size)
    ]
