"""The objects that a set of streams and images needs: pure functions, no IO.

Owns: what a stream and an image refer to, and the closure over it (composefs, "Garbage
collection" and "Reader rules"). An image that cannot be understood refers to everything that
it may refer to (:func:`possible_objects`). Promises to find everything that composefs-rs
finds, and more in four cases:

- It walks an image that only a stream names (``composefs.image…`` of a configuration).
- It walks the object that a stream names, even if the link in ``streams/`` now leads to a
  newer stream. A manifest that was written before its configuration thus keeps the images of
  the old configuration.
- It walks a registered stream or image even if that is reached only as the content of a
  file. As long as the link exists, a pull takes the stream or image to be complete.
- It does not refuse an image for wrong link counts.
"""

from __future__ import annotations

import enum
import re
import stat
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field

from bootc.formats.digest import Algorithm, Digest, DigestError
from bootc.formats.erofs.image import Image, InvalidImage, check_headers, unpack_headers
from bootc.formats.erofs.structs import (
    EROFS_MAGIC,
    INCOMPAT_METABOX,
    MAX_IMAGE_BYTES,
    METACOPY,
    REDIRECT,
    SUPERBLOCK,
    SUPERBLOCK_OFFSET,
    Superblock,
)
from bootc.formats.splitstream import MAGIC, MAX_STREAM_BYTES, SplitstreamError, StreamReader

#: Offsets of a stream's magic, in the current and in the older header.
_STREAM_MAGIC_AT = (0, 18)
_EROFS_MAGIC = EROFS_MAGIC.to_bytes(4, "little")
_METACOPY_HEADER_BYTES = 4
#: These many bytes of an object tell whether it is a stream or an image.
HEAD_BYTES = SUPERBLOCK_OFFSET + len(_EROFS_MAGIC)


class ReferrerKind(enum.Enum):
    """Objects that refer to others. ``value`` is the limit of their size in bytes."""

    STREAM = MAX_STREAM_BYTES
    IMAGE = MAX_IMAGE_BYTES


@dataclass(frozen=True, slots=True)
class Needs:
    """The objects that a stream or an image refers to, by their raw digests."""

    #: Contents of files, which refer to nothing.
    contents: frozenset[bytes] = frozenset()
    #: Streams and images, with the name they are referred to by.
    named: Mapping[bytes, str] = field(default_factory=dict)


def kind_of(head: bytes) -> ReferrerKind | None:
    """Return what an object is, or None if it is neither a stream nor an image.

    Args:
        head: Its first :data:`HEAD_BYTES`, or all of it.
    """
    if any(head.startswith(MAGIC, at) for at in _STREAM_MAGIC_AT):
        return ReferrerKind.STREAM
    if head.startswith(_EROFS_MAGIC, SUPERBLOCK_OFFSET):
        return ReferrerKind.IMAGE
    return None


def needs_of(data: bytes, algorithm: Algorithm) -> Needs | None:
    """Return what an object refers to, or None if it is neither a stream nor an image.

    Raises:
        SplitstreamError, InvalidImage: it is a malformed stream or image.
    """
    match kind_of(data):
        case ReferrerKind.STREAM:
            return stream_needs(data, algorithm)
        case ReferrerKind.IMAGE:
            return Needs(image_objects(data))
        case None:
            return None


def stream_needs(data: bytes, algorithm: Algorithm) -> Needs:
    """Return what a stream refers to, without reading its body.

    Raises:
        SplitstreamError: it is no stream, or a stream of a repository with another algorithm.
    """
    stream = StreamReader(data)
    if stream.algorithm is not algorithm:
        raise SplitstreamError(f"digests are {stream.algorithm.hash_name}", 0)
    named = {digest.raw: "" for digest in stream.stream_refs}
    named.update((digest.raw, name) for name, digest in stream.named_refs.items())
    return Needs(frozenset(digest.raw for digest in stream.object_refs), named)


def image_objects(data: bytes) -> frozenset[bytes]:
    """Return the objects that files of an image consist of.

    These are the digests that overlayfs demands and those in the paths where it looks; in an
    image of ours they are the same.

    Raises:
        InvalidImage: the bytes are no image, or a damaged one.
    """
    headers = unpack_headers(data)
    check_headers(headers, len(data))
    image = Image(data, headers)
    found: set[bytes] = set()
    root = headers.superblock.root_nid
    seen = {root}
    pending = [root]
    while pending:
        inode = image.inode(pending.pop())
        if metacopy := inode.xattrs.get(METACOPY):
            found.add(_digest_in(metacopy, inode.offset))
        if redirect := inode.xattrs.get(REDIRECT):
            found.update(_object_at(redirect))
        if stat.S_ISDIR(inode.mode):
            below = {nid for _, nid, _ in image.entries(inode)} - seen
            seen |= below
            pending += below
    return frozenset(found)


def possible_objects(data: bytes, algorithm: Algorithm) -> frozenset[bytes]:
    """Return every object that files of an image may consist of, without understanding it.

    The kernel finds the content of a file by a path in one of its xattrs, and checks it by a
    digest in another. EROFS stores both unchanged: in one piece and not compressed. Therefore
    any bytes that look like this path or digest name one of the image's objects, or nothing.

    Args:
        data: The image; the caller has compared it with its digest.
        algorithm: What objects are named by.

    Raises:
        InvalidImage: its superblock is not whole, or says that metadata may be compressed.
    """
    if len(data) < SUPERBLOCK_OFFSET + SUPERBLOCK.size:
        raise InvalidImage(len(data), "ends within its superblock")
    # Not unpack_headers: the kernel does not look at composefs's own header.
    superblock = Superblock._make(SUPERBLOCK.unpack_from(data, SUPERBLOCK_OFFSET))
    features = superblock.feature_incompat
    if features >= INCOMPAT_METABOX:
        raise InvalidImage(SUPERBLOCK_OFFSET + 80, f"incompatible features {features:#x}")
    rest = 2 * algorithm.digest_size - 2
    paths = re.finditer(rb"/([0-9a-f]{2})/([0-9a-f]{%d})" % rest, data)
    found = {bytes.fromhex((path[1] + path[2]).decode("ascii")) for path in paths}
    # A digest may begin within bytes that only look like one.
    digests = re.finditer(
        rb"(?=%s(.{%d}))" % (re.escape(_metacopy_header(algorithm)), algorithm.digest_size),
        data,
        re.DOTALL,
    )
    return frozenset(found.union(digest[1] for digest in digests))


def reachable(
    roots: Iterable[bytes],
    registered: Container[bytes],
    examine: Callable[[bytes], Needs | None],
) -> set[bytes]:
    """Return all objects that the roots need, themselves included.

    Args:
        roots: Streams and images to keep.
        registered: Every object that has a link in ``streams/`` or ``images/``.
        examine: What a stream or image refers to, or None if there is no such object.
            Asked once for each.
    """
    live: set[bytes] = set()
    examined: set[bytes] = set()
    pending = list(roots)
    while pending:
        raw = pending.pop()
        if raw in examined:
            continue
        examined.add(raw)
        needs = examine(raw)
        if needs is None:
            continue
        live.add(raw)
        pending += needs.named
        for content in needs.contents:
            if content in registered:
                pending.append(content)
            else:
                live.add(content)
    return live


def _digest_in(metacopy: bytes, offset: int) -> bytes:
    raw = metacopy[_METACOPY_HEADER_BYTES:]
    for algorithm in Algorithm:
        if len(raw) == algorithm.digest_size and metacopy.startswith(_metacopy_header(algorithm)):
            return raw
    raise InvalidImage(offset, "a file's metacopy xattr holds no fs-verity digest")


def _metacopy_header(algorithm: Algorithm) -> bytes:
    # Version, length, flags, algorithm.
    return bytes((0, _METACOPY_HEADER_BYTES + algorithm.digest_size, 0, algorithm.value))


def _object_at(redirect: bytes) -> list[bytes]:
    """Return the object whose path this is, if it is that of one."""
    bucket, slash, rest = redirect.removeprefix(b"/").partition(b"/")
    if slash and len(bucket) == 2:
        try:
            return [Digest.from_hex((bucket + rest).decode("ascii")).raw]
        except (DigestError, UnicodeDecodeError):
            pass
    return []
