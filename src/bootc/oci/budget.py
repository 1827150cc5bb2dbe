"""How much metadata an image may have: what is held in memory while its tree is made.

Contents of files are not counted, because they are never held. An image that exceeds a limit is
refused, and the error names the limit and the entry. No known image comes near: the largest
operating systems have some 500,000 entries.
"""

from __future__ import annotations

from bootc.formats.tar import Entry
from bootc.formats.tree import External, Inline

#: Entries of all layers of an image, also those that later layers replace.
MAX_ENTRIES = 1_000_000
#: Directories that no layer lists before it uses them. A few bytes of an archive name thousands.
MAX_IMPLICIT = 50_000
#: Paths, targets of links, extended attributes and small files, all entries together.
MAX_METADATA_BYTES = 256 << 20
#: What an attribute needs beside its name and its value, about.
_ATTRIBUTE_BYTES = 100
#: Bytes after the end of an archive: padding, which is kept as it is.
MAX_TRAILING_BYTES = 16 << 20

#: Bytes that the holes of all sparse files of a layer may stand for: they are written as zeros.
MAX_HOLE_BYTES = 4 << 30
#: The body of a sparse file that is small enough to be in the image itself: a map and its data.
MAX_SMALL_SPARSE_BYTES = 1 << 16


class OverBudget(Exception):
    """An image has too much of something. The text completes a sentence about an entry."""


class Budget:
    """What the layers of one image have used so far."""

    def __init__(self) -> None:
        self._entries = 0
        self._implicit = 0
        self._bytes = 0

    def entry(self, entry: Entry, content: Inline | External) -> None:
        """Count an entry.

        Raises:
            OverBudget: the image has too many, or too much metadata.
        """
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise OverBudget(f"the image has more than {MAX_ENTRIES} entries")
        self._bytes += len(entry.path) + len(entry.link_target)
        if entry.xattrs:
            self._bytes += _ATTRIBUTE_BYTES * len(entry.xattrs)
            self._bytes += sum(len(name) + len(value) for name, value in entry.xattrs.items())
        if isinstance(content, Inline):
            self._bytes += content.size_bytes
        if self._bytes > MAX_METADATA_BYTES:
            raise OverBudget(
                f"paths, links, attributes and small files of the image have more than "
                f"{MAX_METADATA_BYTES} bytes"
            )

    def implicit(self) -> None:
        """Count a directory that no layer lists.

        Raises:
            OverBudget: the image has too many.
        """
        self._implicit += 1
        if self._implicit > MAX_IMPLICIT:
            raise OverBudget(
                f"the image needs more than {MAX_IMPLICIT} directories that no layer lists"
            )
