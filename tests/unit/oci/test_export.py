from __future__ import annotations

import io
import logging
import os
import socket
import tarfile
from pathlib import Path

import pytest

from bootc.errors import Error
from bootc.formats.tar import EntryKind, HeaderReader
from bootc.formats.tree import Directory
from bootc.fs.imageroot import ImageRoot
from bootc.fs.outline import Outline
from bootc.fs.tree_read import TreeChanged
from bootc.oci.export import ExportError, exported_tree, write_tar
from support.roots import Root

FILES = "etc/selinux/mine/contexts/files"
TIME_NS = 1_700_000_000_000_000_000


@pytest.fixture
def root(tmp_path: Path) -> Root:
    root = Root(tmp_path / "root").directory("boot", "usr/empty")
    root.file("usr/lib/b", "content of b").file("usr/lib/a-", "a").link("usr/lib/link", "b")
    os.link(root.path / "usr/lib/b", root.path / "usr/lib/hard")
    os.mkfifo(root.path / "usr/pipe")
    for path in (*root.path.rglob("*"), root.path):
        os.utime(path, ns=(0, TIME_NS), follow_symlinks=False)
    return root


def export(root: Root, *, labels: bool = True, copies: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with ImageRoot.open(os.fspath(root.path)) as image:
        outline = Outline.read(image, xattrs=True)
        tree = exported_tree(outline.root, outline.read_content, labels=labels, copies=copies or {})
        write_tar(tree, outline.open, out)
    return out.getvalue()


def listed(archive: bytes) -> list[tuple[str, str]]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return [(member.name, member.linkname) for member in opened]


def test_order_and_links(root: Root) -> None:
    assert listed(export(root)) == [
        ("boot", ""),
        ("usr", ""),
        ("usr/empty", ""),
        ("usr/lib", ""),
        ("usr/lib/a-", ""),
        ("usr/lib/b", ""),
        ("usr/lib/hard", "usr/lib/b"),
        ("usr/lib/link", "b"),
        ("usr/pipe", ""),
    ]


def test_the_same_root_gives_the_same_bytes(root: Root, tmp_path: Path) -> None:
    archive = export(root)
    assert export(root) == archive
    copy = tmp_path / "copy"
    copy.mkdir()
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        # Python 3.11.2 of Debian 12 has no filters yet.
        filters = {"filter": "fully_trusted"} if hasattr(tarfile, "data_filter") else {}
        opened.extractall(copy, **filters)  # type: ignore[arg-type]
    # Python gives links the time of unpacking.
    os.utime(copy / "usr/lib/link", ns=(0, TIME_NS), follow_symlinks=False)
    os.utime(copy / "usr/lib", ns=(0, TIME_NS))
    assert export(Root(copy)) == archive


def test_our_own_reader(root: Root) -> None:
    archive = export(root)
    stream = io.BytesIO(archive)
    found = {}
    for entry in HeaderReader(stream.read):
        found[entry.path] = entry
        stream.seek(entry.size_bytes + entry.padding_bytes, os.SEEK_CUR)
    assert found[b"usr/lib/b"].size_bytes == 12
    assert found[b"usr/lib/hard"].kind is EntryKind.HARDLINK
    assert found[b"usr/lib/link"].link_target == b"b"
    assert {entry.mtime_s for entry in found.values()} == {1_700_000_000}


def test_times_attributes_and_names(root: Root) -> None:
    target = root.path / "usr/lib/b"
    os.setxattr(target, "user.note", b"\xff=\n1")
    os.setxattr(target, "user.a=b%", b"x")
    os.setxattr(target, "user.overlay.origin", b"x")
    os.utime(target, ns=(0, 1_700_000_000_000_000_007))
    odd = os.fsdecode(b"n\xff" + b"long" * 30)
    root.file(f"usr/{odd}", "x")
    with tarfile.open(
        fileobj=io.BytesIO(export(root)), encoding="utf-8", errors="surrogateescape"
    ) as opened:
        headers = opened.getmember("usr/lib/b").pax_headers
        assert opened.getmember(f"usr/{odd}").size == 1
    assert headers == {
        "mtime": "1700000000.000000007",
        "SCHILY.xattr.user.note": os.fsdecode(b"\xff=\n1"),
        "SCHILY.xattr.user.a%3Db%25": "x",
    }


@pytest.mark.root
def test_labels_are_those_of_the_images_policy(root: Root) -> None:
    os.setxattr(root.path / "usr/lib/b", "security.selinux", b"of the host")
    assert b"security.selinux" not in export(root)
    root.file("etc/selinux/config", "SELINUXTYPE=mine\n")
    root.file(
        f"{FILES}/file_contexts",
        "/.* system_u:object_r:any_t:s0\n/usr/lib/hard -- system_u:object_r:hard_t:s0\n",
    )
    assert b"security.selinux" not in export(root, labels=False)
    archive = export(root)
    labels = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        for member in opened:
            labels[member.name] = member.pax_headers.get("SCHILY.xattr.security.selinux")
        # Names of one file that get different labels are files of their own.
        assert opened.getmember("usr/lib/hard").isreg()
    any_label, hard = "system_u:object_r:any_t:s0", "system_u:object_r:hard_t:s0"
    assert {name: text and text.rstrip("\0") for name, text in labels.items()} == {
        name: hard if name == "usr/lib/hard" else any_label for name in labels
    }


def test_a_policy_that_cannot_be_used(root: Root) -> None:
    root.file("etc/selinux/config", "SELINUXTYPE=mine\n")
    with pytest.raises(Error, match="selects the SELinux policy 'mine' but has no"):
        export(root)
    assert export(root, labels=False)


def test_copies(root: Root) -> None:
    archive = export(root, copies={"boot/b": "usr/lib/b", "new/dir/a": "usr/lib/a-"})
    names = listed(archive)
    assert ("boot/b", "") in names
    assert names[3:5] == [("new/dir", ""), ("new/dir/a", "")]
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        for name in ("boot/b", "usr/lib/b"):
            file = opened.extractfile(name)
            assert file is not None
            assert file.read() == b"content of b"


@pytest.mark.parametrize(
    ("copies", "message"),
    [
        ({"boot/x": "usr/lib/nothing"}, "usr/lib/nothing is not a regular file"),
        ({"boot/x": "usr/lib/link"}, "usr/lib/link is not a regular file"),
        ({"usr/pipe/x": "usr/lib/b"}, "/pipe is not a directory"),
        ({"usr/lib/a-": "usr/lib/b"}, "usr/lib/a- is there already"),
    ],
)
def test_copies_that_cannot_be(root: Root, copies: dict[str, str], message: str) -> None:
    with pytest.raises(ExportError) as caught:
        export(root, copies=copies)
    assert caught.value.message == message


def test_a_socket_is_left_out_aloud(root: Root, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        directory = os.open(root.path, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{directory}/a b")
        os.close(directory)
        with caplog.at_level(logging.WARNING):
            names = listed(export(root))
    assert [name for name, _ in names][:1] == ["boot"]
    assert caplog.messages == ["no archive can hold the socket '/a b'"]


def test_a_file_that_changes_meanwhile(root: Root) -> None:
    with ImageRoot.open(os.fspath(root.path)) as image:
        outline = Outline.read(image)
        root.file("usr/lib/b", "of another length")
        with pytest.raises(TreeChanged, match="usr/lib/b changed while it was read"):
            write_tar(outline.root, outline.open, io.BytesIO())


def test_an_empty_root() -> None:
    out = io.BytesIO()
    write_tar(Directory(), lambda digest: -1, out)
    assert out.getvalue().strip(b"\0") == b""
