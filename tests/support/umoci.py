"""The trees that umoci extracts, to compare with ours."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

from bootc.formats.digest import Algorithm
from bootc.formats.imgref import ImageReference
from bootc.formats.ocispec import ImageConfig
from bootc.formats.splitstream import StreamReader
from bootc.formats.tree import (
    BlockDevice,
    CharDevice,
    Directory,
    External,
    Inline,
    Leaf,
    Symlink,
)
from bootc.formats.verity import verity_digest
from bootc.oci.flatten import apply_layer
from bootc.oci.source import open_source
from bootc.oci.unpack import entries, split_layer
from bootc.repository.sink import DigestOnly
from support import require

Shape = dict[str, tuple[object, ...]]


def umoci(*arguments: str) -> None:
    require.root()
    program = require.tool("umoci")
    subprocess.run([program, *arguments], check=True, capture_output=True)


def our_tree(reference: str) -> Directory:
    root = Directory()
    sink = DigestOnly(Algorithm.SHA256)
    with open_source(ImageReference.parse(reference)) as source:
        config = ImageConfig.parse(source.config_raw)
        for descriptor, diff_id in zip(source.layers, config.diff_ids, strict=True):
            with source.blob(descriptor) as blob:
                stream = StreamReader(split_layer(blob, diff_id, sink))
            apply_layer(root, diff_id, entries(stream, sink.algorithm))
    return root


def shape_of_tree(root: Directory) -> Shape:
    shape: Shape = {}
    first_names: dict[int, str] = {}
    for raw, node in root.walk():
        path = raw.decode()
        content: object = None
        first = path
        if isinstance(node, Leaf):
            match node.content:
                case Inline(data):
                    content = verity_digest(data, Algorithm.SHA256)
                case External(digest, _):
                    content = digest
                case Symlink(target):
                    content = target
                case CharDevice(rdev) | BlockDevice(rdev):
                    content = (type(node.content).__name__, rdev)
            first = first_names.setdefault(id(node), path)
        meta = node.stat
        # The kernel gives every symlink the mode 0777.
        mode = 0o777 if isinstance(content, bytes) else meta.mode
        shape[path] = (mode, meta.uid, meta.gid, meta.mtime_s, content, first)
    return shape


def shape_of_directory(top: Path) -> Shape:
    shape: Shape = {}
    first_names: dict[int, str] = {}
    paths = [top, *sorted(top.rglob("*"), key=lambda p: p.relative_to(top).parts)]
    for path in paths:
        info = path.lstat()
        name = "/" + str(path.relative_to(top)) if path != top else "/"
        content: object = None
        first = name
        if not stat.S_ISDIR(info.st_mode):
            if stat.S_ISREG(info.st_mode):
                content = verity_digest(path.read_bytes(), Algorithm.SHA256)
            elif stat.S_ISLNK(info.st_mode):
                content = os.readlink(bytes(path))
            elif stat.S_ISCHR(info.st_mode):
                content = ("CharDevice", info.st_rdev)
            elif stat.S_ISBLK(info.st_mode):
                content = ("BlockDevice", info.st_rdev)
            first = first_names.setdefault(info.st_ino, name)
        mode = stat.S_IMODE(info.st_mode)
        shape[name] = (mode, info.st_uid, info.st_gid, int(info.st_mtime), content, first)
    return shape
