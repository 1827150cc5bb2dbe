from __future__ import annotations

import pytest

from bootc.formats.digest import Algorithm, Digest
from bootc.formats.libcomposefs.tree import (
    CTree,
    Omissions,
    Stated,
    as_scanned,
    list_lines,
    object_path,
    objects,
    only,
)
from bootc.formats.tree import (
    BlockDevice,
    CharDevice,
    Directory,
    External,
    Fifo,
    Inline,
    Leaf,
    Redirected,
    Sparse,
    Stat,
    Symlink,
    Unverified,
)

DIGEST = Digest(Algorithm.SHA256, bytes(range(32)))
PATH = DIGEST.object_path.encode()


def tree() -> Directory:
    xattrs = {b"user.a": b"1", b"security.b": b"2", b"userx": b"3"}
    file = Leaf(Stat(0o644, 1, 2, 3, 4, dict(xattrs)), External(DIGEST, 100))
    return Directory(
        Stat(0o755, 0, 0, -5, 6, dict(xattrs)),
        {
            b"file": file,
            b"dir": Directory(Stat(xattrs=dict(xattrs)), {b"same": file, b"w": leaf(0)}),
            b"tty": leaf(5),
            b"disk": Leaf(Stat(), BlockDevice(8)),
            b"fifo": Leaf(Stat(mtime_s=9), Fifo()),
        },
    )


def leaf(rdev: int) -> Leaf:
    return Leaf(Stat(), CharDevice(rdev))


def test_hard_links_become_files() -> None:
    root = tree()
    as_scanned(root, Omissions())
    one, other = root.lookup("file"), root.lookup("dir/same")
    assert isinstance(one, Leaf)
    assert isinstance(other, Leaf)
    assert one is not other
    assert one.stat == other.stat == tree().entries[b"file"].stat
    assert one.content == other.content == External(DIGEST, 100)


def test_without_times() -> None:
    root = tree()
    as_scanned(root, Omissions(times=True))
    assert {(node.stat.mtime_s, node.stat.mtime_ns) for _, node in root.walk()} == {(0, 0)}


def test_without_devices() -> None:
    root = tree()
    as_scanned(root, Omissions(devices=True))
    paths = [path for path, _ in root.walk()]
    assert paths == [b"/", b"/dir", b"/dir/same", b"/fifo", b"/file"]


@pytest.mark.parametrize(
    ("omit", "left"),
    [
        (Omissions(xattrs=True), []),
        (Omissions(system_xattrs=True), [b"user.a"]),
        (Omissions(xattrs=True, system_xattrs=True), []),
        (Omissions(), [b"user.a", b"security.b", b"userx"]),
    ],
)
def test_without_xattrs(omit: Omissions, left: list[bytes]) -> None:
    root = tree()
    as_scanned(root, omit)
    for path in "/", "dir", "file", "dir/same":
        node = root.lookup(path)
        assert node is not None
        assert list(node.stat.xattrs) == left


def test_only_some_entries_of_the_root() -> None:
    root = tree()
    stated = {root: Stated(3, size_bytes=99), root.entries[b"dir"]: Stated(2, size_bytes=5)}
    some = only(CTree(root, stated), [b"dir", b"same", b""])
    assert [path for path, _ in some.root.walk()] == [b"/", b"/dir", b"/dir/same", b"/dir/w"]
    assert some.root.stat == root.stat
    assert [some.stated.get(node) for _, node in some.root.walk()] == [*stated.values(), None, None]
    assert len(root.entries) == 5


@pytest.mark.parametrize(
    ("content", "path"),
    [
        (External(DIGEST, 9), PATH),
        (Redirected(DIGEST, 9, b"x y"), b"x y"),
        (Redirected(DIGEST, 9, b""), b""),
        (Unverified(b"/a", 9), b"/a"),
        (Sparse(9), b""),
        (Inline(b"x"), b""),
        (Symlink(b"x"), b""),
    ],
)
def test_where_content_is(content, path: bytes) -> None:
    root = Directory(entries={b"a": Leaf(Stat(), content), b"b": Leaf(Stat(), content)})
    assert object_path(content) == path
    assert objects(root) == ({path} if path else set())


def test_lines() -> None:
    root = tree()
    root.entries |= {
        b"link": Leaf(Stat(), Symlink(b"a b\\\xff")),
        rb"n \x20" + b"\n": Leaf(Stat(), Unverified(b"a b", 5)),
        b"none": Leaf(Stat(), Redirected(DIGEST, 9, b"")),
    }
    assert list(list_lines(root)) == [
        b"/dir/\t\n",
        b"/dir/same\t@ " + PATH + b"\n",
        b"/dir/w\n",
        b"/disk\n",
        b"/fifo\n",
        b"/file\n",
        b"/link\t-> a\\x20b\\\\\\xff\n",
        b"/n \\\\x20\\n\t@ a\\x20b\n",
        b"/none\n",
        b"/tty\n",
    ]
