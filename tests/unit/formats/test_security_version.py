from __future__ import annotations

import pytest

from bootc.errors import one_line
from bootc.formats import cmdline, security_version
from bootc.formats.cmdline import CmdlineError
from bootc.formats.security_version import MAX, SecurityVersion

NONE = SecurityVersion(0, 0, stated=False)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("rw quiet", NONE),
        ("bootc.security-version=3", SecurityVersion(3)),
        ("bootc.security_version=3", SecurityVersion(3)),
        ('"bootc.security-version=3" bootc.minimum-security-version="2"', SecurityVersion(3, 2)),
        ("bootc.security-version=0", SecurityVersion(0)),
        (f"bootc.security-version={MAX}", SecurityVersion(MAX)),
        ("bootc.minimum-security-version=2", SecurityVersion(0, 2)),
        # What is appended never weakens.
        ("bootc.security-version=3 bootc.security-version=9", SecurityVersion(3)),
        ("bootc.security-version=3 bootc.security-version=1", SecurityVersion(1)),
        (
            "bootc.security-version=3 bootc.minimum-security-version=2 "
            "bootc.minimum-security-version=0",
            SecurityVersion(3, 2),
        ),
        ("bootc.security-version=3 bootc.security-version", SecurityVersion(0)),
        # Other arguments.
        ("security-version=3 bootc.security-version-x=4", NONE),
        ('x="bootc.security-version=3"', NONE),
    ],
)
def test_what_a_command_line_states(line: str, found: SecurityVersion) -> None:
    assert security_version.stated(cmdline.parse(line)) == found


@pytest.mark.parametrize(
    "text",
    ["", "-1", "+1", "01", "1.0", "0x1", " 1", "1_0", "٣", "²", str(MAX + 1), "9" * 5000, "a"],
)
def test_a_malformed_number_counts_as_none_and_is_refused(text: str) -> None:
    line = [f"bootc.security-version={text}"]
    assert security_version.stated(line) == SecurityVersion(0)
    with pytest.raises(CmdlineError) as caught:
        security_version.check(line)
    assert caught.value.hint == "a security version is a number from 0 to 2147483647"
    assert len(one_line(caught.value)) < 250


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "bootc.security-version=2 bootc.minimum-security-version=3",
            "the minimum security version 3 is above the security version 2 of the image itself",
        ),
        (
            "bootc.minimum-security-version=1",
            "the minimum security version 1 is above the security version 0 of the image itself",
        ),
        (
            "bootc.security-version=2 bootc.security-version=3",
            "bootc.security-version has several values: 2, 3",
        ),
        (
            "bootc.security-version=2 bootc.minimum-security-version=x",
            "kernel argument 'bootc.minimum-security-version=x' is wrong",
        ),
    ],
)
def test_what_a_build_refuses(line: str, message: str) -> None:
    with pytest.raises(CmdlineError) as caught:
        security_version.check(cmdline.parse(line))
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("rw", NONE),
        ("bootc.security-version=2 bootc.security-version=2", SecurityVersion(2)),
        ("bootc.security-version=2 bootc.minimum-security-version=2", SecurityVersion(2, 2)),
    ],
)
def test_what_a_build_accepts(line: str, found: SecurityVersion) -> None:
    assert security_version.check(cmdline.parse(line)) == found


def test_the_arguments_state_what_they_were_made_of() -> None:
    for version in (SecurityVersion(0), SecurityVersion(7), SecurityVersion(7, 5)):
        assert security_version.check(version.kargs()) == version
    assert SecurityVersion(7).kargs() == ["bootc.security-version=7"]


def test_an_addon_raises_the_minimum_and_nothing_else() -> None:
    security_version.check_addon(["bootc.minimum-security-version=3", "quiet"])
    with pytest.raises(CmdlineError, match="an add-on states bootc"):
        security_version.check_addon(["bootc.security_version=3"])
    with pytest.raises(CmdlineError, match="minimum-security-version=x' is wrong"):
        security_version.check_addon(["bootc.minimum-security-version=x"])


def test_a_counter_stays_below_the_image_itself() -> None:
    assert SecurityVersion(3, 2).raises_to == 2
    assert SecurityVersion(3, 9).raises_to == 3


def test_values_are_compared() -> None:
    assert SecurityVersion(1, 2) == SecurityVersion(1, 2)
    assert SecurityVersion(0) != NONE
    assert SecurityVersion(1) != "1"
    assert len({SecurityVersion(1, 2), SecurityVersion(1, 2), SecurityVersion(2, 1)}) == 2
