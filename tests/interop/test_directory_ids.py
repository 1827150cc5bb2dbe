"""An image unpacked by umoci, read as a directory, has the id that its layers have."""

from __future__ import annotations

import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from bootc.formats.digest import Algorithm
from bootc.formats.dumpfile import write_dumpfile
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.imgref import ImageReference
from bootc.formats.tree import Directory, Leaf
from bootc.formats.verity import verity_digest
from bootc.fs.dir import Dir
from bootc.oci.local import directory_tree
from bootc.oci.names import XattrMode
from bootc.oci.source import open_source
from bootc.oci.trees import image_tree
from support import images, require
from support.images import (
    Member,
    compute_image_id,
    directory,
    file,
    hardlink,
    member,
    symlink,
    xattr,
)

pytestmark = pytest.mark.interop

CAPABILITY = "\x01\x00\x00\x02\x00\x20" + "\x00" * 14
FILES = "etc/selinux/mine/contexts/files"


def at(time: str, **more: str) -> dict[str, dict[str, str]]:
    return {"pax_headers": {"mtime": time, **more}}


def base() -> list[Member]:
    """Everything a layer can hold."""
    return [
        directory("./", 0o700),
        directory("usr", **at("1700000000.123456789")),
        *(directory(name, **at("5.000000005")) for name in ("boot", "sysroot", "run", "dev")),
        directory("usr/bin", 0o711, uid=3, gid=70000, **at("1234567890.5")),
        file("usr/bin/su", b"su" * 3000, 0o4755, gid=9, **at("99.999999999")),
        hardlink("usr/bin/su2", "usr/bin/su"),
        file("usr/bin/small", b"s" * 64, **at("0.1")),
        file("usr/bin/ping", b"p" * 65, **at("7", **xattr("security.capability", CAPABILITY))),
        file("usr/user", b"u", **at("8.8", **xattr("user.note", "kept on demand"))),
        file("usr/" + "long" * 30, b"", **at("2")),
        symlink("usr/link", "../no/where", **at("3.000000003")),
        hardlink("usr/link2", "usr/link"),
        member("dev/null", tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3, **at("4.4")),
        member("dev/sda", tarfile.BLKTYPE, mode=0o660, devmajor=259, devminor=300, **at("4.5")),
        member("dev/pipe", tarfile.FIFOTYPE, mode=0o600, **at("4.6")),
        directory("usr/opaque", **at("6")),
        file("usr/opaque/old", b"old", **at("6")),
        directory("usr/gone", **at("6")),
        directory("usr/gone/deep", **at("6")),
        file("usr/gone/deep/file", b"gone", **at("6")),
        file("usr/replaced", b"a file", **at("6")),
        file("boot/vmlinuz", b"kernel" * 100, **at("6")),
        file("run/lock", b"", **at("6")),
    ]


def change() -> list[Member]:
    """What a second layer can do to the first."""
    return [
        directory("usr", **at("1700000001.000000001")),
        file("usr/.wh.gone"),
        directory("usr/opaque", 0o700, **at("11.11")),
        file("usr/opaque/.wh..wh..opq"),
        file("usr/opaque/new", b"new" * 100, **at("11.12")),
        directory("usr/replaced", **at("12.000000012")),
        file("usr/replaced/inside", b"", **at("12.5")),
        directory("usr/bin", 0o755, **at("13.5")),
        file("usr/bin/su", b"another", 0o755, **at("13.25")),
        directory("boot", **at("5.000000005")),
        file("boot/.wh.vmlinuz"),
    ]


def policy() -> list[Member]:
    rules = b"/.* any\n/usr/bin/su.* -- su\n/usr/bin/su2 two\n/dev/.* -c char\n/usr/link <<none>>\n"
    return [
        *(
            directory(path, **at("20.02"))
            for path in ("etc", "etc/selinux", "etc/selinux/mine", os.path.dirname(FILES), FILES)
        ),
        file("etc/selinux/config", b"#" * 100 + b"\nSELINUXTYPE=mine\n", **at("21")),
        file(f"{FILES}/file_contexts", b"#" * 100 + b"\n" + rules, **at("22")),
        file(f"{FILES}/file_contexts.subs", b"/dev /dev2\n", **at("23")),
    ]


def id_of(tree: Directory) -> str:
    return verity_digest(mkfs_erofs(tree), Algorithm.SHA512).hex


@pytest.fixture(params=["one-layer", "two-layers", "labelled"])
def image(request: pytest.FixtureRequest, tmp_path: Path) -> images.Layout:
    layers = {
        "one-layer": [base()],
        "two-layers": [base(), change()],
        "labelled": [base(), change(), policy()],
    }[request.param]
    return images.single(
        tmp_path / "layout", *(images.layer(*members) for members in layers), tag="os"
    )


def unpack(layout: images.Layout, bundle: Path) -> Path:
    require.root()
    umoci = require.tool("umoci")
    command = [umoci, "unpack", "--image", f"{layout.path}:os", str(bundle)]
    subprocess.run(command, check=True, capture_output=True)
    return bundle / "rootfs"


@pytest.mark.parametrize("bootable", [True, False], ids=["bootable", "plain"])
def test_same_id(image: images.Layout, tmp_path: Path, bootable: bool) -> None:
    with Dir.open(unpack(image, tmp_path / "bundle")) as top:
        theirs = directory_tree(top, bootable=bootable).root
    with open_source(ImageReference.parse(image.reference("os"))) as source:
        ours = image_tree(source, bootable=bootable).root
        assert [*write_dumpfile(theirs)] == [*write_dumpfile(ours)]
        assert id_of(theirs) == compute_image_id(source, bootable=bootable).hex


def test_same_id_with_user_attributes(image: images.Layout, tmp_path: Path) -> None:
    mode = XattrMode.KEEP_USER_XATTRS
    with Dir.open(unpack(image, tmp_path / "bundle")) as top:
        theirs = directory_tree(top, xattrs=mode).root
    with open_source(ImageReference.parse(image.reference("os"))) as source:
        ours = image_tree(source, xattrs=mode).root
    assert [*write_dumpfile(theirs)] == [*write_dumpfile(ours)]
    node = ours.lookup("usr/user")
    assert node is not None
    assert node.stat.xattrs[b"user.note"] == b"kept on demand"


def test_what_the_trees_hold(tmp_path: Path) -> None:
    """The comparison above compares something."""
    members = (base(), change(), policy())
    layout = images.single(tmp_path / "layout", *(images.layer(*m) for m in members), tag="os")
    rootfs = unpack(layout, tmp_path / "bundle")
    with Dir.open(rootfs) as top:
        tree = directory_tree(top).root
    found = {path.decode(): node for path, node in tree.walk()}
    assert tree.stat.mtime_ns == 1
    assert (found["/boot"].stat.mtime_s, found["/boot"].stat.mtime_ns) == (1700000001, 5)
    assert {path for path in found if path.startswith(("/usr/opaque/", "/boot/", "/run/"))} == {
        "/usr/opaque/new"
    }
    assert "/usr/gone" not in found
    assert isinstance(found["/usr/replaced"], Directory)
    # The link kept the inode when the other name was replaced.
    assert found["/usr/bin/su2"].stat.mode == 0o4755
    assert found["/usr/bin/su2"].stat.mtime_ns == 999_999_999
    assert found["/usr/bin/su2"].stat.xattrs == {b"security.selinux": b"two"}
    assert found["/usr/bin/ping"].stat.xattrs == {
        b"security.capability": CAPABILITY.encode(),
        b"security.selinux": b"any",
    }
    # Labelled apart, the links are no links any more.
    link, link2 = found["/usr/link"], found["/usr/link2"]
    assert isinstance(link, Leaf)
    assert isinstance(link2, Leaf)
    assert link is not link2
    assert link.content == link2.content
    assert link.stat.xattrs == {}
    assert link2.stat.xattrs == {b"security.selinux": b"any"}
    assert stat.S_ISCHR(os.stat(rootfs / "dev/null").st_mode)
    assert found["/dev/null"].stat.xattrs == {b"security.selinux": b"any"}
