"""On-disk records of EROFS, as far as composefs images use them.

Everything is little-endian, blocks are 4 KiB, an inode is addressed by its number
of 32-byte slots from the start of the image (its nid).

Source: Linux fs/erofs/erofs_fs.h for the records; composefs adds a header of its
own in the kilobyte EROFS leaves free, and rules on what goes where (see ``layout``).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

BLOCK_SIZE = 4096
SLOT_SIZE = 32

#: Nothing larger is written or read: composefs tools refuse such images.
MAX_IMAGE_BYTES = 1 << 30
MAX_NAME_BYTES = 255
#: PATH_MAX less the terminating NUL; the kernel refuses longer targets.
MAX_SYMLINK_BYTES = 4095

COMPOSEFS_MAGIC = 0xD078629A
#: Version of the header, not of the image.
COMPOSEFS_HEADER_VERSION = 1
COMPOSEFS_HAS_ACL = 1

EROFS_MAGIC = 0xE0F5E1E2
SUPERBLOCK_OFFSET = 1024
COMPAT_CHECKSUM = 1
COMPAT_MTIME = 2
COMPAT_XATTR_FILTER = 4
INCOMPAT_CHUNKED_FILE = 4
#: From this feature on metadata may lie in the compressed content of an inode.
INCOMPAT_METABOX = 0x100

FLAT_PLAIN = 0
FLAT_INLINE = 2
CHUNK_BASED = 4
#: Low bit of an inode's format: the 64-byte record.
EXTENDED = 1

#: A chunk that is a hole.
NULL_CHUNK = b"\xff\xff\xff\xff"
#: log2 of the chunk size, less that of a block, has 5 bits.
MAX_CHUNK_BITS = 12 + 31

XATTR_FILTER_SEED = 0x25BBE08F
#: Name index of a stored xattr, and what it stands for; index 0 is a full name.
XATTR_PREFIXES = {
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    5: b"lustre.",
    6: b"security.",
}
XATTR_ACL_INDEXES = (2, 3)
#: What the count fields of an inode's xattrs can express.
MAX_XATTRS = 255
MAX_XATTR_VALUE_BYTES = 0xFFFF
MAX_XATTR_AREA_BYTES = 4 * 0xFFFE

#: Overlayfs and composefs keep their own facts in these.
OVERLAY = b"trusted.overlay."
#: A user's ``trusted.overlay.X`` is stored under this, so that overlayfs shows it as ``X`` again.
OVERLAY_ESCAPED = b"trusted.overlay.overlay."
METACOPY = OVERLAY + b"metacopy"
REDIRECT = OVERLAY + b"redirect"
OPAQUE = OVERLAY + b"opaque"
#: A user's whiteout is an empty regular file with these two.
WHITEOUT_MARKS = (OVERLAY_ESCAPED + b"whiteout", b"user.overlay.whiteout")
#: A directory with such files has these two, and from version 1 on the opaque pair.
WHITEOUTS_MARKS = (OVERLAY_ESCAPED + b"whiteouts", b"user.overlay.whiteouts")
OPAQUE_MARKS = (OVERLAY_ESCAPED + b"opaque", b"user.overlay.opaque")
#: Names of the character devices 0:0 every root carries, which hide the object
#: directories of the data layer below.
STUB_NAMES = tuple(b"%02x" % i for i in range(256))

#: Magic, header version, flags, composefs version.
COMPOSEFS_HEADER = struct.Struct("<IIII16x")
assert COMPOSEFS_HEADER.size == 32

SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQ24s")
assert SUPERBLOCK.size == 128


class Superblock(NamedTuple):
    """Fields of :data:`SUPERBLOCK`."""

    magic: int = EROFS_MAGIC
    checksum: int = 0
    feature_compat: int = COMPAT_MTIME | COMPAT_XATTR_FILTER
    block_bits: int = 12
    extra_slots: int = 0
    root_nid: int = 0
    inodes: int = 0
    build_time: int = 0
    build_time_ns: int = 0
    blocks: int = 0
    meta_block: int = 0
    xattr_block: int = 0
    uuid: bytes = bytes(16)
    volume_name: bytes = bytes(16)
    feature_incompat: int = 0
    compression: int = 0
    extra_devices: int = 0
    device_slot: int = 0
    directory_block_bits: int = 0
    xattr_prefixes: int = 0
    xattr_prefix_start: int = 0
    packed_nid: int = 0
    reserved: bytes = bytes(24)


#: Format, xattr count, mode, nlink, size, ``u``, number, uid, gid. ``u`` is the first data
#: block, the device number, or the chunk format; the record's mtime is the build time.
COMPACT_INODE = struct.Struct("<HHHHI4xIIHH4x")
assert COMPACT_INODE.size == 32

#: Format, xattr count, mode, size, ``u``, number, uid, gid, mtime, its nanoseconds, nlink.
EXTENDED_INODE = struct.Struct("<HHH2xQIIIIQII16x")
assert EXTENDED_INODE.size == 64

#: Name filter, number of shared ids; before the ids and the local entries.
XATTR_HEADER = struct.Struct("<IB7x")
assert XATTR_HEADER.size == 12

#: Length of the suffix, name index, length of the value; the two follow, padded to 4.
XATTR_ENTRY = struct.Struct("<BBH")
assert XATTR_ENTRY.size == 4

#: nid, offset of the name in its block, file type.
DIRENT = struct.Struct("<QHBx")
assert DIRENT.size == 12


def align(offset: int, to: int) -> int:
    """Round up to a multiple of ``to``, a power of two."""
    return (offset + to - 1) & -to


def chunk_bits(size_bytes: int) -> int:
    """Return log2 of the chunk size used for a file of this size."""
    if size_bytes <= BLOCK_SIZE:
        return 12
    bits = (size_bytes - 1).bit_length()
    return bits if bits < MAX_CHUNK_BITS else MAX_CHUNK_BITS


def chunk_count(size_bytes: int) -> int:
    """Return how many chunks a file of this size has."""
    return -(-size_bytes >> chunk_bits(size_bytes))
