from __future__ import annotations

import pytest

from bootc.formats.digest import Algorithm, Digest
from bootc.formats.dumpfile import DumpfileError, parse_dumpfile, write_dumpfile
from bootc.formats.tree import (
    BlockDevice,
    CharDevice,
    Content,
    Directory,
    External,
    Fifo,
    Inline,
    Leaf,
    Socket,
    Sparse,
    Stat,
    Symlink,
    Unverified,
)

HEX = "093756e4ea9683329106d4a16982682ed182c14bf076463a9e7f97305cbac743"
OBJECT = HEX[:2] + "/" + HEX[2:]
LONG_HEX = "ab" * 64
ROOT = "/ 0 40755 2 0 0 0 0.0 - - -"

#: Content, and how it stands in a line from SIZE on (uid 1, gid 2, mtime 3 s 5 ns).
CONTENTS: list[tuple[Content, str]] = [
    (Inline(b"hi\n"), "3 100644 1 1 2 0 3.5 - hi\\n -"),
    (Inline(b"-"), "1 100644 1 1 2 0 3.5 - \\x2d -"),
    (Inline(b""), "0 100644 1 1 2 0 3.5 - - -"),
    (Inline(b"\\\t\r \xff="), "6 100644 1 1 2 0 3.5 - \\\\\\t\\r\\x20\\xff= -"),
    (External(Digest.from_hex(HEX), 4097), f"4097 100644 1 1 2 0 3.5 {OBJECT} - {HEX}"),
    (
        External(Digest(Algorithm.SHA512, b"\xab" * 64), 65),
        f"65 100644 1 1 2 0 3.5 ab/{LONG_HEX[2:]} - {LONG_HEX}",
    ),
    (Unverified(b"ab/cd.file", 7), "7 100644 1 1 2 0 3.5 ab/cd.file - -"),
    (Sparse(7), "7 100644 1 1 2 0 3.5 - - -"),
    (Symlink(b"a b"), "3 120644 1 1 2 0 3.5 a\\x20b - -"),
    (Symlink(b"-"), "1 120644 1 1 2 0 3.5 \\x2d - -"),
    (CharDevice(0), "0 20644 1 1 2 0 3.5 - - -"),
    (CharDevice(10769), "0 20644 1 1 2 10769 3.5 - - -"),
    (BlockDevice(107690), "0 60644 1 1 2 107690 3.5 - - -"),
    (Fifo(), "0 10644 1 1 2 0 3.5 - - -"),
    (Socket(), "0 140644 1 1 2 0 3.5 - - -"),
]


@pytest.mark.parametrize(("content", "columns"), CONTENTS)
def test_each_content_both_ways(content: Content, columns: str) -> None:
    leaf = Leaf(Stat(0o644, 1, 2, 3, 5), content)
    lines = [ROOT.encode() + b"\n", f"/f {columns}\n".encode()]
    assert list(write_dumpfile(Directory(Stat(0o755), {b"f": leaf}))) == lines
    parsed = parse_dumpfile(lines).entries[b"f"]
    assert isinstance(parsed, Leaf)
    assert parsed.content == content
    assert parsed.stat == leaf.stat


def test_order_links_and_xattrs() -> None:
    file = Leaf(Stat(0o4755, xattrs={b"user.b=": b"-", b"user.a b": b"=\0"}), Inline(b""))
    root = Directory(
        Stat(0o755),
        {
            b"z": file,
            b"a-": Directory(Stat(0o1777)),
            b"a": Directory(Stat(), {b"\xc3\xa4=": file}),
        },
    )
    assert list(write_dumpfile(root)) == [
        b"/ 0 40755 4 0 0 0 0.0 - - -\n",
        b"/a 0 40000 2 0 0 0 0.0 - - -\n",
        b"/a/\\xc3\\xa4= 0 104755 2 0 0 0 0.0 - - - user.a\\x20b=\\x3d\\x00 user.b\\x3d=-\n",
        b"/a- 0 41777 2 0 0 0 0.0 - - -\n",
        b"/z 0 @120000 - - - - 0.0 /a/\\xc3\\xa4= - -\n",
    ]
    again = parse_dumpfile(write_dumpfile(root))
    assert again.lookup(b"z") is again.lookup(b"a/\xc3\xa4=")
    assert again.entries[b"z"].stat == file.stat


def test_a_part_of_a_tree() -> None:
    shared = Leaf(Stat(0o644), Inline(b"x"))
    root = Directory(
        Stat(0o755),
        {
            b"a": Directory(Stat(0o755), {b"b": shared, b"c": shared}),
            b"a.d": shared,
            b"e": Leaf(Stat(0o777), Symlink(b"a")),
        },
    )
    whole = list(write_dumpfile(root))
    assert list(write_dumpfile(root, top=b"/")) == whole
    assert list(write_dumpfile(root, top=b"/a")) == whole[:4][1:]
    assert list(write_dumpfile(root, top=b"/a/c")) == [whole[2].replace(b"/a/b", b"/a/c")]
    assert list(write_dumpfile(root, top=b"/e")) == whole[-1:]
    assert list(write_dumpfile(root, top=b"/nothing")) == []


def test_what_strictness_still_allows() -> None:
    lines = [
        b"/ 4096 40755 99 0 0 0 -1.5 - - -",
        b"/f 77 100644 9 0 0 0 0.0 - \\x41 - user.empty=",
        b"/d 5 20644 1 0 0 1 0.0 - - -",
        b"/l 142024 @100145 2 0 0 0 1633950376.0 /f - - user.ignored=x",
    ]
    root = parse_dumpfile(lines)
    assert (root.stat.mtime_s, root.stat.mtime_ns) == (-1, 5)
    leaf = root.entries[b"f"]
    assert isinstance(leaf, Leaf)
    assert leaf.content == Inline(b"A"), "the length of the content wins"
    assert leaf.stat.xattrs == {b"user.empty": b""}
    assert root.entries[b"l"] is leaf


@pytest.mark.parametrize(
    ("line", "message", "column"),
    [
        ("", "1 columns, needs 11", 1),
        ("/f 0 100644 1 0 0 0 0.0 - -", "10 columns, needs 11", 27),
        ("f 0 100644 1 0 0 0 0.0 - - -", "impossible path 'f'", 1),
        ("a/f 0 100644 1 0 0 0 0.0 - - -", "impossible path 'a/f'", 1),
        ("/old/ 0 100644 1 0 0 0 0.0 - - -", "impossible path '/old/'", 1),
        ("/f/ 0 100644 1 0 0 0 0.0 - - -", "impossible path '/f/'", 1),
        ("// 0 100644 1 0 0 0 0.0 - - -", "impossible path '//'", 1),
        ("/./f 0 100644 1 0 0 0 0.0 - - -", "impossible path", 1),
        ("/.. 0 100644 1 0 0 0 0.0 - - -", "impossible path", 1),
        ("/a\\x00 0 100644 1 0 0 0 0.0 - - -", "impossible path", 1),
        (f"/{'n' * 4096} 0 100644 1 0 0 0 0.0 - - -", "impossible path", 1),
        ("/\\q 0 100644 1 0 0 0 0.0 - - -", "a backslash that begins no escape", 2),
        ("/\\x4 0 100644 1 0 0 0 0.0 - - -", "a backslash that begins no escape", 2),
        ("/f\\ 0 100644 1 0 0 0 0.0 - - -", "a backslash that begins no escape", 3),
        ("/ 0 40755 2 0 0 0 0.0 - - -", "/ appears twice", 1),
        ("/no/f 0 100644 1 0 0 0 0.0 - - -", "the parent of '/no/f' is no directory", 1),
        ("/old/f 0 100644 1 0 0 0 0.0 - - -", "the parent of '/old/f' is no directory", 1),
        ("/old 0 100644 1 0 0 0 0.0 - - -", "'/old' appears twice", 1),
        ("/f x 100644 1 0 0 0 0.0 - - -", "impossible size 'x'", 4),
        ("/f 18446744073709551616 100644 1 0 0 0 0.0 - - -", "impossible size", 4),
        (f"/f {'9' * 5000} 100644 1 0 0 0 0.0 - - -", "impossible size", 4),
        ("/f 0 100648 1 0 0 0 0.0 - - -", "impossible mode", 6),
        ("/f 0 0o644 1 0 0 0 0.0 - - -", "impossible mode", 6),
        ("/f 0 20100644 1 0 0 0 0.0 - - -", "impossible mode", 6),
        ("/f 0 644 1 0 0 0 0.0 - - -", "mode '644' has no file type", 6),
        ("/f 0 100644 -1 0 0 0 0.0 - - -", "impossible nlink", 13),
        ("/f 0 100644 1 4294967296 0 0 0.0 - - -", "impossible uid", 15),
        ("/f 0 100644 1 0 1_0 0 0.0 - - -", "impossible gid", 17),
        ("/f 0 100644 1 0 0 +1 0.0 - - -", "impossible rdev", 19),
        ("/f 0 20644 1 0 0 4294967296 0.0 - - -", "impossible rdev", 18),
        ("/f 0 100644 1 0 0 0 0 - - -", "mtime '0' is not SECONDS.NANOSECONDS", 21),
        ("/f 0 100644 1 0 0 0 0.1000000000 - - -", "impossible mtime", 21),
        ("/f 0 100644 1 0 0 0 9223372036854775808.0 - - -", "impossible mtime", 21),
        ("/f 0 100644 1 0 0 0 --1.0 - - -", "impossible mtime", 21),
        ("/f 0 100644 1 0 0 0 0.0  - -", "empty column", 25),
        ("/f 0 100644 1 0 0 0 0.0 - - - ", "xattr '' is not key=value", 31),
        ("/f 0 100644 1 0 0 0 0.0 - - - =v", "xattr '=v' is not key=value", 31),
        ("/f 0 100644 1 0 0 0 0.0 - - - user.a", "xattr 'user.a' is not key=value", 31),
        ("/f 0 100644 1 0 0 0 0.0 - - - a=1 \\x61=2", "xattr 'a' appears twice", 35),
        ("/f 1 100644 1 0 0 0 0.0 ab/cd x -", "either content or a payload", 31),
        (f"/f 1 100644 1 0 0 0 0.0 - x {HEX}", "either content or a payload", 27),
        (f"/f 1 100644 1 0 0 0 0.0 - {'x' * 5001} -", "content of 5001 bytes", 27),
        (f"/f 1 100644 1 0 0 0 0.0 - - {HEX}", "the payload is not the object", 25),
        (f"/f 1 100644 1 0 0 0 0.0 ab/cd - {HEX}", "the payload is not the object", 25),
        (f"/f 1 100644 1 0 0 0 0.0 {OBJECT} - {HEX.upper()}", "not an fs-verity digest", 93),
        (f"/f 1 100644 1 0 0 0 0.0 {OBJECT} - {HEX[2:]}", "not an fs-verity digest", 93),
        (f"/f 1 100644 1 0 0 0 0.0 {OBJECT} - \\xff", "not an fs-verity digest", 93),
        ("/f 1 100644 1 0 0 5 0.0 - x -", "a regular file has no device number", 19),
        ("/f 0 40644 1 0 0 5 0.0 - - -", "a directory has no device number", 18),
        ("/f 0 40644 1 0 0 0 0.0 x - -", "a directory has no payload", 24),
        ("/f 0 120644 1 0 0 0 0.0 - - -", "a symlink needs a target", 25),
        ("/f 0 120644 1 0 0 0 0.0 x y -", "a symlink has no content", 27),
        ("/f 0 60644 1 0 0 1 0.0 x - -", "a block device has no payload", 24),
        ("/f 0 20644 2 0 0 0 0.0 - - -", "a whiteout", 12),
        ("/f 0 10644 1 0 0 1 0.0 - - -", "a fifo has no device number", 18),
        (f"/f 0 140644 1 0 0 0 0.0 - - {HEX}", "a socket has no content", 29),
        ("/f 0 @120000 - - - - 0.0 - - -", "'-': no file above", 26),
        ("/f 0 @120000 - - - - 0.0 / - -", "'/': no file above", 26),
        ("/f 0 @120000 - - - - 0.0 /later - -", "'/later': no file above", 26),
        ("/f 0 @120000 - - - - 0.0 /link - -", "'/link': no file above", 26),
        ("/f 0 @120000 - - - - 0.0 /gone - -", "a whiteout", 26),
    ],
)
def test_broken_lines_are_named(line: str, message: str, column: int) -> None:
    good = [
        ROOT,
        "/gone 0 20644 1 0 0 0 0.0 - - -",
        "/old 0 100644 1 0 0 0 0.0 - - -",
        "/link 0 @120000 - - - - 0.0 /old - -",
    ]
    lines = [text.encode() for text in [*good, line]]
    with pytest.raises(DumpfileError, match=message) as caught:
        parse_dumpfile(lines)
    assert caught.value.message.startswith(f"dumpfile line 5, column {column} (")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "dumpfile: no lines"),
        (["/f 0 100644 1 0 0 0 0.0 - - -"], r"line 1, column 1 \(path\): / must come first"),
        (["x 0 100644 1 0 0 0 0.0 - - -"], "impossible path 'x'"),
        (["/ 0 100644 1 0 0 0 0.0 - - -"], r"line 1, column 5 \(mode\): / is a directory"),
        (["/ 0 @120000 - - - - 0.0 /f - -"], r"line 1, column 5 \(mode\): / is a directory"),
    ],
)
def test_the_root_comes_first(lines: list[str], message: str) -> None:
    with pytest.raises(DumpfileError, match=message):
        parse_dumpfile([line.encode() for line in lines])
