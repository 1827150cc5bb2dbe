"""The manual pages name exactly the options that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import docutils.core
import docutils.writers.manpage
import pytest

from bootc.cli.options import Command
from bootc.cli.table import commands_for

COMMANDS = commands_for()
MAN = Path(__file__).parents[3] / "docs" / "man"
PAGES = sorted(MAN.glob("*.rst"))
#: Commands that another's page describes.
ELSEWHERE = {
    "unpin": "pin",
    "config-diff": "etc",
    **dict.fromkeys(
        ("edit", "exec-in-host-mount-namespace", "loader-entries", "state"), "internals"
    ),
}


def page_of(command: Command) -> str:
    return f"bootc-{ELSEWHERE.get(command.name, command.name)}"


def on_page(page: str) -> list[Command]:
    return [command for command in COMMANDS if page_of(command) == page]


def visible_flags(command: Command) -> Iterator[str]:
    for option in command.options:
        if not option.hidden and option.flags[0].startswith("-"):
            yield from option.flags
    for below in command.commands:
        if not below.hidden:
            yield from visible_flags(below)


@pytest.mark.parametrize("page", sorted({page_of(command) for command in COMMANDS}))
def test_options_match(page: str) -> None:
    text = (MAN / f"{page}.8.rst").read_text("utf-8")
    terms = [line for line in text.splitlines() if line.startswith("-") and line.strip("-")]
    documented = {flag for line in terms for flag in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", line)}
    flags = {flag for command in on_page(page) for flag in visible_flags(command)}
    assert documented == flags


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_the_synopsis_has_every_command(command: Command) -> None:
    text = (MAN / f"{page_of(command)}.8.rst").read_text("utf-8")
    for name in (command.name, *command.aliases):
        assert f"**bootc {name}" in text


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_the_overview_names_every_command(command: Command) -> None:
    assert f"**{page_of(command)}**" in (MAN / "bootc.8.rst").read_text("utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_pages_render_without_a_complaint(page: Path) -> None:
    troff = docutils.core.publish_string(
        page.read_text("utf-8"),
        writer=docutils.writers.manpage.Writer(),
        settings_overrides={"halt_level": 2, "report_level": 5, "_disable_config": True},
    )
    assert b".SH SYNOPSIS" in troff
