from __future__ import annotations

import io
import tarfile
from typing import Any

import pytest

from bootc.formats.tar import BLOCK_BYTES, Entry, EntryKind, HeaderReader
from bootc.formats.tarvalues import TarError
from support.images import MTIME, directory, file, hardlink, layer, member, symlink


def read(data: bytes) -> list[Entry]:
    stream = io.BytesIO(data)
    entries = []
    for entry in HeaderReader(stream.read):
        stream.seek(entry.size_bytes + entry.padding_bytes, io.SEEK_CUR)
        entries.append(entry)
    return entries


def header(**fields: bytes) -> bytes:
    """Make a raw header; fields left out are those of an empty file ``f``."""
    layout = {
        "name": (0, 100, b"f"),
        "mode": (100, 8, b"0000644\0"),
        "uid": (108, 8, b"0000000\0"),
        "gid": (116, 8, b"0000000\0"),
        "size": (124, 12, b"00000000000\0"),
        "mtime": (136, 12, b"00000000000\0"),
        "typeflag": (156, 1, b"0"),
        "linkname": (157, 100, b""),
        "magic": (257, 8, b"ustar\x0000"),
        "devmajor": (329, 8, b""),
        "devminor": (337, 8, b""),
        "prefix": (345, 155, b""),
    }
    block = bytearray(BLOCK_BYTES)
    for name, (offset, size, default) in layout.items():
        value = fields.get(name, default)
        assert len(value) <= size
        block[offset : offset + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = fields.get("checksum", b"%06o\0 " % sum(block))
    return bytes(block)


def extension(kind: bytes, data: bytes) -> bytes:
    return header(typeflag=kind, size=b"%011o\0" % len(data)) + data + bytes(-len(data) % 512)


def sparse_header(*, goes_on: bool) -> bytes:
    """An old GNU header whose map of holes goes on in another block, or does not."""
    return header(typeflag=b"S", prefix=bytes(137) + bytes([goes_on]))


def pax(**records: bytes | str) -> bytes:
    text = b""
    for key, value in records.items():
        raw = value.encode() if isinstance(value, str) else value
        body = b" " + key.replace("__", ".").encode() + b"=" + raw + b"\n"
        length = len(body) + 1
        while len(str(length)) + len(body) != length:
            length += 1
        text += b"%d" % length + body
    return extension(b"x", text)


END = bytes(1024)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_in_every_format(format: int) -> None:
    name = "d/" * 30 + "n" * 60
    entries = read(
        layer(
            directory("usr/", 0o755, uid=1, gid=2),
            file(name, b"content", 0o4755),
            symlink("link", "../target"),
            hardlink("hard", name[-90:]),
            member("char", tarfile.CHRTYPE, devmajor=5, devminor=259),
            member("block", tarfile.BLKTYPE, devmajor=259, devminor=1048575),
            member("fifo", tarfile.FIFOTYPE),
            format=format,
        )
    )
    assert [(e.kind, e.path) for e in entries] == [
        (EntryKind.DIRECTORY, b"usr/"),
        (EntryKind.FILE, name.encode()),
        (EntryKind.SYMLINK, b"link"),
        (EntryKind.HARDLINK, b"hard"),
        (EntryKind.CHAR_DEVICE, b"char"),
        (EntryKind.BLOCK_DEVICE, b"block"),
        (EntryKind.FIFO, b"fifo"),
    ]
    usr, regular, link, hard, char, block, _ = entries
    assert (usr.mode, usr.uid, usr.gid, usr.mtime_s, usr.mtime_ns) == (0o755, 1, 2, MTIME, 0)
    assert (regular.mode, regular.size_bytes, regular.padding_bytes) == (0o4755, 7, 505)
    assert link.link_target == b"../target"
    assert hard.link_target == name[-90:].encode()
    assert char.rdev == 0x00100503
    assert block.rdev == 0xFFF103FF
    assert [e.rdev for e in (usr, regular, link, hard)] == [0] * 4


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names(format: int) -> None:
    name, target = "n" * 3000, "t" * 2000
    (entry,) = read(layer(symlink(name, target), format=format))
    assert entry.path == name.encode()
    assert entry.link_target == target.encode()
    assert len(entry.raw) > 512
    assert entry.offset == 0
    assert entry.body_offset == len(entry.raw)


def test_nothing_is_lost() -> None:
    data = layer(file("a" * 200, b"x" * 1000), file("b"), format=tarfile.GNU_FORMAT)
    stream = io.BytesIO(data)
    headers = HeaderReader(stream.read)
    again = b""
    for entry in headers:
        assert entry.offset == len(again)
        again += entry.raw
        again += stream.read(entry.size_bytes + entry.padding_bytes)
    assert headers.trailer == END
    assert again + headers.trailer + stream.read() == data


def test_pax_wins_over_gnu_over_header() -> None:
    gnu = extension(b"L", b"from gnu\0") + extension(b"K", b"gnu link\0")
    (entry,) = read(gnu + header(typeflag=b"2", linkname=b"old") + END)
    assert (entry.path, entry.link_target) == (b"from gnu", b"gnu link")
    over = pax(path="from pax", linkpath="pax link", uid="70000", gid="4294967295")
    (entry,) = read(over + gnu + header(typeflag=b"2", linkname=b"old") + END)
    assert (entry.path, entry.link_target) == (b"from pax", b"pax link")
    assert (entry.uid, entry.gid) == (70000, 4294967295)
    # POSIX: an empty value undoes; the header counts again.
    (entry,) = read(pax(path="", uid="", mtime="") + header() + END)
    assert (entry.path, entry.uid, entry.mtime_s) == (b"f", 0, 0)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1.123456789", (1, 123456789)),
        ("1.5", (1, 500000000)),
        ("1.000000001", (1, 1)),
        ("1.1234567899", (1, 123456789)),
        ("1", (1, 0)),
        ("1.", (1, 0)),
        ("1.x", (1, 0)),
        ("1.-5", (1, 0)),
        (str((1 << 63) - 1), ((1 << 63) - 1, 0)),
        ("-1", (-1, 0)),
        ("-0", (0, 0)),
        ("-86400.", (-86400, 0)),
        # A quarter of a second before 1970 is in the second that began a whole one before.
        ("-0.25", (-1, 750_000_000)),
        ("-1.5", (-2, 500_000_000)),
        ("-1.000000001", (-2, 999_999_999)),
        ("-1.0000000000", (-1, 0)),
        # Beyond nanoseconds: towards the past, as GNU tar.
        ("-1.0000000001", (-2, 999_999_999)),
        ("-0.9999999999", (-1, 0)),
        ("0.9999999999", (0, 999_999_999)),
        ("-1.x", (-1, 0)),
        (str(-1 << 63), (-1 << 63, 0)),
        (f"{(-1 << 63) + 1}.999999999", (-1 << 63, 1)),
    ],
)
def test_pax_mtime(text: str, wanted: tuple[int, int]) -> None:
    (entry,) = read(pax(mtime=text) + header(mtime=b"7") + END)
    assert (entry.mtime_s, entry.mtime_ns) == wanted


def test_pax_size_and_xattrs() -> None:
    records = pax(
        size="3",
        SCHILY__xattr__user__b=b"\0\xff\n=",
        SCHILY__xattr__empty=b"",
        LIBARCHIVE__xattr__user__c="ignored",
        comment="ignored",
    )
    (entry,) = read(records + header() + b"abc".ljust(512, b"\0") + END)
    assert entry.size_bytes == 3
    assert entry.xattrs == {b"user.b": b"\0\xff\n=", b"empty": b""}


def test_later_pax_record_wins() -> None:
    data = b"11 path=aa\n11 path=bb\n"
    (entry,) = read(extension(b"x", data) + header() + END)
    assert entry.path == b"bb"


def test_global_headers_have_no_effect_but_stay() -> None:
    marker = extension(b"g", b"12 path=xxx\n")
    entries = read(marker + header() + marker + END)
    assert [e.path for e in entries] == [b"f"]
    assert entries[0].raw == marker + header()
    stream = io.BytesIO(header() + marker + END)
    headers = HeaderReader(stream.read)
    assert len(list(headers)) == 1
    assert headers.trailer == marker + END


BODILESS = {b"1": b"f", b"2": b"f", b"3": b"", b"4": b"", b"5": b"", b"6": b""}


@pytest.mark.parametrize("by_pax", [False, True])
@pytest.mark.parametrize("size", [1, 511, 512, 513, 4096, 1 << 20])
@pytest.mark.parametrize(("typeflag", "linkname"), BODILESS.items())
def test_sizes_of_entries_without_a_body(
    typeflag: bytes, linkname: bytes, size: int, by_pax: bool
) -> None:
    """Go's reader takes the next header; where there is none, the bytes are skipped."""
    fields = {} if by_pax else {"size": b"%011o\0" % size}
    odd = header(name=b"odd", typeflag=typeflag, linkname=linkname, **fields)
    if by_pax:
        odd = pax(size=str(size)) + odd
    after = header(name=b"after", size=b"3") + b"abc".ljust(512, b"\0")
    body = b"x" * size + bytes(-size % 512)
    for end in (b"", bytes(512), END):
        for between in (b"", body):
            data = header() + odd + between + after + end
            entries = read(data)
            assert [(e.path, e.size_bytes) for e in entries] == [
                (b"f", 0),
                (b"odd", 0),
                (b"after", 3),
            ]
            stream = io.BytesIO(data)
            headers = HeaderReader(stream.read)
            pieces = [e.raw + stream.read(e.size_bytes + e.padding_bytes) for e in headers]
            assert b"".join(pieces) + headers.trailer == data
        # The last entry of all.
        assert [e.path for e in read(header() + odd + body + end)] == [b"f", b"odd"]
        assert [e.path for e in read(header() + odd + end)] == [b"f", b"odd"]


@pytest.mark.parametrize("zeros", [1, 20, 500, 600])
def test_pax_data_padded_by_zeros(zeros: int) -> None:
    (entry,) = read(extension(b"x", b"11 path=aa\n" + bytes(zeros)) + header() + END)
    assert entry.path == b"aa"
    assert read(extension(b"x", bytes(zeros)) + header())[0].path == b"f"


@pytest.mark.parametrize("count", [17, 1000])
def test_many_global_headers(count: int) -> None:
    marker = extension(b"g", b"13 comment=x\n")
    (entry,) = read(marker * count + header() + END)
    assert entry.raw == marker * count + header()


def test_base_256() -> None:
    def encoded(value: int, size: int) -> bytes:
        return (value | 0x80 << 8 * (size - 1)).to_bytes(size, "big")

    (entry,) = read(
        header(uid=encoded(3_000_000_000, 8), mtime=encoded(1 << 40, 12), size=encoded(0, 12))
    )
    assert (entry.uid, entry.mtime_s) == (3_000_000_000, 1 << 40)


@pytest.mark.parametrize("seconds", [-1, -5, -86400, -(1 << 31) - 1, -(1 << 40), -(1 << 63)])
def test_base_256_before_1970(seconds: int) -> None:
    (entry,) = read(header(mtime=seconds.to_bytes(12, "big", signed=True)))
    assert (entry.mtime_s, entry.mtime_ns) == (seconds, 0)
    # As Python writes it, in the header and in a record.
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        (entry,) = read(layer(file("f", mtime=seconds), format=form))
        assert (entry.mtime_s, entry.mtime_ns) == (seconds, 0)


@pytest.mark.parametrize("mode", [b"644", b" 644 \0", b"\0\x30644", b"0000644 ", b"0100644\0"])
def test_octal_spellings(mode: bytes) -> None:
    (entry,) = read(header(mode=mode, uid=b"", gid=b" \0"))
    assert (entry.mode, entry.uid, entry.gid) == (0o644, 0, 0)


@pytest.mark.parametrize("end", [b"", END, END + b"anything", bytes(512)])
def test_ends(end: bytes) -> None:
    assert [e.path for e in read(header() + end)] == [b"f"]
    assert read(end[:1024]) == []


def test_prefix_belongs_to_ustar_only() -> None:
    assert read(header(prefix=b"p/q"))[0].path == b"p/q/f"
    # In GNU headers these bytes are times.
    assert read(header(prefix=b"p/q", magic=b"ustar  \0"))[0].path == b"f"
    assert read(header(prefix=b"p/q", magic=b""))[0].path == b"f"


@pytest.mark.parametrize(
    ("data", "message", "offset"),
    [
        (b"x" * 100, "truncated header", 100),
        (b"x" * 512, "checksum is no number", 0),
        (header(checksum=b"000000\0 "), "wrong header checksum", 0),
        (header() + header(checksum=b"000000\0 "), "wrong header checksum", 512),
        (header(size=b"9"), "size is no number", 0),
        (header(size=b"0o17"), "size is no number", 0),
        (header(size=b"1_0"), "size is no number", 0),
        (header(size=b"-1"), "size is no number", 0),
        (header(size=b"\xff" * 12), "negative size", 0),
        (header(size=b"\x80\xff" + bytes(10)), "size out of range", 0),
        (header(uid=b"\x80\0\0\1\0\0\0\0"), "uid out of range", 0),
        (header(mtime=b"\x80\xff" + bytes(10)), "mtime out of range", 0),
        (sparse_header(goes_on=True), "truncated sparse map", 512),
        (sparse_header(goes_on=True) + b"x" * 99, "truncated header", 611),
        (sparse_header(goes_on=True) + b"x" * 512 * 2048, "sparse map too long", 0),
        (header(typeflag=b"V"), "unknown entry type b'V'", 0),
        (header(typeflag=b"\xff"), r"unknown entry type b'\\xff'", 0),
        (header(name=b""), "empty path", 0),
        (header(typeflag=b"2"), "empty link target", 0),
        (header(typeflag=b"1"), "empty link target", 0),
        (header(typeflag=b"5", size=b"7777777") + b"x" * 512, "a body of 2097151 bytes", 512),
        (header(typeflag=b"5", size=b"2000") + b"x" * 600, "truncated body", 1112),
        (header(typeflag=b"5", size=b"1") + b"x" * 1024, "checksum is no number", 1024),
        (header(typeflag=b"3", devmajor=b"10000"), "device major out of range", 0),
        (header(typeflag=b"4", devminor=b"4000000"), "device minor out of range", 0),
        (bytes(512) + header(), "a zero block with an entry after it", 0),
        (header() + bytes(512) + header(), "a zero block with an entry after it", 512),
        (header() + bytes(612), "truncated header", 1124),
        (pax(path="x") + END, "extension header without an entry", 1024),
        (extension(b"L", b"x"), "extension header without an entry", 1024),
        (extension(b"L", b"x")[:600], "truncated extension header", 600),
        (extension(b"L", b"x") * 2, "second GNU long name", 1024),
        (extension(b"K", b"x") * 2, "second GNU long link", 1024),
        (pax(path="x") * 2, "second pax header", 1024),
        (extension(b"g", b"") * 2049, "too many global pax headers", 2048 * 512),
        (extension(b"g", b"x" * 999_999) * 2, "too many global pax headers", 1_000_448 + 512),
        (
            extension(b"x", b"")
            + extension(b"L", b"x" * 600_000)
            + extension(b"K", b"x" * 600_000),
            "too large extension headers",
            512 + 512 + 600_064,
        ),
        (header(typeflag=b"x", size=b"4000001"), "size out of range", 0),
        (extension(b"L", b"x" * 5000) + header(), "path of 5000 bytes", 5632),
        (extension(b"x", b"nonsense") + header(), "bad pax record length", 512),
        (extension(b"x", b"0 a=b\n") + header(), "bad pax record length", 512),
        (extension(b"x", b"99 a=b\n") + header(), "bad pax record length", 512),
        (extension(b"x", b"6 a=b.") + header(), "bad pax record length", 512),
        (extension(b"x", b"99999999999 a=b\n") + header(), "bad pax record length", 512),
        (extension(b"x", b"6 a=b\n5 ab\n") + header(), "bad pax record", 518),
        (extension(b"x", b"6 =ab\n") + header(), "bad pax record", 512),
        (pax(path=b"a\0b") + header(), "zero byte in path", 1024),
        (header(mtime=b"\xff\x7f" + bytes(10)), "mtime out of range", 0),
        (header(mtime=b"\xff" * 4 + b"\x7f" + b"\xff" * 7), "mtime out of range", 0),
        (header(uid=b"\xff" * 8), "negative uid", 0),
        (header(mode=b"\xff" * 8), "negative mode", 0),
        (header(mtime=b"-0000000005"), "mtime is no number", 0),
        (pax(mtime=str((-1 << 63) - 1)) + header(), "pax mtime is no number in range", 1024),
        (pax(mtime=f"{-1 << 63}.5") + header(), "pax mtime is no number in range", 1024),
        (pax(mtime=str(1 << 63)) + header(), "pax mtime is no number in range", 1024),
        (pax(mtime="--1") + header(), "pax mtime is no number in range", 1024),
        (pax(mtime="-") + header(), "pax mtime is no number in range", 1024),
        (pax(mtime="-.5") + header(), "pax mtime is no number in range", 1024),
        (pax(uid="-1") + header(), "pax uid is no number in range", 1024),
        (pax(mtime="1e5") + header(), "pax mtime is no number in range", 1024),
        (pax(uid="4294967296") + header(), "pax uid is no number in range", 1024),
        (pax(size="9" * 1000) + header(), "pax size is no number in range", 1536),
        (pax(size="\u0663") + header(), "pax size is no number in range", 1024),
        (pax(SCHILY__xattr__="x") + header(), "bad name of an extended attribute", 1024),
    ],
)
def test_refused(data: bytes, message: str, offset: int) -> None:
    with pytest.raises(TarError, match=message) as caught:
        read(data)
    assert caught.value.offset == offset
    assert f"at offset {offset}" in caught.value.message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        # Of the entry itself, as soon as its path is known.
        (header(name=b"usr/old", mtime=b"\xc0" * 12), "entry 'usr/old': mtime out of range"),
        (
            pax(mtime=str(-1 << 64)) + header(name=b"usr/old"),
            "entry 'usr/old': pax mtime is no number",
        ),
        (pax(path="usr/x" * 40, mtime="?") + header(), f"entry '{'usr/x' * 40}': pax mtime"),
        (extension(b"L", b"a\xff\n") + header(uid=b"x"), "entry 'a\\xff\\n': uid is no number"),
        (header(prefix=b"p/q", typeflag=b"V"), "entry 'p/q/f': unknown entry type b'V'"),
        (header(typeflag=b"2"), "entry 'f': empty link target"),
        (sparse_header(goes_on=True), "entry 'f': truncated sparse map"),
        # Otherwise of the last good one.
        (header(checksum=b"000000\0 "), "wrong header checksum at offset 0"),
        (
            header(name=b"a/b") + b"x" * 512,
            "checksum is no number at offset 512, after entry 'a/b'",
        ),
        (
            header() + pax(path=b"a\0b") + header(),
            "zero byte in path at offset 1536, after entry 'f'",
        ),
        (
            header() + extension(b"x", b"99 a=b\n"),
            "bad pax record length at offset 1024, after entry 'f'",
        ),
        (header() + header()[:99], "truncated header at offset 611, after entry 'f'"),
        (
            header() + bytes(512) + header(),
            "a zero block with an entry after it at offset 512, after entry 'f'",
        ),
        (
            header(typeflag=b"5", size=b"7777777") + b"x" * 512,
            "a body of 2097151 bytes that belongs to no file at offset 512, after entry 'f'",
        ),
        (header() + header(uid=b"x"), "entry 'f': uid is no number at offset 512"),
    ],
)
def test_errors_name_the_entry(data: bytes, message: str) -> None:
    with pytest.raises(TarError) as caught:
        read(data)
    assert caught.value.message.startswith(f"bad tar archive: {message}")
    assert str(caught.value) == caught.value.message
    assert caught.value.message.count("entry ") == message.count("entry ")


def test_of_repeated_records_the_last_counts() -> None:
    """POSIX and Go's archive/tar; also where they contradict the header."""
    records = extension(
        b"x",
        b"9 path=a\n9 path=b\n8 uid=1\n8 uid=2\n"
        + b"23 SCHILY.xattr.user=1\n"
        + b"23 SCHILY.xattr.user=2\n",
    )
    (entry,) = read(records + header(name=b"f"))
    assert (entry.path, entry.uid, entry.xattrs) == (b"b", 2, {b"user": b"2"})


def test_real_headers_agree_with_tarfile() -> None:
    members: list[Any] = [
        file("x" * n, bytes(n), n & 0o7777, uid=n, gid=n * 7, mtime=n * 1.25)
        for n in (1, 99, 100, 101, 255, 256, 600, 3000)
    ]
    data = layer(*members)
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8") as archive:
        theirs = [(m.name, m.mode, m.uid, m.gid, m.size, float(m.mtime)) for m in archive]
    ours = [
        (e.path.decode(), e.mode, e.uid, e.gid, e.size_bytes, e.mtime_s + e.mtime_ns / 1e9)
        for e in read(data)
    ]
    assert ours == theirs
