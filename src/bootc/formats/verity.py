"""The fs-verity digest of a byte stream, as the kernel computes it.

Blocks of 4 KiB, no salt. The Merkle tree grows while the stream passes, so memory
stays at one block a level however long the stream is.

Source: Linux Documentation/filesystems/fsverity.rst ("Merkle tree", "fs-verity
descriptor"); composefs calls these parameters ``fsverity-<hash>-12``.
"""

from __future__ import annotations

import mmap
import struct

from bootc.formats.digest import Algorithm, Digest

BLOCK_SIZE = 4096

#: Version, hash algorithm, log2 of the block size, salt length, reserved, data size,
#: root hash, salt, reserved.
_DESCRIPTOR = struct.Struct("<BBBB4xQ64s32x144x")
assert _DESCRIPTOR.size == 256

#: Bytes hashed between two feedings of the tree: bounds the leaf digests held at once.
_BATCH = 256 * BLOCK_SIZE

_Buffer = bytes | bytearray | memoryview | mmap.mmap


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
            if self._pending:
                start = min(BLOCK_SIZE - len(self._pending), len(view))
                self._pending += view[:start]
                if len(self._pending) < BLOCK_SIZE:
                    return
                self._push(0, self.algorithm.new(self._pending).digest())
                self._pending.clear()
            end = len(view) - (len(view) - start) % BLOCK_SIZE
            new = self.algorithm.new
            for batch in range(start, end, _BATCH):
                leaves = [
                    new(view[offset : offset + BLOCK_SIZE]).digest()
                    for offset in range(batch, min(batch + _BATCH, end), BLOCK_SIZE)
                ]
                self._push(0, b"".join(leaves))
            self._pending += view[end:]

    def digest(self) -> Digest:
        """Return the digest of everything fed so far; feeding may go on afterwards."""
        descriptor = _DESCRIPTOR.pack(1, self.algorithm.value, 12, 0, self.size_bytes, self._root())
        return Digest(self.algorithm, self.algorithm.new(descriptor).digest())

    def _push(self, level: int, digests: bytes) -> None:
        """Append digests to a level, hashing each block that gets full into the next."""
        if level == len(self._levels):
            self._levels.append(bytearray())
        held = self._levels[level]
        held += digests
        full = len(held) - len(held) % BLOCK_SIZE
        if full:
            new = self.algorithm.new
            blocks = [
                new(held[offset : offset + BLOCK_SIZE]).digest()
                for offset in range(0, full, BLOCK_SIZE)
            ]
            del held[:full]
            self._push(level + 1, b"".join(blocks))

    def _root(self) -> bytes:
        """Close copies of all levels from the bottom, each partial block padded with zeros."""
        new = self.algorithm.new
        carry = b""
        if self._pending:
            carry = new(self._pending.ljust(BLOCK_SIZE, b"\0")).digest()
        for level, held in enumerate(self._levels):
            block = bytes(held) + carry
            if level == len(self._levels) - 1 and len(block) == self.algorithm.digest_size:
                return block
            carry = new(block.ljust(BLOCK_SIZE, b"\0")).digest() if block else b""
        # Either no level exists (the file is empty or one partial block), or the highest
        # level held several digests and has just been hashed into one.
        return carry


def verity_digest(data: _Buffer, algorithm: Algorithm) -> Digest:
    """Return the fs-verity digest of ``data``."""
    hasher = VerityHasher(algorithm)
    hasher.update(data)
    return hasher.digest()
