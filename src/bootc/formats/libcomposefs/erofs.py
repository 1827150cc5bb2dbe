"""Images as ``mkcomposefs`` writes them and ``composefs-info`` reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from bootc.formats import tree
from bootc.formats.erofs import epoch1
from bootc.formats.erofs.image import Image, Record, check_headers, unpack_headers
from bootc.formats.erofs.inodes import Inode, LimitError
from bootc.formats.erofs.reader import Frame, Paths, TreeReader
from bootc.formats.erofs.structs import METACOPY, WHITEOUT_MARKS, WHITEOUTS_MARKS
from bootc.formats.erofs.writer import write_layout
from bootc.formats.erofs.xattrs import XattrEncoder
from bootc.formats.libcomposefs.tree import CTree, Stated

if TYPE_CHECKING:
    from bootc.formats.tree import Content, Directory, Node

#: The versions that the C tools write.
VERSIONS = (0, 1)

_MAX_SHARED = 128
#: The limit for an inode's xattrs, and what each costs beside its name and value.
_MAX_XATTR_BYTES = 32767
_XATTR_COST = 7
_XATTR_HEADER = 12
#: libcomposefs knows the digests of SHA-256 only.
_METACOPY_BYTES = 36


def format_version(root: Directory, minimum: int = 0, maximum: int = 1) -> int:
    """Return the version ``mkcomposefs`` chooses: the lowest that can show the whiteouts.

    Raises:
        ValueError: the range holds no version the C tools write.
    """
    if not (0 <= minimum <= 1 and maximum >= 0):
        raise ValueError(f"composefs versions {minimum} to {maximum}")
    if minimum == 0 and maximum >= 1 and any(map(_is_whiteout, _nodes(root))):
        return 1
    return minimum


def _nodes(root: Directory) -> Iterator[Node]:
    pending = [root]
    for directory in pending:
        yield from directory.entries.values()
        pending += [n for n in directory.entries.values() if isinstance(n, tree.Directory)]


def _is_whiteout(node: Node) -> bool:
    return isinstance(node, tree.Leaf) and node.content == tree.CharDevice(0)


def mkfs_erofs(source: CTree, *, version: int = 1) -> bytes:
    """Return the image ``mkcomposefs`` makes of a tree; ``version`` is 0 or 1.

    Raises:
        Unrepresentable: the tree contains something that the format cannot store.
    """
    return write_layout(epoch1.lay_out_by(Rules(source, version), source.root))


def read_erofs(raw: bytes) -> CTree:
    """Return the tree of an image as ``composefs-info`` sees it.

    Opaque marks and the stored order of xattrs are kept. Devices 0:0 are passed over.

    Raises:
        InvalidImage: with the offset of what is wrong.
    """
    headers = unpack_headers(raw)
    check_headers(headers, len(raw))
    reader = _Reader(Image(raw, headers))
    root = reader.read(headers.superblock.root_nid)
    return CTree(root, reader.stated)


class _Encoder(XattrEncoder):
    def encode(self, pairs: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[bytes, ...], int]:
        pairs = list(pairs)
        encoded = super().encode(pairs)
        cost = sum(_XATTR_COST + len(name) + len(value) for name, value in pairs)
        if cost + _XATTR_HEADER > _MAX_XATTR_BYTES:
            raise LimitError(f"{len(pairs)} xattrs of together {cost} bytes are more than C stores")
        return encoded


class Rules(epoch1.Epoch1):
    """Epoch 1 as ``mkcomposefs`` writes it.

    Times before 1970 come before all others, a whiteout may be a hard link, and an inode
    has at most 128 shared xattrs. Link counts and the name under which a file is numbered
    are those of the source.
    """

    time_base = 0
    max_shared = _MAX_SHARED

    def __init__(self, source: CTree, version: int) -> None:
        super().__init__(source.root, version)
        self.encoder = _Encoder(epoch1.PREFIXES)
        self._stated = source.stated

    def linked(self, inode: Inode) -> None:
        """Note one more name of a leaf."""
        inode.nlink += 1

    def marks_parent(self, whiteout: Inode, directory: Directory) -> bool:
        """Return whether the directory has the whiteout itself and not a hard link to it."""
        assert whiteout.node is not None
        stated = self._stated.get(whiteout.node)
        return stated is None or stated.home in (None, directory)

    def collected(self, inodes: list[Inode]) -> None:
        """Take link counts and the entries to number from the source."""
        kind = tree.FileKind.DIRECTORY
        by_directory = {id(inode.node): inode for inode in inodes if inode.kind is kind}
        for inode in inodes:
            if not isinstance(inode.node, tree.Leaf):
                continue
            stated = self._stated.get(inode.node)
            if stated is not None:
                inode.nlink = stated.nlink
                home = by_directory.get(id(stated.home))
                if home is not None:
                    inode.home = home
                    inode.name = stated.name


class _Reader(TreeReader):
    """Believes link counts, and notes them."""

    def __init__(self, image: Image) -> None:
        super().__init__(image, Paths())
        self.hides_devices = True
        self.stated: dict[Node, Stated] = {}

    def inode(self, nid: int) -> Record:
        inode = super().inode(nid)
        if inode.shared_count:
            # The C tools list an inode's own xattrs before the shared ones.
            pairs = list(inode.xattrs.items())
            inode.xattrs.clear()
            inode.xattrs.update(pairs[inode.shared_count :] + pairs[: inode.shared_count])
        return inode

    def distrust(self, offset: int, why: str) -> None:
        pass

    def add(self, frame: Frame, name: bytes, nid: int) -> bool:
        is_known = nid in self.leaves
        entered = super().add(frame, name, nid)
        leaf = self.leaves.get(nid)
        if leaf is not None and not is_known:
            nlink = self.announced.get(nid, 1)
            self.stated[leaf] = Stated(nlink, home=frame.directory, name=name)
        return entered

    def leave(self, frame: Frame) -> None:
        super().leave(frame)
        inode = frame.inode
        self.stated[frame.directory] = Stated(inode.nlink, size_bytes=inode.size)

    def overlaid_file(self, inode: Record, version: int) -> Content:
        if len(inode.xattrs.get(METACOPY, b"")) != _METACOPY_BYTES and METACOPY in inode.xattrs:
            inode.xattrs[METACOPY] = b""
        return super().overlaid_file(inode, version)

    def restore_names(self, xattrs: dict[bytes, bytes], added: tuple[bytes, ...]) -> None:
        super().restore_names(xattrs, WHITEOUT_MARKS + WHITEOUTS_MARKS)
