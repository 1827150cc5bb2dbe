from __future__ import annotations

import re

import pytest

from bootc.formats.filecontexts import (
    FileContexts,
    FileContextsError,
    FileType,
    Rule,
    parse_file_contexts,
    parse_subs,
)

REGULAR, DIRECTORY, SYMLINK = FileType.REGULAR, FileType.DIRECTORY, FileType.SYMLINK


def contexts(text: str) -> FileContexts:
    return FileContexts(parse_file_contexts(text.encode(), "fc"), {})


def test_rules() -> None:
    text = b"# comment\n\n \t/a(/.*)?\t system_u:object_r:a_t:s0 \r\n/b -- c\n  #x\n/d -d <<none>>"
    assert parse_file_contexts(text, "fc") == [
        Rule(b"/a(/.*)?", None, b"system_u:object_r:a_t:s0", "fc", 3),
        Rule(b"/b", REGULAR, b"c", "fc", 4),
        Rule(b"/d", DIRECTORY, b"<<none>>", "fc", 6),
    ]
    assert parse_file_contexts(b"", "fc") == []


def test_file_types() -> None:
    rules = parse_file_contexts(b"".join(b"/x -%c y\n" % t for t in b"bcdlps-"), "fc")
    assert [rule.file_type for rule in rules] == list(FileType)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"/a", "fc:1: not of the form REGEX [-TYPE] CONTEXT"),
        (b"/a b\n/c --\n", "fc:2: not of the form REGEX [-TYPE] CONTEXT"),
        (b"/a b c", "fc:1: not of the form REGEX [-TYPE] CONTEXT"),
        (b"/a -- b c", "fc:1: not of the form REGEX [-TYPE] CONTEXT"),
        (b"/a -x b", "fc:1: unknown file type '-x'"),
        (b"/a -dd b", "fc:1: unknown file type '-dd'"),
        (b"/a - b", "fc:1: unknown file type '-'"),
        (b"/a b\n\n# \xff\n", "fc:3: not UTF-8"),
    ],
)
def test_malformed_rules(text: bytes, message: str) -> None:
    with pytest.raises(FileContextsError, match=re.escape(message)):
        parse_file_contexts(text, "fc")


def test_subs() -> None:
    text = "# é\n/bin /usr/bin\n/lib\t/x\n/lib /usr/lib\n".encode()
    assert parse_subs(text, "subs") == {b"/bin": b"/usr/bin", b"/lib": b"/usr/lib"}


@pytest.mark.parametrize("line", [b"/a", b"/a /b /c"])
def test_malformed_subs(line: bytes) -> None:
    with pytest.raises(FileContextsError, match="subs:2: not of the form ALIAS ORIGINAL"):
        parse_subs(b"/x /y\n" + line, "subs")


def test_the_last_match_wins() -> None:
    policy = contexts("/a/.* first\n/a/b exact\n/a/[b-d] last\n/x -d dir\n")
    assert policy.lookup(b"/a/b", REGULAR) == b"last"
    assert policy.lookup(b"/a/e", REGULAR) == b"first"
    assert policy.lookup(b"/a", DIRECTORY) is None
    assert policy.lookup(b"/x", DIRECTORY) == b"dir"
    assert policy.lookup(b"/x", REGULAR) is None


def test_types_are_passed_over() -> None:
    policy = contexts("/.* any\n/a -- file\n/a -l link\n/b -- <<none>>\n")
    assert policy.lookup(b"/a", REGULAR) == b"file"
    assert policy.lookup(b"/a", SYMLINK) == b"link"
    assert policy.lookup(b"/a", DIRECTORY) == b"any"
    assert policy.lookup(b"/b", REGULAR) is None
    assert policy.lookup(b"/b", DIRECTORY) == b"any"


def test_look_around() -> None:
    policy = contexts(
        "/run/.* run\n/run/w-(?!lxc).* w\n/run/w-x.* x\n/run/(?=w).*y -- y\n"
        "/run/w-z/(?!q).* <<none>>\n"
    )
    assert policy.lookup(b"/run/w-lxc", DIRECTORY) == b"run"
    assert policy.lookup(b"/run/w-a", DIRECTORY) == b"w"
    assert policy.lookup(b"/run/w-xa", DIRECTORY) == b"x"  # a later rule without look-around
    assert policy.lookup(b"/run/w-xy", REGULAR) == b"y"
    assert policy.lookup(b"/run/w-xy", DIRECTORY) == b"x"
    assert policy.lookup(b"/run/w-z/a", DIRECTORY) is None
    assert policy.lookup(b"/run/w-z/q", DIRECTORY) == b"w"


def test_assertions_see_the_letter_of_the_type() -> None:
    # Part of what composefs-rs matches against: a $ never holds, a word goes on.
    policy = contexts("/a$ never\n/b\\b bound\n/(?=.d).. ahead\n")
    assert policy.lookup(b"/a", DIRECTORY) is None
    assert policy.lookup(b"/b", DIRECTORY) is None
    assert policy.lookup(b"/b", REGULAR) == b"bound"
    assert policy.lookup(b"/cd", REGULAR) == b"ahead"


def test_bytes() -> None:
    policy = contexts("/é.? e\n/[^a] other\n")
    assert policy.lookup("/é".encode(), REGULAR) == b"e"
    assert policy.lookup(b"/\xff", REGULAR) == b"other"
    assert policy.lookup(b"/\n", REGULAR) == b"other"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("/a(", "fc:2: '/a(': a ( without its ) at offset 2 of the pattern"),
        ("/a\\1", "fc:2: '/a\\1': not supported: \\1… at offset 2 of the pattern"),
        ("/" + "a" * 5000, f"fc:2: '/{'a' * 199}…': a pattern of 5001 bytes"),
        (
            "((((a{999}){999}){999}))",
            "fc:2: '((((a{999}){999}){999}))': the pattern is too large",
        ),
    ],
)
def test_bad_patterns(pattern: str, message: str) -> None:
    with pytest.raises(FileContextsError, match=re.escape(message)):
        contexts(f"/x y\n{pattern} z\n")


def test_patterns_that_take_too_long() -> None:
    policy = contexts("/x y\n(?!x)" + "(" * 60 + "." + ")*" * 60 + "b z\n")
    with pytest.raises(FileContextsError, match=r"fc:2: .* takes too many steps"):
        policy.lookup(b"/" + b"a" * 300, REGULAR)
