"""Kernel arguments (bootc, "Cmdline library semantics" and "The composefs karg")."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


V1, BARE = f"composefs.digest=v1-sha512-12:{SHA512}", f"composefs={SHA512}"
V1_OTHER, BARE_OTHER = f"composefs.digest=v1-sha512-12:{OTHER}", f"composefs={OTHER}"
WEAK_V1, WEAK_BARE = V1.replace("=v", "=?v"), f"composefs=?{SHA512}"
WEAK_V1_OTHER, WEAK_BARE_OTHER = V1_OTHER.replace("=v", "=?v"), f"composefs=?{OTHER}"
NOT_OURS = (
    f"composefs.digest=v1-sha256-12:{SHA256}",
    f"composefs.digest=v1-sha512-16:{OTHER}",
    f"composefs.digest=v2-sha256-16:{SHA256}",
)


@pytest.mark.parametrize("optional", [True, False])
@pytest.mark.parametrize(
    ("digest", "version"), [(SHA512, ""), (SHA256, ""), (SHA512, "v1"), (SHA512, "v2")]
)
def test_a_composefs_argument_comes_back(digest: str, version: str, optional: bool) -> None:
    argument = ComposefsArgument(digest, optional=optional, version=version)
    images = cmdline.composefs_images(f"rw {argument.karg} quiet\n")
    assert images.arguments == (argument,)
    assert images.optional is optional
    assert images.hexes == images.ids == (digest,)
    assert images.deployment == digest


@pytest.mark.parametrize(
    ("text", "hexes", "deployment"),
    [
        (f'composefs="{SHA512}"', [SHA512], SHA512),
        (f'"composefs={SHA512}"', [SHA512], SHA512),
        (f'composefs.digest="v1-sha512-12:{SHA512}"', [SHA512], SHA512),
        # The order is that of the command line; the deployment has the id that is called v1.
        (f"{V1} {BARE_OTHER}", [SHA512, OTHER], SHA512),
        (f"{BARE_OTHER} {V1}", [OTHER, SHA512], SHA512),
        (f"{BARE} {BARE_OTHER}", [SHA512, OTHER], SHA512),
        (f"composefs.digest=v2-sha512-12:{OTHER} {V1}", [OTHER, SHA512], SHA512),
        (f"composefs.digest=v2-sha512-12:{OTHER} {BARE}", [OTHER, SHA512], OTHER),
        (f"{BARE} quiet {V1_OTHER} rw {BARE} {V1_OTHER}", [SHA512, OTHER], OTHER),
        (f"{V1} {BARE}", [SHA512], SHA512),
        # Images of kinds that no repository here has are passed over.
        *((f"{other} {BARE}", [SHA512], SHA512) for other in NOT_OURS),
        *((f"{V1} {other}", [SHA512], SHA512) for other in NOT_OURS),
    ],
)
@pytest.mark.parametrize("weak", [False, True])
def test_all_images_of_a_command_line(
    text: str, hexes: list[str], deployment: str, weak: bool
) -> None:
    if weak:
        text = re.sub(r'(composefs[.a-z]*="?)', r"\1?", text)
    images = cmdline.composefs_images(f"root=x {text} rw")
    assert images.hexes == tuple(hexes)
    assert images.deployment == deployment
    assert images.ids[0] == deployment
    assert sorted(images.ids) == sorted(hexes)
    assert images.optional is weak


@pytest.mark.parametrize(
    ("text", "strict", "weak"),
    [
        (
            f"{BARE} {WEAK_V1_OTHER}",
            "composefs=0123456789ab…",
            "digest=?v1-sha512-12:fedcba987654…",
        ),
        (
            f"{WEAK_V1_OTHER} {BARE}",
            "composefs=0123456789ab…",
            "digest=?v1-sha512-12:fedcba987654…",
        ),
        (f"{V1} {WEAK_BARE}", "digest=v1-sha512-12:0123456789ab…", "composefs=?0123456789ab…"),
        (f"{BARE} {WEAK_BARE}", "composefs=0123456789ab…", "composefs=?0123456789ab…"),
        (f"{V1} {BARE} {WEAK_BARE_OTHER}", "digest=v1-sha512-12:0123", "composefs=?fedcba987654…"),
        (f"{V1} {WEAK_V1}", "digest=v1-sha512-12:0123", "digest=?v1-sha512-12:0123"),
        # Also those that are passed over.
        (
            f"{BARE} composefs.digest=?v1-sha256-12:{SHA256}",
            "composefs=0123",
            "=?v1-sha256-12:0123",
        ),
        (f'{BARE} "composefs=?{OTHER}"', "composefs=0123456789ab…", "composefs=?fedcba987654…"),
    ],
)
def test_arguments_that_disagree(text: str, strict: str, weak: str) -> None:
    with pytest.raises(CmdlineError) as caught:
        cmdline.composefs_images(text)
    message = caught.value.message
    assert message.startswith("the arguments composefs")
    assert message.endswith(" disagree: only one of them tolerates missing fs-verity")
    assert message.index(strict) < message.index(" and ") < message.index(weak)


_ARGUMENTS = [BARE, BARE_OTHER, V1, V1_OTHER, f"composefs.digest=v2-sha512-12:{OTHER}", *NOT_OURS]
_WEAK = [re.sub(r"^(composefs[.a-z]*=)", r"\1?", argument) for argument in _ARGUMENTS]
_OTHERS = ["rw", "quiet", 'a="b c"', f'x="composefs=?{OTHER}"', "composefsx=1", "root=UUID=1"]
lines = st.lists(st.sampled_from([*_ARGUMENTS, *_WEAK, *_OTHERS]), max_size=7)


@given(lines, lines)
def test_appending_never_weakens(signed: list[str], appended: list[str]) -> None:
    """Whatever is appended: the same images come first, with the same demand; or nothing boots."""
    try:
        before = cmdline.composefs_images(cmdline.join(signed))
    except CmdlineError:
        return
    try:
        after = cmdline.composefs_images(cmdline.join([*signed, *appended]))
    except CmdlineError:
        weak = {"=?" in word for word in (*signed, *appended) if cmdline.names_image(word)}
        assert weak == {True, False}
        return
    assert after.optional is before.optional
    assert after.arguments[: len(before.arguments)] == before.arguments


@given(lines)
def test_images_parse_and_compose(params: list[str]) -> None:
    named = [param for param in params if cmdline.names_image(param)]
    ours = [param for param in named if param.replace("=?", "=") not in NOT_OURS]
    weak = {"=?" in param for param in named}
    if not ours or len(weak) > 1:
        with pytest.raises(CmdlineError):
            cmdline.composefs_images(cmdline.join(params))
        return
    images = cmdline.composefs_images(cmdline.join(params))
    assert images.line.split() == list(dict.fromkeys(ours))
    assert cmdline.composefs_images(images.line) == images
    assert {images.optional} == weak
    one = cmdline.composefs_karg(OTHER, optional=images.optional)
    replaced = cmdline.with_image(params, one)
    assert cmdline.composefs_images(cmdline.join(replaced)).line == one
    assert [p for p in replaced if p != one] == [p for p in params if p not in named]
    assert replaced.count(one) == 1
    assert replaced.index(one) == params.index(named[0])


def test_an_argument_is_added_where_no_image_is_named() -> None:
    assert cmdline.with_image(["rw", "quiet"], BARE) == ["rw", "quiet", BARE]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rw quiet",
        f"xcomposefs={SHA512}",
        f"Composefs={SHA512}",
        f'quiet="composefs={SHA512}"',
        *NOT_OURS,
    ],
)
def test_no_composefs_argument(text: str) -> None:
    with pytest.raises(CmdlineError, match=r"^no composefs image in the kernel command line$"):
        cmdline.composefs_images(text)


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
        cmdline.composefs_images(f"composefs={value}")


def test_errors_quote_what_was_wrong() -> None:
    for key in ("composefs", "composefs.digest"):
        with pytest.raises(CmdlineError) as caught:
            cmdline.composefs_images(f"{key}=\x1b[2J")
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
            cmdline.composefs_images(text)


def test_arguments_are_values() -> None:
    one = ComposefsArgument(SHA512, optional=True)
    assert one == ComposefsArgument(SHA512, optional=True)
    assert hash(one) == hash(ComposefsArgument(SHA512, optional=True))
    assert one != ComposefsArgument(SHA512, optional=False)
    assert one != ComposefsArgument(SHA512, optional=True, version="v1")
    assert one != SHA512
    assert repr(one) == f"ComposefsArgument('composefs=?{SHA512}')"
    images = cmdline.composefs_images(f"{V1} {BARE_OTHER}")
    assert images == cmdline.composefs_images(f"rw {V1} {BARE_OTHER}")
    assert hash(images) == hash(cmdline.composefs_images(f"{V1} {BARE_OTHER}"))
    assert images != cmdline.composefs_images(f"{BARE_OTHER} {V1}")
    assert images != images.arguments
    assert repr(images) == f"ComposefsImages('{V1} {BARE_OTHER}')"


def test_the_same_deployment_in_another_order() -> None:
    images = cmdline.composefs_images(f"{V1} {BARE_OTHER}")
    assert images.agrees_with(cmdline.composefs_images(f"{BARE_OTHER} {V1}"))
    for other in (V1, f"{BARE_OTHER} {BARE}", f"{WEAK_V1} {WEAK_BARE_OTHER}"):
        assert not images.agrees_with(cmdline.composefs_images(other))
