"""The completion scripts in the shells they are for."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from pathlib import Path

import pytest

from bootc.cli import main as cli
from bootc.cli.options import Command
from bootc.cli.table import commands_for
from support import require
from support.children import running

pytestmark = pytest.mark.interop

#: What is in front of the cursor, and what must be among the words that a shell offers.
OFFERS = [
    ("bootc up", {"upgrade"}),
    ("bootc update --ch", {"--check"}),
    ("bootc status --format ", {"json", "yaml", "humanreadable"}),
    ("bootc status --format=j", {"json"}),
    ("bootc install to-disk --filesystem ", {"ext4", "btrfs", "xfs"}),
    ("bootc switch --transport oci-", {"oci-archive"}),
    ("bootc internals cfs --hash ", {"sha256", "sha512"}),
    ("bootc internals cfs create-image --xattrs ", {"keep-user-xattrs"}),
    ("bootc switch --transport oci --re", {"--retain"}),
    ("bootc completion ", {"bash", "zsh", "fish"}),
    ("bootc install to-d", {"to-disk"}),
    ("bootc install to-disk --ka", {"--karg"}),
    ("bootc help in", {"install"}),
    ("bootc internals cfs --repo gc f", {"fsck"}),
    ("bootc internals cfsctl oci pu", {"pull"}),
    ("bootc internals composefs-gc --", {"--dry-run", "--prune-repo"}),
    ("bootc internals composefs-info ", {"ls", "dump"}),
]
#: What must not be offered: hidden words, options of others, words for the value of an option.
NOT_OFFERED = [
    ("bootc ", {"internals", "edit", "config-diff"}),
    ("bootc switch --", {"--mutate-in-place", "--check"}),
    ("bootc status --format ", {"--json", "--format"}),
    ("bootc upgrade --tag ", {"--check"}),
    ("bootc pin ", {"upgrade"}),
]


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Write the script for a shell, as the command prints it."""

    def write(shell: str) -> Path:
        assert cli.main(["completion", shell]) == 0
        path = tmp_path / ("_bootc" if shell == "zsh" else "bootc")
        path.write_text(capsys.readouterr().out)
        return path

    return write


def bash_offers(script: Path, line: str) -> set[str]:
    """Return what the function that bash calls for the command offers."""
    # As readline does: = stands alone, and the last word may be empty.
    words = re.findall(r"=|[^\s=]+", line) + ([""] if line[-1] in " =" else [])
    program = r"""
source "$1"; shift
function=$(complete -p bootc | sed 's/.*-F \([^ ]*\) .*/\1/')
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
"$function" bootc "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
"""
    return output("bash", "-u", "-c", program, "bash", str(script), *words)


def fish_offers(script: Path, line: str) -> set[str]:
    program = 'source $argv[1]; complete -C "$argv[2]"'
    lines = output("fish", "--no-config", "-c", program, str(script), line)
    # The description follows a tab, and an option may come with its =.
    return {found.partition("\t")[0].removeprefix("--format=") for found in lines}


def output(*argv: str) -> set[str]:
    require.tool(argv[0])
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return set(done.stdout.splitlines())


SHELLS = {"bash": bash_offers, "fish": fish_offers}


@pytest.mark.parametrize(("line", "words"), OFFERS)
@pytest.mark.parametrize("shell", SHELLS)
def test_words_that_are_offered(shell: str, line: str, words: set[str], script) -> None:
    found = SHELLS[shell](script(shell), line)
    assert words <= found
    typed = line.rpartition(" ")[2].rpartition("=")[2]
    assert {word for word in found if not word.startswith(typed)} == set()


@pytest.mark.parametrize(("line", "words"), NOT_OFFERED)
@pytest.mark.parametrize("shell", SHELLS)
def test_words_that_are_not_offered(shell: str, line: str, words: set[str], script) -> None:
    assert not SHELLS[shell](script(shell), line) & words


#: What each interactive shell runs first; ``bootc`` prints its arguments.
SETUP = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
}
LINES = {
    "bash": "PS1='> '; bootc() {{ echo \"got<$*>\"; }}; source {}\n",
    "zsh": "PS1='> '; autoload -U compinit; compinit -u -D; bootc() {{ echo \"got<$*>\" }}; "
    "source {}\n",
}


@pytest.mark.parametrize("shell", SETUP)
@pytest.mark.parametrize(
    ("typed", "got"),
    [
        ("bootc compl\tba\t", "completion bash"),
        ("bootc roll\t--dr\t", "rollback --dry-run"),
        ("bootc internals cfs oci pu\t--expe\t", "internals cfs oci pull --expected-digest"),
        ("bootc status --format js\t", "status --format json"),
        ("bootc status --format=js\t", "status --format=json"),
    ],
)
def test_a_person_presses_tab(shell: str, typed: str, got: str, script) -> None:
    require.tool(shell)
    path = script(shell)
    terminal, inside = pty.openpty()
    streams = {"stdin": inside, "stdout": inside, "stderr": inside}
    argv = [require.tool("setsid"), "--ctty", *SETUP[shell]]
    with running(argv, env={**os.environ, "TERM": "dumb"}, **streams):
        os.close(inside)
        os.write(terminal, LINES[shell].format(path).encode())
        read_until(terminal, "> ", 2)
        for part in typed.split("\t"):
            os.write(terminal, part.encode())
            if part:
                os.write(terminal, b"\t")
                time.sleep(0.3)
        os.write(terminal, b"\n")
        said = read_until(terminal, ">\r\n", 10)
        os.close(terminal)
    assert f"got<{got}>" in re.sub(r" +>", ">", said)


def read_until(terminal: int, text: str, seconds: float) -> str:
    """Read what a terminal shows until it shows a text, or for some seconds."""
    said, end = "", time.monotonic() + seconds
    while text not in said[-200:] and (left := end - time.monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            said += os.read(terminal, 4096).decode(errors="replace")
    return said


def words_of(commands: tuple[Command, ...]) -> set[str]:
    found = set()
    for command in commands:
        found |= {command.name, *command.aliases}
        for option in command.options:
            found |= {*option.flags, *option.choices}
        found |= words_of(command.commands)
    return found


def test_no_word_needs_quotes() -> None:
    assert {word for word in words_of(commands_for()) if not re.fullmatch("[a-z0-9_-]+", word)} == (
        set()
    )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_parses_the_script(shell: str, script) -> None:
    assert output(shell, "-n", str(script(shell))) == set()
