"""The layer that seals an image: it hides the bare kernel, and adds the UKI and the signed loader.

The layer is an uncompressed tar archive, because the versions of a compressor write different
bytes, and a kernel with initramfs is compressed already. It lists the parents of all its entries,
with the metadata that they have in the image. Otherwise programs that unpack it would give them a
new time, and another digest.
"""

from __future__ import annotations

import datetime
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from bootc.boot.scheme import VMLINUZ
from bootc.boot.split import HMAC
from bootc.boot.unpacked_kernel import INITRAMFS, MODULES
from bootc.build.seal_base import BaseImage
from bootc.formats.digest import Algorithm, Digest, OciDigest
from bootc.formats.ocispec import Descriptor
from bootc.formats.splitstream import StreamReader
from bootc.formats.tree import Directory, External, Inline, Leaf, Stat
from bootc.oci import unpack
from bootc.oci.append_layer import TAR_LAYER, AppendedLayer
from bootc.oci.export import write_tar
from bootc.oci.flatten import apply_layer
from bootc.oci.seal import transform_for_boot, transform_for_oci
from bootc.repository.sink import DigestOnly

_WHITEOUT = b".wh."
_HIDDEN = (VMLINUZ, INITRAMFS, HMAC)
_BOOT = "boot"
_CREATED_BY = "bootc container seal"
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class WrittenLayer:
    """A layer in a file."""

    file: BinaryIO
    layer: AppendedLayer

    def chunks(self) -> Iterator[bytes]:
        """Yield the archive in pieces."""
        self.file.seek(0)
        while chunk := self.file.read(_PIECE_BYTES):
            yield chunk


def write_layer(base: BaseImage, files: Mapping[str, str], out: BinaryIO) -> WrittenLayer:
    """Write the layer that seals an image.

    Args:
        base: The image.
        files: The files to add: the path in the image, and where their content is.
        out: Receives the archive; an empty file that can be read.

    Raises:
        OSError: a file cannot be read, or the archive cannot be written.
    """
    tree, paths = _tree_of(base, files)
    written = _Hashing(out)
    write_tar(tree, lambda digest: os.open(paths[digest], os.O_RDONLY | os.O_CLOEXEC), written)
    out.flush()
    digest = OciDigest("sha256", written.hash.hexdigest())
    created = datetime.datetime.fromtimestamp(base.epoch, datetime.UTC)
    layer = AppendedLayer(
        Descriptor(TAR_LAYER, digest, written.size_bytes, {}),
        digest,
        created.replace(tzinfo=None).isoformat() + "Z",
        _CREATED_BY,
    )
    return WrittenLayer(out, layer)


def sealed_tree(base: BaseImage, layer: WrittenLayer) -> Directory:
    """Return the tree to boot of the image with the layer, as a pull makes it.

    The content of ``/boot`` is not part of the result, so the layer need not have the UKI yet.

    Raises:
        SealError, LabelError: the image lacks something that a bootable image needs.
    """
    layer.file.seek(0)
    diff_id = layer.layer.diff_id
    stream = unpack.split_layer(layer.file, diff_id, DigestOnly(Algorithm.SHA512))
    root = base.root.copy()
    apply_layer(root, diff_id, unpack.entries(StreamReader(stream), Algorithm.SHA512))
    transform_for_oci(root)
    return transform_for_boot(root, base.read_content)


def _tree_of(base: BaseImage, files: Mapping[str, str]) -> tuple[Directory, dict[Digest, str]]:
    """Return the tree of the layer, and where the contents of its files are."""
    root = Directory()
    paths: dict[Digest, str] = {}
    for home, hidden in _hidden(base):
        leaf = Leaf(Stat(mtime_s=base.epoch), Inline(b""))
        _directory(base, root, home).entries[_WHITEOUT + hidden] = leaf
    for path, place in files.items():
        above, _, name = path.rpartition("/")
        # The digest is only a key here: it names the place, and not the content.
        digest = Digest(Algorithm.SHA256, hashlib.sha256(path.encode()).digest())
        paths[digest] = place
        leaf = Leaf(Stat(0o644, mtime_s=base.epoch), External(digest, os.stat(place).st_size))
        _directory(base, root, above).entries[name.encode()] = leaf
    return root, paths


def _hidden(base: BaseImage) -> Iterator[tuple[str, bytes]]:
    """Yield directory and name of each bare kernel, initramfs and checksum of the image."""
    home = f"{MODULES}/{base.kernel.kver}"
    modules = base.root.find_directory(home)
    assert modules is not None, "the kernel was found in it"
    for name in map(str.encode, _HIDDEN):
        if name in modules.entries:
            yield home, name
    # Debian's packages leave another copy in /boot.
    copied = {base.kernel.vmlinuz.content, base.kernel.initramfs.content}
    boot = base.root.lookup(_BOOT)
    for name, node in boot.sorted_entries() if isinstance(boot, Directory) else ():
        if isinstance(node, Leaf) and node.content in copied:
            yield _BOOT, name


def _directory(base: BaseImage, root: Directory, path: str) -> Directory:
    """Return a directory of the layer, with the metadata that it has in the image."""
    directory = root
    above = ""
    for name in path.split("/"):
        above = f"{above}/{name}".lstrip("/")
        present = base.root.lookup(above)
        stat = present.stat.copy() if present else Stat(0o755, mtime_s=base.epoch)
        below = directory.entries.setdefault(name.encode(), Directory(stat))
        assert isinstance(below, Directory), "no file of the layer has a directory's name"
        directory = below
    return directory


class _Hashing:
    """Writes to a file, and hashes."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self.hash = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes, /) -> None:
        self._out.write(data)
        self.hash.update(data)
        self.size_bytes += len(data)
