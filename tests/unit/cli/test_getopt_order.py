"""Commands that stand in for C tools take arguments as getopt_long(3) does, others do not."""

from __future__ import annotations

import pytest

from bootc.cli.options import Command, Option, build_parser
from bootc.errors import Error, UsageError

OPTIONS = (
    Option(("first",), "One."),
    Option(("rest",), "More.", repeated=True),
    Option(("--switch",), "On or off.", default=False),
    Option(("--value",), "A value.", "V"),
    Option(("--many",), "Values.", "V", default=()),
)
PARSER = build_parser(
    "program",
    (
        Command("like-c", "As C.", OPTIONS, like_getopt=True),
        Command("plain", "As we do.", OPTIONS),
    ),
    "1",
)


@pytest.mark.parametrize(
    "line",
    [
        "--switch --value x --many 1 --many 2 a b c",
        "a --switch b --value=x --many=1 c --many 2",
        "a b c --sw --va x --m 1 --ma=2",
    ],
)
def test_any_order(line: str) -> None:
    args = PARSER.parse_args(["like-c", *line.split()])
    assert (args.first, args.rest) == ("a", ["b", "c"])
    assert (args.switch, args.value, args.many) == (True, "x", ["1", "2"])


def test_operands_with_dashes() -> None:
    args = PARSER.parse_args(["like-c", "--value", "--switch", "a", "-", "--", "--many"])
    assert (args.first, args.rest, args.value) == ("a", ["-", "--many"], "--switch")
    assert args.switch is False


def test_an_empty_value() -> None:
    args = PARSER.parse_args(["like-c", "a", "b", "--value=", "--many", ""])
    assert (args.value, args.many) == ("", [""])


@pytest.mark.parametrize("line", ["", "a", "a b --none", "a b --value", "a b --switch=1", "a b -x"])
def test_wrong_usage(line: str) -> None:
    with pytest.raises(Error) as caught:
        PARSER.parse_args(["like-c", *line.split()])
    assert caught.value.exit_code == 1
    assert caught.value.hint == "see program like-c --help"
    with pytest.raises(UsageError) as caught:
        PARSER.parse_args(["plain", *line.split()])
    assert caught.value.exit_code == 2


def test_other_commands_are_not_shortened() -> None:
    with pytest.raises(UsageError, match="unrecognized arguments: --sw"):
        PARSER.parse_args(["plain", "a", "b", "--sw"])
