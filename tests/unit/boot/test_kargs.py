from __future__ import annotations

import errno

import pytest

from bootc.boot.kargs import KARGS_D, KargsError, parse_kargs_d, read_kargs_d
from bootc.formats.tree import Directory, External, Inline, Leaf, Stat, Symlink


def image(**files: bytes) -> Directory:
    directory = Directory(
        entries={name.encode(): Leaf(Stat(), Inline(data)) for name, data in files.items()}
    )
    root = Directory()
    for name in (b"kargs.d", b"bootc", b"lib", b"usr"):
        root = Directory(entries={name: directory})
        directory = root
    return root


def read_inline(content: Inline | External) -> bytes:
    assert isinstance(content, Inline)
    return content.data


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'kargs = ["quiet", "a=b"]', ["quiet", "a=b"]),
        (b'kargs = ["a=\\"b c\\" d"]', ['a="b c"', "d"]),
        (b'kargs = ["a"]\nmatch-architectures = ["x86_64"]', ["a"]),
        (b'kargs = ["a"]\nmatch-architectures = ["aarch64"]', []),
        (b"kargs = []", []),
    ],
)
def test_a_file(text: bytes, expected: list[str]) -> None:
    assert parse_kargs_d("10.toml", text, "x86_64") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "10.toml needs 'kargs' to be a list of strings"),
        (b"kargs = 'a'", "10.toml needs 'kargs' to be a list of strings"),
        (b"kargs = [1]", "10.toml needs 'kargs' to be a list of strings"),
        (
            b"kargs = []\nmatch-architectures = 'x86_64'",
            "10.toml needs 'match-architectures' to be a list of strings",
        ),
        (
            b"kargs = []\nmatch_architectures = []",
            "10.toml has the unknown key 'match_architectures'",
        ),
        (b"kargs = [\xff]", "10.toml is not UTF-8 at offset 9"),
        (
            b"kargs",
            "10.toml is not TOML: Expected '=' after a key in a key/value pair "
            "(at end of document)",
        ),
    ],
)
def test_a_wrong_file_is_named(text: bytes, message: str) -> None:
    with pytest.raises(KargsError) as caught:
        parse_kargs_d("10.toml", text, "x86_64")
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'kargs = ["dyndbg=\\"file x"]', "10.toml: bad kernel argument 'dyndbg=\"file x'"),
        (b'kargs = ["quiet", "a\\u0000b"]', "10.toml: bad kernel argument 'a\\x00b'"),
        (b'kargs = ["a\\nb"]', "10.toml: bad kernel argument 'a\\nb'"),
        (b'kargs = ["a\\u001bb"]', "10.toml: bad kernel argument 'a\\x1bb'"),
        *(
            (
                f"kargs = ['quiet {karg}']".encode(),
                f"10.toml: the kernel argument {karg!r} is not yours to set",
            )
            for karg in (
                "composefs=abc",
                '"composefs=abc"',
                "composefs",
                "composefs.digest=x",
                "composefs-digest=x",
            )
        ),
    ],
)
@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_arguments_are_checked_as_if_a_person_had_typed_them(
    text: bytes, message: str, architecture: str
) -> None:
    text += b'\nmatch-architectures = ["x86_64"]'
    with pytest.raises(KargsError) as caught:
        parse_kargs_d("10.toml", text, architecture)
    assert caught.value.message == message


def test_what_runs_already_is_taken_as_it_is() -> None:
    root = image(**{"10.toml": b'kargs = ["composefs=abc", "a=\\"b"]'})
    assert read_kargs_d(root, read_inline, "x86_64", checked=False) == ["composefs=abc", 'a="b']


@pytest.mark.parametrize("depth", range(4))
@pytest.mark.parametrize(
    ("content", "kind"),
    [(Inline(b'kargs = ["console=ttyS0"]\n'), "a file"), (Symlink(b"10.toml"), "a symbolic link")],
)
def test_something_in_the_way_of_the_files(
    depth: int, content: Inline | Symlink, kind: str
) -> None:
    names = KARGS_D.split("/")[: depth + 1]
    node: Directory | Leaf = Leaf(Stat(), content)
    for name in reversed(names):
        node = Directory(entries={name.encode(): node})
    assert isinstance(node, Directory)
    with pytest.raises(KargsError) as caught:
        read_kargs_d(node, read_inline, "x86_64")
    assert caught.value.message == (
        f"{'/'.join(names)} is not a directory but {kind}: "
        "the image's kernel arguments would be lost"
    )


def test_a_directory_in_place_of_a_file() -> None:
    root = image()
    directory = root.lookup(KARGS_D)
    assert isinstance(directory, Directory)
    directory.entries[b"x.toml"] = Directory()
    with pytest.raises(KargsError, match=r"kargs.d/x.toml is not a regular file"):
        read_kargs_d(root, read_inline, "x86_64")


def test_a_file_that_cannot_be_read_is_named() -> None:
    def fails(content: Inline | External) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output") as caught:
        read_kargs_d(image(**{"10.toml": b"kargs = []"}), fails, "x86_64")
    assert caught.value.__notes__ == [f"Reading {KARGS_D}/10.toml of the image"]


def test_nesting_without_end_is_an_error() -> None:
    with pytest.raises(KargsError, match="x nests values too deeply"):
        parse_kargs_d("x", b"kargs = " + b"[" * 100_000, "x86_64")


def test_files_apply_by_name_and_duplicates_count_once() -> None:
    root = image(
        **{
            "20.toml": b'kargs = ["b", "c"]',
            "10.toml": b'kargs = ["a", "b"]',
            "README": b"not an argument",
            "30.toml": b'kargs = ["z"]\nmatch-architectures = ["powerpc64"]',
        }
    )
    assert read_kargs_d(root, read_inline, "x86_64") == ["a", "b", "c"]
    assert read_kargs_d(root, read_inline, "ppc64le") == ["a", "b", "c", "z"]


def test_an_image_without_arguments() -> None:
    assert read_kargs_d(Directory(), read_inline, "x86_64") == []


def test_a_link_is_refused() -> None:
    root = image(**{"10.toml": b"kargs = []"})
    directory = root.lookup("usr/lib/bootc/kargs.d")
    assert isinstance(directory, Directory)
    directory.entries[b"20.toml"] = Leaf(Stat(), Symlink(b"10.toml"))
    with pytest.raises(KargsError, match=r"kargs.d/20.toml is not a regular file"):
        read_kargs_d(root, read_inline, "x86_64")
