"""Images made and unpacked by umoci: our tree of an image is the tree umoci extracts."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from support.umoci import our_tree, shape_of_directory, shape_of_tree, umoci

pytestmark = pytest.mark.interop


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
