"""Images made and unpacked by umoci: our tree of an image is the tree umoci extracts."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

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

pytestmark = pytest.mark.interop

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


def build(layout: Path, bundles: Path, *changes: object) -> None:
    """Make an image of one layer for each change of its root file system."""
    umoci("init", "--layout", str(layout))
    umoci("new", "--image", f"{layout}:os")
    for number, change in enumerate(changes):
        bundle = bundles / str(number)
        umoci("unpack", "--image", f"{layout}:os", str(bundle))
        change(bundle / "rootfs")  # type: ignore[operator]
        umoci("repack", "--image", f"{layout}:os", str(bundle))


def populate(root: Path) -> None:
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/share/doc").mkdir(parents=True)
    (root / "usr/share/gone/deep").mkdir(parents=True)
    (root / "usr/share/gone/deep/file").write_text("gone")
    (root / "var/opaque").mkdir(parents=True)
    (root / "var/opaque/old").write_text("old")
    (root / "usr/bin/tool").write_bytes(b"#!" + b"x" * 5000)
    (root / "usr/bin/tool").chmod(0o4755)
    os.chown(root / "usr/bin/tool", 10, 20)
    (root / "usr/bin/tool").chmod(0o4755)
    os.link(root / "usr/bin/tool", root / "usr/bin/alias")
    (root / "usr/bin/small").write_bytes(b"small")
    (root / "usr/bin/empty").touch()
    (root / "usr/bin/link").symlink_to("../share/doc")
    (root / ("usr/share/doc/" + "long" * 40)).write_text("long name")
    os.mkfifo(root / "var/pipe", 0o600)
    os.mknod(root / "var/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "var/disk", stat.S_IFBLK | 0o660, os.makedev(259, 300))
    os.utime(root / "usr/bin/small", (1, 1_000_000_000))


def change(root: Path) -> None:
    subprocess.run(["rm", "-r", root / "usr/share/gone", root / "var/opaque"], check=True)
    (root / "var/opaque").mkdir(mode=0o700)
    (root / "var/opaque/new").write_text("new")
    (root / "usr/bin/small").unlink()
    (root / "usr/bin/small").mkdir()
    (root / "usr/bin/small/inside").write_text("a file became a directory")
    (root / "usr/share/doc").chmod(0o711)
    (root / "usr/bin/alias").unlink()
    (root / "usr/bin/alias").write_text("no link any more")


def test_our_tree_is_what_umoci_extracts(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    build(layout, tmp_path / "bundles", populate, change)
    umoci("unpack", "--image", f"{layout}:os", str(tmp_path / "final"))
    theirs = shape_of_directory(tmp_path / "final/rootfs")
    ours = shape_of_tree(our_tree(f"oci:{layout}:os"))
    del theirs["/"], ours["/"]
    assert ours == theirs
    assert "/usr/share/gone" not in ours
    assert "/var/opaque/old" not in ours


def test_one_layer_with_links_and_devices(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    build(layout, tmp_path / "bundles", populate)
    umoci("unpack", "--image", f"{layout}:os", str(tmp_path / "final"))
    theirs = shape_of_directory(tmp_path / "final/rootfs")
    ours = shape_of_tree(our_tree(f"oci:{layout}:os"))
    del theirs["/"], ours["/"]
    assert ours == theirs
    links = [path for path, value in ours.items() if value[-1] == "/usr/bin/alias"]
    assert links == ["/usr/bin/alias", "/usr/bin/tool"]
