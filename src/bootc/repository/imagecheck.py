"""The rules that an EROFS image of a repository obeys beyond being well-formed.

Owns: composefs's rules for images in a repository (composefs, "Reader rules", image
fsck). Promises: the check looks at nothing except the bytes, and any bytes are safe.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator

from bootc.formats.erofs.image import Image, InvalidImage, Record, check_headers, unpack_headers
from bootc.formats.erofs.reader import read_erofs
from bootc.formats.erofs.structs import (
    BLOCK_SIZE,
    FLAT_INLINE,
    STUB_NAMES,
    WHITEOUT_MARKS,
)


def check_image(data: bytes) -> None:
    """Check an image.

    Raises:
        InvalidImage: it is damaged, made by another program than composefs, or breaks a rule.
    """
    headers = unpack_headers(data)
    check_headers(headers, len(data))
    if headers.version is None:
        raise InvalidImage(0, "no composefs header")
    read_erofs(data)
    image = Image(data, headers)
    root = headers.superblock.root_nid
    epoch1 = headers.version in (0, 1)
    for nid, inode, names in _inodes(image, root):
        if nid == root and epoch1 and not names.issuperset(STUB_NAMES):
            missing = next(name for name in STUB_NAMES if name not in names)
            raise InvalidImage(inode.offset, f"the root has no stub {missing.decode()}")
        if not epoch1 and WHITEOUT_MARKS[0] in inode.xattrs:
            raise InvalidImage(inode.offset, "an escaped whiteout, which this version has not")
        if epoch1 and stat.S_ISLNK(inode.mode) and inode.layout == FLAT_INLINE:
            start = inode.offset % BLOCK_SIZE
            if start + inode.end - inode.offset + inode.size % BLOCK_SIZE > BLOCK_SIZE:
                raise InvalidImage(
                    inode.offset, "a symlink across two blocks, which Linux before 6.12 refuses"
                )


def _inodes(image: Image, root: int) -> Iterator[tuple[int, Record, frozenset[bytes]]]:
    """Yield every inode once, with the names in it if it is a directory."""
    seen = {root}
    pending = [root]
    while pending:
        nid = pending.pop()
        inode = image.inode(nid)
        entries = image.entries(inode) if stat.S_ISDIR(inode.mode) else []
        yield nid, inode, frozenset(name for name, _, _ in entries)
        below = {nid for _, nid, _ in entries} - seen
        seen |= below
        pending += below
