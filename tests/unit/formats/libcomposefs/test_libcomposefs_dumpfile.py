"""What the C tools take and write beyond the strict grammar."""

from __future__ import annotations

import pytest

from bootc.formats.digest import Digest
from bootc.formats.dumpfile import DumpfileError
from bootc.formats.libcomposefs.dumpfile import parse_dumpfile, write_dumpfile
from bootc.formats.libcomposefs.tree import CTree, Stated
from bootc.formats.tree import (
    CharDevice,
    Content,
    Directory,
    External,
    Fifo,
    Inline,
    Leaf,
    Redirected,
    Socket,
    Sparse,
    Stat,
    Symlink,
    Unverified,
)

HEX = "093756e4ea9683329106d4a16982682ed182c14bf076463a9e7f97305cbac743"
OBJECT = HEX[:2] + "/" + HEX[2:]
ROOT = "/ 0 40755 2 0 0 0 0.0 - - -"
F = "/f {} 100644 1 0 0 0 0.0"


def parse_tree(*lines: str) -> CTree:
    return parse_dumpfile([ROOT.encode(), *(x.encode() for x in lines)])


def parse(*lines: str) -> Directory:
    return parse_tree(*lines).root


@pytest.mark.parametrize(
    ("line", "content"),
    [
        ("/f 0 100644 1 0 0 0 0.0", Inline(b"")),
        ("/f 0 100644 1 0 0 0 0.0 - -", Inline(b"")),
        ("/f 0 10644 1 0 0 7 0.0", Fifo()),
        ("/f 2 140644 1 0 0 0 0.0 ab/cd xx 00", Socket()),
        ("f 3 100644 1 0 0 9 0.0 - abc -", Inline(b"abc")),
        ("///f 3 100644 1 0 0 0 0.0 ab/cd abc 00", Inline(b"abc")),
        ("/f 3 100644 1 0 0 0 0.0 - abc - ", Inline(b"abc")),
        ("/f 0 100644 1 0 0 0 0.0 ab/cd - -", Inline(b"")),
        (f"/f 0 100644 1 0 0 0 0.0 {OBJECT} - {HEX}", Inline(b"")),
        ("/f 3 100644 1 0 0 0 0.0 - - -", Sparse(3)),
        ("/f 3 100644 1 0 0 0 0.0  - -", Sparse(3)),
        ("/f 3 100644 1 0 0 0 0.0 ab/cd - -", Unverified(b"ab/cd", 3)),
        (f"/f 3 100644 1 0 0 0 0.0 {OBJECT} - {HEX.upper()}", External(Digest.from_hex(HEX), 3)),
        (f"/f 3 100644 1 0 0 0 0.0 - - {HEX}", Redirected(Digest.from_hex(HEX), 3, b"")),
        (f"/f 3 100644 1 0 0 0 0.0 ab/cd - {HEX}", Redirected(Digest.from_hex(HEX), 3, b"ab/cd")),
        ("/f 2 120777 1 0 0 0 0.0 target xx 00", Symlink(b"target")),
        ("/f 0 20720777 1 0 0 0 0.0 target", Symlink(b"target")),
        ("/f 0 20777 3 0 0 0 0.0 target", CharDevice(0)),
    ],
)
def test_what_is_taken(line: str, content: Content) -> None:
    leaf = parse(line).entries[b"f"]
    assert isinstance(leaf, Leaf)
    assert leaf.content == content


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", r"column 1 \(path\): impossible path ''"),
        ("/f", r"column 3 \(mode\): impossible mode ''"),
        ("/f 0 100644 1 0 0 0", r"column 20 \(mtime\): mtime '' is not SECONDS.NANOSECONDS"),
        ("/f/ 0 100644 1 0 0 0 0.0 - - -", r"column 1 \(path\): impossible path '/f/'"),
        ("// 0 40755 1 0 0 0 0.0 - - -", r"column 1 \(path\): impossible path '//'"),
        ("a/.. 0 40755 1 0 0 0 0.0 - - -", "no directory above|impossible path"),
        (f"{F} - - -".format(-1), r"column 4 \(size\): impossible size '-1'"),
        (f"{F} - ab -".format(3), r"column 27 \(content\): content of 2 bytes where SIZE says 3"),
        ("/f 3 10644 1 0 0 0 0.0 - ab -", r"column 26 \(content\): content of 2 bytes where"),
        (f"{F} - -".format(3), r"column 28 \(digest\): empty column"),
        (f"{F} - - zz".format(3), r"column 29 \(digest\): not an fs-verity digest"),
        (f"{F} - - - a".format(0), r"column 31 \(xattr\): xattr 'a' is not key=value"),
        (f"{F} - - -  a=b".format(0), r"column 31 \(xattr\): xattr '' is not key=value"),
        ("/l 0 120777 1 0 0 0 0.0", r"column 24 \(payload\): empty column"),
        ("/l 0 @40755 1 0 0 0 0.0 /", r"column 6 \(mode\): a directory cannot be a hard link"),
        ("/l 0 @644 1 0 0 0 0.0 /f", r"column 6 \(mode\): mode '644' has no file type"),
        ("/l 0 @100644 - - - - - /", r"column 24 \(payload\): '/': no file has this as its name"),
        ("/l 0 @100644 - - - - - /l", r"column 24 \(payload\): '/l': no file has this"),
        ("/l 0 @100644 - - - - - /no", r"column 24 \(payload\): '/no': no file has this"),
        ("/l 0 @100644", r"column 13 \(payload\): '': no file has this"),
        ("/d/f 0 @100644 - - - - - /x", r"column 1 \(path\): the parent of '/d/f' is no directory"),
    ],
)
def test_what_is_refused(line: str, message: str) -> None:
    with pytest.raises(DumpfileError, match=f"^dumpfile line 2, .*({message})"):
        parse(line)


def test_the_last_xattr_of_a_name_counts() -> None:
    leaf = parse("/f 0 100644 1 0 0 0 0.0 - - - a=1 b=2 a=3").entries[b"f"]
    assert leaf.stat.xattrs == {b"a": b"3", b"b": b"2"}


def test_hard_links_may_come_before_their_file_and_point_at_each_other() -> None:
    tree = parse_tree(
        "/a 0 @100644 - - - - - /d/b",
        "/d 0 40755 1 0 0 0 0.0",
        "/d/b 0 @100644 - - - - - d//c/",
        "/d/c 0 100644 1 0 0 0 0.0",
        "/e 0 @100644 - - - - - /a",
    )
    root = tree.root
    directory = root.entries[b"d"]
    assert isinstance(directory, Directory)
    leaf = directory.entries[b"c"]
    assert isinstance(leaf, Leaf)
    assert root.entries[b"a"] is root.entries[b"e"] is directory.entries[b"b"] is leaf
    assert tree.stated[leaf] == Stated(1, home=directory, name=b"c")


@pytest.mark.parametrize(
    "lines",
    [
        ["/a 0 @100644 - - - - - /b", "/b 0 @100644 - - - - - /a"],
        [f"/{i} 0 @100644 - - - - - /{(i + 1) % 9}" for i in range(9)],
    ],
)
def test_hard_links_in_a_circle(lines: list[str]) -> None:
    with pytest.raises(DumpfileError, match="no file has this as its name"):
        parse(*lines)


def test_a_hard_link_takes_a_name_like_any_line() -> None:
    with pytest.raises(DumpfileError, match=r"line 4, column 1 \(path\): '/b' appears twice"):
        parse(
            "/a 0 100644 1 0 0 0 0.0",
            "/b 0 @100644 - - - - - /a",
            "/b 0 100644 1 0 0 0 0.0",
        )


def test_long_chains_of_links_cost_no_more_than_lines() -> None:
    count = 20_000
    lines = [f"/{i} 0 @100644 - - - - - /{i + 1}" for i in range(count)]
    root = parse(*lines, f"/{count} 0 100644 1 0 0 0 0.0")
    assert len({id(node) for node in root.entries.values()}) == 1


def test_link_counts_and_whiteouts_with_several_names_are_kept() -> None:
    tree = parse_tree(
        "/w 0 20644 7 0 0 0 0.0", "/x 0 @20644 - - - - - /w", "/y 0 10644 3 0 0 0 0.0"
    )
    root = tree.root
    whiteout, fifo = root.entries[b"w"], root.entries[b"y"]
    assert whiteout is root.entries[b"x"]
    assert isinstance(whiteout, Leaf)
    assert isinstance(fifo, Leaf)
    assert whiteout.content == CharDevice(0)
    assert tree.stated[whiteout] == Stated(7, home=root, name=b"w")
    assert tree.stated[fifo] == Stated(3, home=root, name=b"y")


def test_the_dump_of_the_c_tools() -> None:
    file = Leaf(Stat(0o644, 7, 8, 1, 2, {b"user.b": b"-", b"user.a": b""}), Inline(b"a\n="))
    external = Leaf(Stat(0o644), Redirected(Digest.from_hex(HEX), 10, b"ab/cd"))
    nowhere = Leaf(Stat(0o644), Redirected(Digest.from_hex(HEX), 10, b""))
    root = Directory(
        Stat(0o755),
        {b"a": file, b"b": file, b"d": Directory(), b"e": external, b"f": external, b"g": nowhere},
    )
    stated = {file: Stated(4), external: Stated(5), root: Stated(3, size_bytes=4096)}
    assert list(write_dumpfile(CTree(root, stated))) == [
        b"/ 4096 40755 3 0 0 0 0.0 - - -\n",
        b"/a 3 100644 4 7 8 0 1.2 - a\\n= - user.b=- user.a=\n",
        b"/b 3 @100644 4 7 8 0 1.2 /a a\\n= - user.b=- user.a=\n",
        b"/d 0 40000 2 0 0 0 0.0 - - -\n",
        b"/e 10 100644 5 0 0 0 0.0 ab/cd - " + HEX.encode() + b"\n",
        b"/f 10 @100644 5 0 0 0 0.0 /e - " + HEX.encode() + b"\n",
        b"/g 10 100644 1 0 0 0 0.0 - - " + HEX.encode() + b"\n",
    ]
