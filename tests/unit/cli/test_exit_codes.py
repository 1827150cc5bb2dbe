"""Exit codes that upstream's program has, too, or that ``differences.md`` explains."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bootc.cli.options import Command, Option, build_parser
from bootc.cli.table import commands_for
from bootc.deploy.host import boot_state
from bootc.errors import UsageError

WRONG = ["--no-such-option"]
#: A command line, and its exit code inside a container.
CALLS = [
    ([], 2),
    (["no-such-verb"], 2),
    (["upgrade", *WRONG], 2),
    (["switch"], 2),
    (["upgrade", "--check", "--apply"], 2),
    (["status", "--format", "xml"], 2),
    (["install"], 2),
    (["install", "to-disk"], 2),
    (["internals"], 2),
    (["internals", "print-json-schema"], 2),
    (["internals", "print-json-schema", "--of", "image"], 2),
    (["completion", "powershell"], 2),
    (["loader-entries", "set-options-for-source"], 2),
    (["exec-in-host-mount-namespace"], 2),
    (["exec-in-host-mount-namespace", ""], 2),
    (["switch", ""], 2),
    (["install", "to-disk", ""], 2),
    (["internals", "cfs", "--repo", "", "images"], 2),
    (["internals", "cfs", "oci", "untag", ""], 2),
    (["internals", "uki", "extract", "", "x"], 2),
    (["loader-entries", "set-options-for-source", "--source", "x", "--options", ""], 1),
    (["help"], 0),
    (["help", "help"], 0),
    (["install", "help", "help"], 0),
    (["help", "upgrade"], 0),
    (["install", "help"], 0),
    (["--help"], 0),
    (["-V"], 0),
    (["--version"], 0),
    (["completion", "bash"], 0),
    (["internals", "print-json-schema", "--of", "host"], 0),
    (["status"], 0),
    (["status", "--json"], 0),
    (["status", "--format-version", "1"], 0),
    (["status", "--format-version", "2"], 1),
    (["switch", "--transport", "bogus", "x"], 1),
    (["edit"], 1),
    (["loader-entries", "set-options-for-source", "--source", "x"], 1),
    (["state", "wipe-ostree"], 1),
    (["internals", "bootc-install-completion", "/sysroot", "default"], 1),
    (["switch", "--mutate-in-place", "x"], 1),
    *(
        (argv, 1)
        for argv in (
            ["upgrade"],
            ["upgrade", "--check"],
            ["switch", "x"],
            ["rollback"],
            ["delete-deployment", "a" * 128],
            ["composefs-finalize-staged"],
            ["config-diff"],
            ["internals", "fsck"],
            ["internals", "cleanup"],
            ["internals", "composefs-gc"],
        )
    ),
]


@pytest.mark.parametrize(
    ("argv", "expected"),
    CALLS,
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_exit_codes(bootc, argv: list[str], expected: int, monkeypatch) -> None:
    monkeypatch.setenv("container", "podman")
    if boot_state.booted_image(boot_state.read_mounts()) is not None:
        pytest.skip("this machine is one that the commands are for")
    code, out, err = bootc(*argv)
    assert code == expected
    assert bool(out) == (code == 0)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == (code != 0)


def _values(
    commands: tuple[Command, ...], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Option]]:
    for command in commands:
        words = (*above, command.name)
        for option in command.options:
            if option.default is not False and not command.like_getopt:
                yield words, option
        yield from _values(command.commands, words)


def test_every_empty_value_is_wrong_usage() -> None:
    """Before the verb runs, so that no verb has a rule of its own."""
    parser = build_parser("bootc", commands_for(), "0")
    taking = set()
    for words, option in _values(commands_for()):
        if option.remainder:
            continue
        if option.flags[0].startswith("-"):
            empty = [option.flags[0], *[""] * (len(option.metavars) or 1)]
        else:
            empty = [""]
        try:
            with pytest.raises(UsageError) as caught:
                parser.parse_args([*words, *empty])
        except pytest.fail.Exception:
            taking.add(" ".join([*words, option.flags[0]]))
            continue
        if option.takes_empty:
            assert "is empty" not in caught.value.message
            taking.add(" ".join([*words, option.flags[0]]))
        else:
            assert "the value is empty" in caught.value.message, (words, option.flags)
    assert taking == {
        "install to-disk --karg",
        "install to-filesystem --karg",
        "install to-filesystem --root-mount-spec",
        "install to-filesystem --boot-mount-spec",
        "install to-existing-root --karg",
        "internals cfs oci prepare-boot --cmdline",
        "loader-entries set-options-for-source --options",
    }


def test_help_of_help(bootc) -> None:
    assert bootc("help", "help") == bootc("help")
    assert bootc("install", "help", "help") == bootc("help", "install")
