"""An image has no more metadata than the memory of a machine can hold."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.errors import Error
from bootc.formats.digest import Algorithm, OciDigest
from bootc.formats.splitstream import StreamReader
from bootc.formats.tar import Entry, EntryKind
from bootc.formats.tarvalues import TarError
from bootc.formats.tree import Directory, Inline
from bootc.oci import budget
from bootc.oci.budget import Budget
from bootc.oci.flatten import FlattenError, apply_layer
from bootc.oci.trees import image_tree
from bootc.oci.unpack import entries, split_layer
from bootc.repository.sink import DigestOnly
from support import images
from support.images import file, layer, symlink

LAYER = OciDigest.of(b"layer")


def entry(path: bytes, kind: EntryKind = EntryKind.FILE, **more: object) -> tuple[Entry, Inline]:
    values: dict[str, object] = {"link_target": b"", "xattrs": {}, **more}
    made = Entry(
        *(path, kind, 0o644, 0, 0, 0, 0, 0, values["link_target"], 0, values["xattrs"], 0, b"")  # type: ignore[arg-type]
    )
    return made, Inline(values.get("content", b""))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limit", "value", "rows", "first_refused", "message"),
    [
        ("MAX_ENTRIES", 3, [entry(b"%d" % n) for n in range(9)], "3", "more than 3 entries"),
        # The same name again and again is as much work.
        ("MAX_ENTRIES", 3, [entry(b"x")] * 9, "x", "more than 3 entries"),
        (
            "MAX_IMPLICIT",
            5,
            [entry(b"a/b/c"), entry(b"a/b/d"), entry(b"e/f/g"), entry(b"h/i")],
            None,
            "",
        ),
        (
            "MAX_IMPLICIT",
            5,
            [entry(b"a/b/c/x"), entry(b"e/f/g/x")],
            "e/f/g/x",
            "needs more than 5 directories that no layer lists",
        ),
        (
            "MAX_METADATA_BYTES",
            100,
            [entry(b"n" * 60), entry(b"m" * 60)],
            "m" * 60,
            "more than 100",
        ),
        (
            "MAX_METADATA_BYTES",
            100,
            [entry(b"l", EntryKind.SYMLINK, link_target=b"t" * 100)],
            "l",
            "more than 100 bytes",
        ),
        ("MAX_METADATA_BYTES", 100, [entry(b"a", xattrs={b"user.x": b""})], "a", "100 bytes"),
        ("MAX_METADATA_BYTES", 300, [entry(b"a", xattrs={b"user.x": b"v" * 193})], None, ""),
        (
            "MAX_METADATA_BYTES",
            300,
            [entry(b"a", xattrs={b"user.x": b"v" * 194})],
            "a",
            "300 bytes",
        ),
        (
            "MAX_METADATA_BYTES",
            100,
            [entry(b"f%d" % n, content=b"i" * 40) for n in range(3)],
            "f2",
            "small files",
        ),
    ],
)
@pytest.mark.parametrize("layers", [1, 9])
def test_limits(
    limit: str,
    value: int,
    rows: list[tuple[Entry, Inline]],
    first_refused: str | None,
    message: str,
    layers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They count over all layers of an image."""
    monkeypatch.setattr(budget, limit, value)

    def apply() -> None:
        root, counted = Directory(), Budget()
        for part in [rows] if layers == 1 else [[row] for row in rows]:
            apply_layer(root, LAYER, iter(part), None, counted)

    if first_refused is None:
        apply()
        return
    with pytest.raises(FlattenError, match=message) as caught:
        apply()
    assert caught.value.message.startswith(f"layer {LAYER}: entry {first_refused!r}: ")


def test_an_image_is_counted_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_ENTRIES", 10)
    layers = [
        images.bootable(),
        layer(file("a"), file("b")),
        layer(*(file(f"{n}") for n in range(4))),
    ]
    layout = images.single(tmp_path / "layout", *layers)
    with (
        images.opened(layout) as source,
        pytest.raises(Error, match="entry '3': the image has more"),
    ):
        image_tree(source)


def split(data: bytes) -> StreamReader:
    return StreamReader(
        split_layer(io.BytesIO(data), OciDigest.of(data), DigestOnly(Algorithm.SHA256))
    )


def test_entries_of_a_layer_before_it_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_ENTRIES", 3)
    split(layer(*(file(f"{n}") for n in range(3))))
    with pytest.raises(TarError, match="entry '3': more than 3 entries, the limit for an image"):
        split(layer(*(file(f"{n}") for n in range(5))))


def test_bytes_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_TRAILING_BYTES", 1000)
    data = layer(file("f"))[: 512 + 1024]
    assert split(data + b"x" * 1000).size_bytes == len(data) + 1000
    with pytest.raises(
        TarError, match="more than 1000 bytes after the end of the archive"
    ) as caught:
        split(data + b"x" * 1001)
    assert caught.value.offset == len(data)


def test_depth() -> None:
    def tree(*rows: tuple[Entry, Inline]) -> None:
        apply_layer(Directory(), LAYER, iter(rows))

    tree(entry(b"d/" * 2047 + b"f"))
    # No path of an archive is longer, but symlinks make longer ones.
    link = entry(b"l", EntryKind.SYMLINK, link_target=b"d/" * 2040)
    with pytest.raises(FlattenError, match=r"entry 'l/.*: it is deeper than 2048 directories"):
        tree(link, entry(b"l/" + b"e/" * 10 + b"f"))


def hostile() -> Iterator[tuple[str, bytes]]:
    deep = "/d" * 2000
    yield "deep paths", layer(*(file(f"{n}{deep}") for n in range(500)))
    links = (symlink(f"l{n}", f"{n}" + "/x" * 2000) for n in range(500))
    yield "deep links", layer(*links, *(file(f"l{n}/f") for n in range(500)))


@pytest.mark.parametrize(("name", "data"), list(hostile()))
def test_few_bytes_do_not_become_many(name: str, data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(FlattenError, match="more than 50000 directories that no layer lists"):
            apply_layer(Directory(), LAYER, entries(split(data), Algorithm.SHA256))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 << 20


def test_many_small_attributes_do_not_become_much_memory() -> None:
    names = {b"user.%d" % number: b"" for number in range(20_000)}
    rows = (entry(b"%d" % number, xattrs=names) for number in range(1000))
    tracemalloc.start()
    try:
        with pytest.raises(FlattenError, match="entry '122': paths, links, attributes and small"):
            apply_layer(Directory(), LAYER, rows)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 300 << 20
