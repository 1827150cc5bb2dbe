"""What messages tell the user to run exists: commands, and options of that very command."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.cli.options import Command
from bootc.cli.table import commands_for

SRC = Path(__file__).parents[2] / "src" / "bootc"
COMMANDS = commands_for()

#: Whose options the messages of a module may name without naming the command: those that run
#: it. A module that others than these run has to leave that to them.
RUN_BY = {
    "deploy/install/root_spec.py": ["install to-filesystem"],
    "deploy/install/target_filesystem.py": ["install to-filesystem", "install to-existing-root"],
    "deploy/install/to_filesystem.py": ["install to-filesystem", "install to-existing-root"],
    "deploy/install/": ["install to-disk"],
    "deploy/addons.py": ["addon add", "addon remove"],
    "deploy/protection.py": ["upgrade", "switch", "rollback"],
    "deploy/upgrade.py": ["upgrade", "switch"],
    "oci/canonical.py": ["container compute-composefs-digest"],
    "build/uki.py": ["container ukify"],
    "build/seal.py": ["container seal", "container seal prepare"],
    "build/signing.py": ["container seal"],
    "cli/verbs/container/seal.py": ["container seal"],
    "cli/verbs/container/version.py": ["container seal", "container ukify"],
    "cli/verbs/container/lint.py": ["container lint"],
    "cli/verbs/container/digest.py": ["container compute-composefs-digest"],
    "cli/verbs/container/export.py": ["container export"],
    "cli/verbs/container/inspect.py": ["container inspect"],
    "cli/verbs/install.py": [
        "install to-disk",
        "install to-filesystem",
        "install to-existing-root",
    ],
    "cli/verbs/status.py": ["status"],
    "cli/verbs/switch.py": ["switch"],
    "cli/verbs/upgrade.py": ["upgrade"],
    "cli/verbs/internals.py": ["internals composefs-gc"],
    "cli/verbs/mkcomposefs.py": ["internals mkcomposefs"],
    "cli/verbs/composefs_info.py": ["internals composefs-info"],
    "cli/verbs/cfs/opening.py": ["internals cfs"],
    "cli/verbs/cfs/upkeep.py": ["internals cfs init"],
    "cli/verbs/cfs/images.py": ["internals cfs create-image", "internals cfs compute-id"],
    "cli/verbs/cfs/mounting.py": ["internals cfs mount"],
    "cli/verbs/cfs/oci.py": ["internals cfs oci pull"],
    "oci/pull.py": ["internals cfs oci pull"],
    "cli/verbs/cfs/oci_import.py": ["internals cfs oci copy"],
    "cli/verbs/cfs/oci_boot.py": ["internals cfs oci prepare-boot"],
    "boot/entry_files.py": ["internals cfs oci prepare-boot"],
    "boot/first_entry.py": ["internals cfs oci prepare-boot"],
    "deploy/prepare_boot.py": ["internals cfs oci prepare-boot"],
    "cli/verbs/cfs/oci_inspect.py": ["internals cfs oci layer", "internals cfs oci inspect"],
}
#: Options of other programs in messages of ours, and what starts no message.
NOT_OURS = {
    "build/uki.py": {"--output"},
    "deploy/addons.py": {"--key", "--cert"},
    "oci/canonical.py": {"--source-date-epoch", "--rewrite-timestamp"},
    "oci/flatten.py": {"--sparse"},
    "cli/verbs/container/digest.py": {"--privileged"},
    "deploy/install/running_image.py": {"--privileged", "--pid"},
    "fs/host_mounts.py": {"--privileged", "--pid"},
    "deploy/install/target_filesystem.py": {"--bind"},
    "formats/grubcfg.py": {"--no-floppy", "--set", "--fs-uuid"},
    "formats/grubmenu.py": {"--id"},
    "boot/grub.py": {"--unit", "--speed", "--path", "--no-floppy", "--fs-uuid", "--set"},
}
#: Not messages: the step of the initramfs has its own options, reboot talks to systemd, and
#: many texts of lints are upstream's.
OTHERS = (
    "initramfs/",
    "lint/",
    "deploy/host/services.py",
    "cli/options.py",
    "cli/main.py",
    "cli/session.py",
)

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")
CALL = re.compile(r"\bbootc((?: (?:--)?[a-z][a-z-]+)+)")


def command_at(words: list[str]) -> tuple[str, frozenset[str]] | None:
    """Return the command that comes first in some words, and its options with its groups'."""
    commands, path, flags = COMMANDS, [], set[str]()
    for word in words:
        found: Command | None = next((c for c in commands if word in (c.name, *c.aliases)), None)
        if found is None:
            # Of a group one of its commands has to be named.
            return None if commands else (" ".join(path), frozenset(flags))
        path.append(found.name)
        flags.update(flag for option in found.options for flag in option.flags)
        commands = found.commands
    return (" ".join(path), frozenset(flags)) if path else None


def flags_of(command: str) -> frozenset[str]:
    found = command_at(command.split())
    assert found is not None, command
    assert found[0] == command
    return found[1]


def messages(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the texts of a module but for docstrings; what is put into them is ``{}``."""
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    parts = {id(v) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for v in n.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            texts = (str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values)
            yield node.lineno, "".join(texts)
            continue
        if not isinstance(node, ast.Constant) or id(node) in docs | parts:
            continue
        if isinstance(node.value, str):
            yield node.lineno, node.value


MODULES = [
    str(path.relative_to(SRC))
    for path in sorted(SRC.rglob("*.py"))
    if not str(path.relative_to(SRC)).startswith(OTHERS)
]


@pytest.mark.parametrize("module", MODULES)
def test_what_a_message_names_exists(module: str) -> None:
    runners = next((run for start, run in RUN_BY.items() if module.startswith(start)), [])
    own = frozenset[str]()
    if runners:
        together = frozenset.union if module.startswith("cli/") else frozenset.intersection
        own = together(*map(flags_of, runners))
    foreign = NOT_OURS.get(module, set())
    for line, text in messages(ast.parse((SRC / module).read_text())):
        if not re.search(r"\s", text):
            continue  # an argument, an option or a key, and no message
        before = text
        for call in reversed(list(CALL.finditer(text))):
            before, behind = before[: call.start()], before[call.end() :]
            words = call[1].split()
            command = command_at([word for word in words if not word.startswith("--")])
            assert command is not None, f"{module}:{line}: there is no bootc{call[1]}"
            for option in OPTION.findall(call[1] + behind):
                assert option in command[1], f"{module}:{line}: {command[0]} has no {option}"
        for option in OPTION.findall(before):
            assert option in own | foreign, f"{module}:{line}: {option} of no command"


def test_the_test_finds_what_is_wrong() -> None:
    assert command_at(["internals", "cfs", "init", "makes", "one"]) is not None
    assert command_at(["etc", "forget"]) is None
    assert command_at(["frobnicate"]) is None
    assert "--cancel" in flags_of("upgrade")
    assert "--no-wait" in flags_of("internals cfs gc")
    assert "--cancel" not in flags_of("switch")
