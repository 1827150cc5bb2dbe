"""Kernel arguments (bootc, "Cmdline library semantics" and "The composefs karg")."""

from __future__ import annotations

import pytest

from bootc.formats import cmdline
from bootc.formats.cmdline import CmdlineError, ComposefsArgument

SHA512 = "0123456789abcdef" * 8
OTHER = "fedcba9876543210" * 8
SHA256 = SHA512[:64]


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("", []),
        (" \t\n", []),
        ("rw quiet\n", ["rw", "quiet"]),
        ("  a=1 \t b\n\nc\r", ["a=1", "b", "c"]),
        ('dyndbg="file a.c +p" rw', ['dyndbg="file a.c +p"', "rw"]),
        ('"whole one=1" x', ['"whole one=1"', "x"]),
        ('a="unclosed b c', ['a="unclosed b c']),
        ("a= =b =", ["a=", "=b", "="]),
        ("a\u00a0b", ["a\u00a0b"]),  # blanks are those of ASCII
        ("x=\udcff", ["x=\udcff"]),  # a byte that is no UTF-8
        ('a="" b', ['a=""', "b"]),
    ],
)
def test_parse(text: str, params: list[str]) -> None:
    assert cmdline.parse(text) == params
    assert cmdline.parse(cmdline.join(params)) == params


@pytest.mark.parametrize(
    ("params", "key", "value"),
    [
        ("root=UUID=1 rw", "root", "UUID=1"),
        ("rw", "rw", ""),
        ("rw=", "rw", ""),
        ("rw", "ro", None),
        ("a=1 a=2", "a", "1"),
        ("my-key=1", "my_key", "1"),
        ("my_key=1", "my-key", "1"),
        ('a="b c"', "a", "b c"),
        ('a="b', "a", '"b'),
        ('a="', "a", '"'),
        ("rootfstype=x", "root", None),
        ("Root=x", "root", None),
        # Around the whole parameter quotes mean the same as around its value.
        ('"a=b c"', "a", "b c"),
        ('"a="', "a", ""),
        ('"my-key"', "my_key", ""),
        ('"a=b', "a", None),
    ],
)
def test_find(params: str, key: str, value: str | None) -> None:
    assert cmdline.find(cmdline.parse(params), key) == value


def test_all_of_one_key() -> None:
    assert cmdline.find_all(cmdline.parse('a-b=1 x "a_b=2 3" a-b'), "a-b") == ["1", "2 3", ""]
    assert cmdline.find_all(["rw"], "a") == []


@pytest.mark.parametrize(
    "text",
    ["quiet", "a=b c", 'dyndbg="file a.c +p"', '"a=b c"', "xcomposefs=1", "composefsx=1", ""],
)
def test_arguments_anybody_may_ask_for(text: str) -> None:
    cmdline.check(text)


@pytest.mark.parametrize(
    "text",
    [
        "composefs=x",
        "composefs",
        "composefs=",
        "rw composefs=x quiet",
        '"composefs=x"',
        'composefs="x"',
        'compo"sefs"=x',
        "composefs.digest=x",
        '"composefs.digest=x y"',
        "composefs-digest=x",
        "composefs_digest",
        "composefs.anything",
    ],
)
def test_which_image_boots_is_for_bootc_to_say(text: str) -> None:
    with pytest.raises(CmdlineError, match=r"^the kernel argument '.*composefs|compo"):
        cmdline.check(text)
    cmdline.check_text(text)


@pytest.mark.parametrize(
    "text",
    ['a="b', '"', 'a="b"c"', "a\nb", "a\rb", "a\0b", "a\x1b[2J", "a\x7f", "a\u2028b", "\udcff"],
)
def test_what_would_not_stay_in_its_place(text: str) -> None:
    for check in (cmdline.check, cmdline.check_text):
        with pytest.raises(CmdlineError) as caught:
            check(text)
        assert caught.value.message == f"bad kernel argument {text!r}"
        assert caught.value.hint == "it holds an open quote or a control character"


def test_add_leaves_identical_parameters_alone() -> None:
    params = ["a=1", "b_c", 'd="e"']
    assert cmdline.add(params, "a=1") == params
    assert cmdline.add(params, "b-c") == params
    assert cmdline.add(params, "d=e") == params
    assert cmdline.add(params, "a=2") == [*params, "a=2"]
    assert cmdline.add(params, "b-c=") == [*params, "b-c="]
    assert params == ["a=1", "b_c", 'd="e"']


def test_extend_adds_each_once() -> None:
    assert cmdline.extend(["rw"], ["a=1", "rw", "a=1", "a=2"]) == ["rw", "a=1", "a=2"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "k-y=2"),
        ("x k_y=1 z", "x k-y=2 z"),
        ("k_y=1 x k-y=3 k-y", "k-y=2 x"),
        ("k=1", "k=1 k-y=2"),
        ('x "k-y=1 3" z', "x k-y=2 z"),
    ],
)
def test_add_or_modify_keeps_the_first_place(before: str, after: str) -> None:
    assert cmdline.join(cmdline.add_or_modify(cmdline.parse(before), "k-y=2")) == after


def test_remove_exact_removes_all_identical() -> None:
    params = ["a=1", "b", "a=2", "a=1"]
    assert cmdline.remove_exact(params, "a=1") == ["b", "a=2"]
    assert cmdline.remove_exact(params, "a") == params


@pytest.mark.parametrize("optional", [True, False])
@pytest.mark.parametrize("digest", [SHA512, SHA256])
def test_composefs_argument_comes_back(digest: str, optional: bool) -> None:
    karg = cmdline.composefs_karg(digest, optional=optional)
    assert cmdline.composefs_argument(f"rw {karg} quiet\n") == ComposefsArgument(
        digest, optional=optional
    )


@pytest.mark.parametrize(
    ("text", "digest", "optional"),
    [
        (f'composefs="{SHA512}"', SHA512, False),
        (f'"composefs={SHA512}"', SHA512, False),
        (f"composefs={SHA512} composefs=?{OTHER}", SHA512, False),
        (f"composefs.digest=v1-sha512-12:{SHA512}", SHA512, False),
        (f"composefs.digest=?v2-sha512-12:{SHA512}", SHA512, True),
        # The long form wins wherever it stands, and those of other kinds are passed over.
        (f"composefs=?{OTHER} composefs.digest=v1-sha512-12:{SHA512}", SHA512, False),
        (
            f"composefs.digest=v1-sha256-12:{SHA256} composefs.digest=?v1-sha512-12:{SHA512}",
            SHA512,
            True,
        ),
        (f"composefs.digest=v1-sha512-16:{SHA512} composefs={OTHER}", OTHER, False),
        (f"composefs.digest=v1-sha256-12:{SHA256} composefs={OTHER}", OTHER, False),
    ],
)
def test_composefs_argument_that_counts(text: str, digest: str, optional: bool) -> None:
    assert cmdline.composefs_argument(text) == ComposefsArgument(digest, optional=optional)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rw quiet",
        f"xcomposefs={SHA512}",
        f"Composefs={SHA512}",
        f'quiet="composefs={SHA512}"',
        f"composefs.digest=v1-sha512-16:{SHA512}",
        f"composefs.digest=v1-sha256-12:{SHA256}",
    ],
)
def test_no_composefs_argument(text: str) -> None:
    with pytest.raises(CmdlineError, match=r"^no composefs image in the kernel command line$"):
        cmdline.composefs_argument(text)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "?",
        "??" + SHA512,
        SHA512[:-1],
        SHA512 + "0",
        SHA512[:-1] + "g",
        SHA512.upper(),
        SHA512[:-1] + "\u0661",  # a digit, but no hex one
        "../" + SHA512[3:],
        SHA512 + "\0",
        '"' + SHA512,
    ],
)
def test_malformed_composefs_argument(value: str) -> None:
    with pytest.raises(
        CmdlineError, match=r"^kernel argument 'composefs=.* is not an image digest"
    ):
        cmdline.composefs_argument(f"composefs={value}")


def test_errors_quote_what_was_wrong() -> None:
    for key in ("composefs", "composefs.digest"):
        with pytest.raises(CmdlineError) as caught:
            cmdline.composefs_argument(f"{key}=\x1b[2J")
        assert caught.value.message.startswith(f"kernel argument '{key}=\\x1b[2J' is ")


@pytest.mark.parametrize(
    "value",
    [
        "",
        SHA512,
        "v1-sha512-12",
        f"v1-sha512-12{SHA512}",
        f"v3-sha512-12:{SHA512}",
        f"v1-sha384-12:{SHA512}",
        f"v1-sha512-13:{SHA512}",
        f"v1-sha512:{SHA512}",
        f"v1-sha512-12:{SHA256}",
        f"v1-sha256-12:{SHA512}",
        f"v1-sha512-12:{SHA512[:-1]}x",
        f"v1-?sha512-12:{SHA512}",
    ],
)
def test_malformed_long_form_is_an_error_even_beside_a_good_one(value: str) -> None:
    good = f"composefs.digest=v1-sha512-12:{SHA512} composefs={SHA512}"
    for text in (f"composefs.digest={value}", f"{good} composefs.digest={value}"):
        with pytest.raises(CmdlineError, match=r"^kernel argument 'composefs\.digest=.* malformed"):
            cmdline.composefs_argument(text)


def test_argument_is_a_value() -> None:
    one = ComposefsArgument(SHA512, optional=True)
    assert one == ComposefsArgument(SHA512, optional=True)
    assert hash(one) == hash(ComposefsArgument(SHA512, optional=True))
    assert one != ComposefsArgument(SHA512, optional=False)
    assert one != SHA512
    assert repr(one) == f"ComposefsArgument('composefs=?{SHA512}')"
