"""A file system tree as values, from which images are made.

Names, link targets and xattrs are ``bytes``: images have no encoding. A hard link is the
same :class:`Leaf` object in several places. Trees have no whiteouts of OCI layers, because
``bootc.oci.flatten`` resolves them. A character device 0:0 of a user's image is an
ordinary :class:`CharDevice`.
"""

from __future__ import annotations

import enum
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from bootc.errors import Error
from bootc.formats.digest import Digest

#: Regular files up to this size are stored in the image, larger ones as objects.
INLINE_MAX_BYTES = 64

#: Directories nested deeper than this are neither written nor read.
MAX_DEPTH = 2048


class NotADirectoryInTree(Error):
    """A tree has another kind of file in the place of a directory."""


@dataclass(slots=True)
class Stat:
    """Metadata of an inode. ``mode`` holds the low 12 permission bits, never the type."""

    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_s: int = 0
    mtime_ns: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    #: The flags of ``bootc.fs.protection``. File systems of machines have them, images do not.
    protection: int = 0

    def copy(self) -> Stat:
        """Return an independent copy."""
        return Stat(
            *(self.mode, self.uid, self.gid, self.mtime_s, self.mtime_ns),
            dict(self.xattrs),
            self.protection,
        )


@dataclass(frozen=True, slots=True)
class Inline:
    """Content of a small regular file."""

    data: bytes

    @property
    def size_bytes(self) -> int:
        """Length of the file."""
        return len(self.data)


@dataclass(frozen=True, slots=True)
class External:
    """Content of a regular file kept in the object store."""

    digest: Digest
    size_bytes: int

    @property
    def object_path(self) -> bytes:
        """Path of the object below the store."""
        return self.digest.object_path.encode()


@dataclass(frozen=True, slots=True)
class Redirected(External):
    """Content with a digest that is kept under another path than the object of that digest.

    Only images and dumpfiles of other tools contain these.
    """

    #: Below the object store; empty if the source states no path.
    path: bytes

    @property
    def object_path(self) -> bytes:
        """Path of the file below the store, empty if it is unknown."""
        return self.path


@dataclass(frozen=True, slots=True)
class Unverified:
    """Content below the object store under ``path``, without a digest.

    Only dumpfiles and images of other tools contain these; a pull makes none.
    """

    path: bytes
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Sparse:
    """Content of a regular file that is one hole. Only sources of :class:`Unverified` have it."""

    size_bytes: int


@dataclass(frozen=True, slots=True)
class Symlink:
    """Target of a symbolic link."""

    target: bytes


@dataclass(frozen=True, slots=True)
class CharDevice:
    """A character device; ``rdev`` as in ``st_rdev``."""

    rdev: int


@dataclass(frozen=True, slots=True)
class BlockDevice:
    """A block device; ``rdev`` as in ``st_rdev``."""

    rdev: int


@dataclass(frozen=True, slots=True)
class Fifo:
    """A named pipe."""


@dataclass(frozen=True, slots=True)
class Socket:
    """A unix socket."""


Content = (
    Inline | External | Unverified | Sparse | Symlink | CharDevice | BlockDevice | Fifo | Socket
)


class FileKind(enum.Enum):
    """The types of files, with their names in messages and their values in formats."""

    REGULAR = ("regular file", stat.S_IFREG, 1)
    DIRECTORY = ("directory", stat.S_IFDIR, 2)
    CHAR_DEVICE = ("character device", stat.S_IFCHR, 3)
    BLOCK_DEVICE = ("block device", stat.S_IFBLK, 4)
    FIFO = ("fifo", stat.S_IFIFO, 5)
    SOCKET = ("socket", stat.S_IFSOCK, 6)
    SYMLINK = ("symlink", stat.S_IFLNK, 7)

    def __init__(self, label: str, mode_bits: int, dirent_type: int) -> None:
        #: For people.
        self.label = label
        #: The type in ``st_mode``.
        self.mode_bits = mode_bits
        #: The type in directory entries of EROFS.
        self.dirent_type = dirent_type


#: Kinds by their bits of ``st_mode``.
KINDS_BY_MODE = {kind.mode_bits: kind for kind in FileKind}

_KINDS: dict[type[Content], FileKind] = {
    Inline: FileKind.REGULAR,
    External: FileKind.REGULAR,
    Redirected: FileKind.REGULAR,
    Unverified: FileKind.REGULAR,
    Sparse: FileKind.REGULAR,
    Symlink: FileKind.SYMLINK,
    CharDevice: FileKind.CHAR_DEVICE,
    BlockDevice: FileKind.BLOCK_DEVICE,
    Fifo: FileKind.FIFO,
    Socket: FileKind.SOCKET,
}


def kind_of(content: Content) -> FileKind:
    """Return the type of a file with this content.

    >>> kind_of(Symlink(b"usr/bin")).label
    'symlink'
    """
    return _KINDS[type(content)]


@dataclass(slots=True, eq=False)
class Leaf:
    """A file that is not a directory. The same object in several places is a hard link."""

    stat: Stat
    content: Content


@dataclass(slots=True, eq=False)
class Directory:
    """A directory. ``entries`` is unordered; every walk sorts names bytewise."""

    stat: Stat = field(default_factory=Stat)
    entries: dict[bytes, Node] = field(default_factory=dict)

    def sorted_entries(self) -> list[tuple[bytes, Node]]:
        """Return the entries in the order every format uses: names bytewise."""
        return sorted(self.entries.items())

    def lookup(self, path: str | bytes) -> Node | None:
        """Follow ``path`` (relative, slash-separated, no symlinks followed), or return None."""
        node: Node = self
        raw = path.encode() if isinstance(path, str) else path
        for name in raw.split(b"/"):
            if not name:
                continue
            if not isinstance(node, Directory) or name not in node.entries:
                return None
            node = node.entries[name]
        return node

    def find_directory(self, path: str) -> Directory | None:
        """Follow ``path`` like :meth:`lookup`, to a directory that may be missing.

        Raises:
            NotADirectoryInTree: it, or a parent, is another kind of file.
        """
        node: Directory = self
        names = path.encode().split(b"/")
        for number, name in enumerate(names, 1):
            found = node.entries.get(name)
            if found is None:
                return None
            if not isinstance(found, Directory):
                where = b"/".join(names[:number]).decode()
                kind = "a symbolic link" if isinstance(found.content, Symlink) else "a file"
                raise NotADirectoryInTree(f"{where} is not a directory but {kind}")
            node = found
        return node

    def copy(self) -> Directory:
        """Return an independent copy of the tree, with the same hard links."""
        copy = Directory(self.stat.copy())
        leaves: dict[int, Leaf] = {}
        stack = [(self, copy)]
        while stack:
            source, target = stack.pop()
            for name, node in source.entries.items():
                if isinstance(node, Directory):
                    below = target.entries[name] = Directory(node.stat.copy())
                    stack.append((node, below))
                else:
                    leaf = leaves.get(id(node))
                    if leaf is None:
                        leaf = leaves[id(node)] = Leaf(node.stat.copy(), node.content)
                    target.entries[name] = leaf
        return copy

    def walk(self) -> Iterator[tuple[bytes, Node]]:
        """Yield every (absolute path, node) depth-first, names bytewise, itself first as ``/``."""
        yield b"/", self
        stack = [(b"/", iter(self.sorted_entries()))]
        while stack:
            prefix, pending = stack[-1]
            for name, node in pending:
                path = prefix + name
                yield path, node
                if isinstance(node, Directory):
                    stack.append((path + b"/", iter(node.sorted_entries())))
                    break
            else:
                stack.pop()


Node = Directory | Leaf
