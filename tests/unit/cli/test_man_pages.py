"""The manual pages name exactly the options that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import docutils.core
import docutils.writers.manpage
import pytest

from bootc.cli.main import COMMANDS
from bootc.cli.options import Command

MAN = Path(__file__).parents[3] / "docs" / "man"
PAGES = sorted(MAN.glob("*.rst"))


def visible_flags(command: Command) -> Iterator[str]:
    for option in command.options:
        if not option.hidden and option.flags[0].startswith("-"):
            yield from option.flags
    for below in command.commands:
        if not below.hidden:
            yield from visible_flags(below)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_options_match(command: Command) -> None:
    page = (MAN / f"bootc-{command.name}.8.rst").read_text()
    terms = [line for line in page.splitlines() if line.startswith("-") and line.strip("-")]
    documented = {flag for line in terms for flag in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", line)}
    assert documented == set(visible_flags(command))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_the_overview_names_every_command(command: Command) -> None:
    assert f"**bootc-{command.name}**" in (MAN / "bootc.8.rst").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_pages_render_without_a_complaint(page: Path) -> None:
    troff = docutils.core.publish_string(
        page.read_text(),
        writer=docutils.writers.manpage.Writer(),
        settings_overrides={"halt_level": 2, "report_level": 5, "_disable_config": True},
    )
    assert b".SH SYNOPSIS" in troff
