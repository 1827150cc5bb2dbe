"""An archive holds the tree it was made of, as our own reader of layers reads it."""

from __future__ import annotations

import io
import os
import tempfile

from hypothesis import given, settings

from bootc.formats.digest import Algorithm, Digest, OciDigest
from bootc.formats.splitstream import StreamReader
from bootc.formats.tree import (
    CharDevice,
    Directory,
    External,
    Inline,
    Leaf,
    Socket,
    Sparse,
    Stat,
    Unverified,
)
from bootc.oci.export import write_tar
from bootc.oci.flatten import apply_layer
from bootc.oci.unpack import entries, split_layer
from support.memory import Memory
from support.trees import text_of, trees

SHA256 = Algorithm.SHA256


def exportable(directory: Directory, memory: Memory) -> None:
    """Leave out what an archive cannot hold or a layer means otherwise, and make real content."""
    for name, node in list(directory.entries.items()):
        if isinstance(node, Directory):
            exportable(node, memory)
        elif isinstance(node.content, Socket) or node.content == CharDevice(0):
            del directory.entries[name]
            continue
        elif isinstance(node.content, External | Unverified | Sparse):
            size = 65 + node.content.size_bytes % 5000
            node.content = External(memory.put(bytes([size % 251]) * size), size)
        if b"=" in name or name.startswith(b".wh."):
            del directory.entries[name]


def opened(memory: Memory, digest: Digest) -> int:
    with tempfile.TemporaryFile() as file:
        file.write(memory.objects[digest])
        file.seek(0)
        return os.dup(file.fileno())


@given(trees(SHA256))
@settings(deadline=None)
def test_tree_to_archive_to_tree(tree: Directory) -> None:
    memory = Memory()
    exportable(tree, memory)
    archive = io.BytesIO()
    write_tar(tree, lambda digest: opened(memory, digest), archive)
    data = archive.getvalue()
    stream = StreamReader(split_layer(io.BytesIO(data), OciDigest.of(data), Memory()))
    again = Directory(Stat())
    apply_layer(again, OciDigest.of(data), entries(stream, SHA256))
    again.stat = tree.stat  # the root has no entry
    for _, node in tree.walk():
        if isinstance(node, Leaf) and isinstance(node.content, Inline):
            size = node.content.size_bytes
            if size > 64:
                node.content = External(memory.put(node.content.data), size)
    assert text_of(again) == text_of(tree)
