"""What documents name is there: files, tests, units, exit codes, findings, programs, keys.

A document that names what does not exist has been overtaken by the code.
"""

from __future__ import annotations

import itertools
import pkgutil
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from bootc.boot.findings import FindingKind
from bootc.cli import main as program
from bootc.cli.options import Command
from bootc.cli.table import commands_for
from bootc.deploy import journal
from bootc.deploy.install import checks_disk, config, filesystem, loaders
from bootc.deploy.install.filesystem import Filesystem
from bootc.errors import Error
from bootc.lint import layout

TOP = Path(__file__).parents[2]
MAN = TOP / "docs/man"
PAGES = sorted(MAN.glob("*.rst"))
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "tests/**/*.md", "docs/man/*.rst")
    for path in TOP.glob(pattern)
)
#: Where documents look for a file from.
_ROOTS = (TOP, TOP / "src/bootc", TOP / "docs")
_FILE = re.compile(r"(?<![\w/.<{~*-])((?:[\w.-]+/)+[\w.-]+\.(?:py|md|rst|c|toml|service|sh))\b")
_TEST = re.compile(r"`((?:tests/[\w/]+\.py|UPD|SEQ)?)((?:::\w+)?)`")
_UNIT = re.compile(r"\bbootc-[\w-]+\.(?:service|timer|path|target)\b")
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
#: Of images and installed machines, or made by make; not of this tree.
_ELSEWHERE = re.compile(r"^(?:usr|etc|run|install|build|kargs\.d|rootfs[\w-]*)/|/NAME\.py$")


def documents() -> list[object]:
    return [pytest.param(path, id=str(path.relative_to(TOP))) for path in DOCUMENTS]


def test_the_patterns_find_what_there_is() -> None:
    text = "\n".join(document.read_text() for document in DOCUMENTS)
    assert len(_LINK.findall(text)) > 20
    assert len(set(_FILE.findall(text))) > 40
    assert sum(bool(test) for _, test in _TEST.findall(text)) > 60
    assert len(set(_UNIT.findall(text))) > 8


@pytest.mark.parametrize("document", documents())
def test_links_lead_somewhere(document: Path) -> None:
    if document.suffix == ".md":
        links = _LINK.findall(document.read_text())
        assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", documents())
def test_files_that_are_named_exist(document: Path) -> None:
    named = {name for name in _FILE.findall(document.read_text()) if not _ELSEWHERE.search(name)}
    roots = (*_ROOTS, document.parent)
    assert [name for name in sorted(named) if not any((r / name).exists() for r in roots)] == []


@pytest.mark.parametrize("document", documents())
def test_tests_that_are_named_exist(document: Path) -> None:
    text = document.read_text()
    short = dict(re.findall(r"`(SEQ|UPD)` is `(tests/[\w/]+\.py)", text))
    path = ""
    for name, test in _TEST.findall(text):
        path = short.get(name, name) or path
        if test and path:
            assert test[2:] in functions_of(path), f"{path}{test}"


@cache
def functions_of(path: str) -> frozenset[str]:
    # A test can be the state machine of hypothesis under another name.
    found = re.finditer(r"^\s*(?:(?:def|class) (\w+)|(\w+) = )", (TOP / path).read_text(), re.M)
    return frozenset(match[1] or match[2] for match in found)


#: A unit that the generator writes, and units of upstream that are not here.
NOT_SHIPPED = {
    "bootc-early-overlay-relabel.service",
    "bootc-destructive-cleanup.service",
    "bootc-fstab-edit.service",
    "bootc-publish-rhsm-facts.service",
}


@pytest.mark.parametrize("document", documents())
def test_units_that_are_named_exist(document: Path) -> None:
    for name in set(_UNIT.findall(document.read_text())) - NOT_SHIPPED:
        assert (TOP / "data/systemd" / name).exists(), name


#: Variables that a table of the documentation says not to be read.
OF_UPSTREAM = {
    "BOOTC_BOOTLOADER_DEBUG",
    "BOOTC_DIRECT_IO",
    "BOOTC_EXP_EXTERNAL_CONTAINER_TOOL",
    "BOOTC_LOOPBACK_CLEANUP_HELPER",
    "BOOTC_SETENFORCE0_FALLBACK",
    "BOOTC_SKIP_UNSHARE",
}


@pytest.mark.parametrize("document", documents())
def test_variables_that_are_named_are_read(document: Path) -> None:
    for name in set(re.findall(r"\bBOOTC_[A-Z_]+\b", document.read_text())):
        assert name in sources() or name in OF_UPSTREAM, name


@cache
def sources() -> str:
    files = [*TOP.glob("src/**/*.py"), *TOP.glob("tests/**/*.py"), *TOP.glob("tools/**/*")]
    return "".join(
        path.read_text()
        for path in (*files, TOP / "Makefile")
        if path.is_file() and path.suffix != ".pyc"
    )


def section(page: Path, title: str) -> str:
    """Return the text of a section of a manual page."""
    text = page.read_text()
    found = re.search(rf"^{title}\n=+\n(.*?)(?=^[A-Z ]+\n=+\n|\Z)", text, re.M | re.S)
    assert found is not None, f"{page.name} has no section {title}"
    return found[1]


def codes_in(text: str) -> set[int]:
    """Return the exit codes that a section tells of: at the start of a line or after a comma."""
    return {int(code) for code in re.findall(r"(?:^|[;,]\s)(\d+)\b", text, re.M)}


def subclasses(kind: type[Error]) -> Iterator[type[Error]]:
    yield kind
    for below in kind.__subclasses__():
        yield from subclasses(below)


def test_the_exit_codes() -> None:
    known = codes_in(section(MAN / "bootc.8.rst", "EXIT STATUS"))
    said = {int(code) for code in re.findall(r"\d+", (program.__doc__ or "").partition("; a")[0])}
    assert known == said == {0, 1, 2, 130}
    assert {kind.exit_code for kind in subclasses(Error)} <= known
    for page in PAGES:
        assert codes_in(section(page, "EXIT STATUS")) <= known, page.name


def test_the_kinds_of_findings() -> None:
    terms = re.findall(r"^``(\w+)``$", section(MAN / "bootc-status.8.rst", "FINDINGS"), re.M)
    assert sorted(terms) == sorted(FindingKind)


def test_the_programs_that_the_installer_needs() -> None:
    description = section(MAN / "bootc-install.8.rst", "DESCRIPTION")
    sentence = description[description.index("The installer needs") :].partition(".\n")[0]
    needed = sentence.partition("It needs")[0]
    of_loaders = (tool for loader in loaders.INSTALLERS for tool in loader.tools)
    tools = {
        *checks_disk._TOOLS,
        filesystem.ESP_TOOL,
        *of_loaders,
        *(kind.tool for kind in Filesystem),
    }
    assert set(re.findall(r"\*\*([\w.]+)\*\*", needed)) == tools


def test_the_directories_of_a_merged_usr() -> None:
    page = (MAN / "bootc-container.8.rst").read_text()
    text = page.partition("**pybootc-usr-merge**\n")[2].partition(" is a directory")[0]
    assert tuple(re.findall(r"``/(\w+)``", text)) == layout._MERGED


def test_the_keys_of_the_install_configuration() -> None:
    files = section(MAN / "bootc-install.8.rst", "FILES")
    named = set(re.findall(r"``([a-z][a-z-]*(?:\.[a-z]+)*)``", files))
    flat = {*config._INSTALL, "filesystem.root.type"}
    assert named <= flat
    assert {field.replace("_", "-") for field in ("root_fs_type", "block", "kargs")} <= named


# -- options


#: Options that documents name, of other programs or of upstream's bootc only.
OF_OTHER_PROGRAMS = {
    *("--boot", "--unit", "--hypothesis-profile", "--label"),
    *("--rewrite-timestamp", "--source-date-epoch"),
    *("--net", "--pid", "--privileged", "--rm", "--tmpfs"),
    *("--soft-reboot", "--via-loopback"),
    *("--linux", "--uname", "--cmdline", "--os-release", "--measure"),
    *("--secureboot-private-key", "--secureboot-certificate", "--signtool"),
    *("--output-prefix", "--passphrase-file", "--sign-by-sigstore-private-key"),
    *("--sign-passphrase-file", "--sign-by", "--batch", "--passphrase", "--quick-gen-key"),
    *("--output", "--export", "--image", "--preserve-digests"),
}
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
#: A command line of bootc in code or in bold, up to what ends a command for a shell.
_COMMAND_LINE = re.compile(r"(?:`|\*\*|^ *(?:# )?)(?:RUN )?bootc ([^`*|;,)\n]+)", re.MULTILINE)


def all_options(commands: Iterable[Command]) -> Iterator[str]:
    for command in commands:
        yield from (flag for option in command.options for flag in option.flags)
        yield from all_options(command.commands)


def test_options_that_are_named_exist() -> None:
    # tests/unit/cli/test_command_page.py is about the page of all commands.
    documents = [path for path in DOCUMENTS if path.name != "commands.md"]
    texts = {path: set(_OPTION.findall(path.read_text())) for path in documents}
    known = {*all_options(commands_for()), "--help", "--version"}
    assert {
        f"{path.relative_to(TOP)}: {option}"
        for path, options in texts.items()
        for option in options - known - OF_OTHER_PROGRAMS
    } == set()
    assert set().union(*texts.values()) >= OF_OTHER_PROGRAMS


@pytest.mark.parametrize("document", documents())
def test_commands_have_the_options_that_they_are_shown_with(document: Path) -> None:
    wrong = []
    for line in _COMMAND_LINE.findall(document.read_text()):
        below: tuple[Command, ...] = commands_for()
        allowed = {"--help", "--version"}
        for word in line.split():
            found = [c for c in below if word in (c.name, *c.aliases)]
            if found:
                below = found[0].commands
                allowed.update(flag for option in found[0].options for flag in option.flags)
            elif (option := _OPTION.match(word)) and option[0] not in allowed:
                wrong.append(f"bootc {line}: {word}")
    assert wrong == []


# -- exit codes, messages of the journal


@pytest.mark.parametrize("document", documents())
def test_exit_codes_that_are_named_exist(document: Path) -> None:
    text = " ".join(document.read_text().split())
    said = re.findall(
        r"(?i)exit(?:s|ed)?(?: status| code)?(?: is| with| of)?(?: then)? (\d+)", text
    )
    assert {int(code) for code in said} <= {0, 1, 2, 130}


@pytest.mark.parametrize("document", documents())
def test_message_ids_that_are_named_exist(document: Path) -> None:
    named = set(re.findall(r"MESSAGE_ID=(\w+)", document.read_text()))
    assert named <= {event.value for event in journal.Event}


# -- names without a path


_PATH = re.compile(r"`((?:[\w-]+/)*)([\w-]+\.py)?`")
_MODULE = re.compile(r"\bbootc(?:\.[a-z_]\w*)+(?:\.[A-Z]\w*)?")
#: A file of the demo image, and the beginnings of two kernel arguments.
_NO_MODULE = {"bootc.conf", "bootc.minimum", "bootc.security"}


@pytest.mark.parametrize("document", documents())
def test_files_that_are_named_without_a_path_exist(document: Path) -> None:
    """A bare name is in the directory that the line named last, or anywhere if it named none."""
    missing = []
    for line in document.read_text().splitlines():
        homes: list[Path] = []
        for directory, name in _PATH.findall(line):
            if directory:
                homes = [root / directory for root in (*_ROOTS, document.parent)]
            places = [*homes, TOP / "src/bootc"] if homes else homes_of(name)
            if name not in ("", "NAME.py") and not any((p / name).is_file() for p in places):
                missing.append(f"{directory}{name}: {line}")
    assert missing == []


@cache
def homes_of(name: str) -> list[Path]:
    tops = ("src", "tests", "tools", "examples", "bench")
    return [path.parent for top in tops for path in TOP.glob(f"{top}/**/{name}")]


def test_directories_of_the_architecture_exist() -> None:
    text = (TOP / "docs/explanation/architecture.md").read_text()
    rooms = re.findall(r"^\| `((?:[\w-]+/)+)` \|", text, re.M)
    assert [room for room in rooms if not (TOP / "src/bootc" / room).is_dir()] == []
    packages = {path.parent.name for path in TOP.glob("src/bootc/*/__init__.py")}
    assert packages == {room.rstrip("/") for room in rooms if room.count("/") == 1}


@pytest.mark.parametrize("document", documents())
def test_modules_that_are_named_exist(document: Path) -> None:
    for dotted in set(_MODULE.findall(document.read_text())) - _NO_MODULE:
        assert pkgutil.resolve_name(dotted), dotted


def test_the_modules_that_tests_share() -> None:
    page = (TOP / "tests/support/README.md").read_text()
    cells = "".join(re.findall(r"^\| [^|]+ \| ([^|]+) \|$", page, re.M))
    named = {name.partition(".")[0] for name in re.findall(r"`([a-z.]+(?:\.\w+)?)`", cells)}
    modules = {path.stem for path in TOP.glob("tests/support/[a-z]*.py")}
    assert modules <= {*named, *re.findall(r"`(\w+)\.", page)}
    for module, name in re.findall(r"`(\w+)\.(\w+)", page):
        if module in modules:
            assert name in functions_of(f"tests/support/{module}.py")


def test_each_change_stands_once() -> None:
    text = (TOP / "CHANGES.md").read_text("utf-8")
    blocks = [" ".join(block.split()) for block in re.split(r"\n(?=- |#)", text)]
    assert [block for block, count in Counter(blocks).items() if count > 1] == []
    headings = [block.startswith("### ") for block in blocks]
    assert not any(map(all, itertools.pairwise(headings))), "a group has no changes"
