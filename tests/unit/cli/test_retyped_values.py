"""Values that cli writes again, so that a command line is parsed without what has them."""

from __future__ import annotations

import argparse
import contextlib

import pytest

from bootc.boot.findings import FindingKind
from bootc.build.uki import DigestChoice
from bootc.cli.completion import Shell
from bootc.cli.options import Command
from bootc.cli.render import status
from bootc.cli.table import commands_for
from bootc.cli.verbs.cfs import opening
from bootc.deploy.etc.merge import ConflictPolicy
from bootc.deploy.install.config import BLOCK_SETUPS, BOOTLOADERS
from bootc.deploy.install.filesystem import Filesystem
from bootc.deploy.install.request import BoundImages, Replace
from bootc.formats.origin import BootType
from bootc.oci.seal import XattrMode
from bootc.repository.metadata import EROFS_FORMATS

XATTR_MODES = [mode.value for mode in XattrMode]
#: The options that have choices, by verb, and what each must have.
CHOICES = {
    **{
        (f"install {verb}", "--bootloader"): BOOTLOADERS
        for verb in ("to-disk", "to-filesystem", "to-existing-root")
    },
    **{
        (f"install {verb}", "--boot-type"): [BootType.BLS.value, BootType.UKI.value]
        for verb in ("to-disk", "to-filesystem", "to-existing-root")
    },
    **{
        (f"install {verb}", "--bound-images"): [choice.value for choice in BoundImages]
        for verb in ("to-disk", "to-filesystem", "to-existing-root")
    },
    **{
        (f"container {verb}", "--erofs-version"): [choice.value for choice in DigestChoice]
        for verb in ("ukify", "seal", "seal prepare")
    },
    ("install to-filesystem", "--replace"): [mode.value for mode in Replace],
    ("install to-existing-root", "--replace"): [mode.value for mode in Replace],
    ("install to-disk", "--block-setup"): BLOCK_SETUPS,
    ("completion", "shell"): [shell.value for shell in Shell],
    ("upgrade", "--etc-conflict"): [policy.value for policy in ConflictPolicy],
    ("switch", "--etc-conflict"): [policy.value for policy in ConflictPolicy],
    ("container compute-composefs-digest", "--xattrs"): XATTR_MODES,
    ("internals cfs oci compute-id", "--xattrs"): XATTR_MODES,
    ("internals cfs oci dump", "--xattrs"): XATTR_MODES,
}
#: Options whose choices are words of the command line only.
OWN = {"--format", "--fuse", "--type", "command", "--of", "--local-fetch"}


def choices_of(commands: tuple[Command, ...], above: str = "") -> dict[tuple[str, str], list[str]]:
    """Return the choices of all options, by verb and option."""
    found = {}
    for command in commands:
        verb = f"{above} {command.name}".strip()
        for option in command.options:
            if option.choices:
                found[verb, option.flags[0]] = list(option.choices)
        found |= choices_of(command.commands, verb)
    return found


def test_choices_are_those_of_the_enums() -> None:
    found = {key: values for key, values in choices_of(commands_for()).items() if key[1] not in OWN}
    assert found == {key: list(values) for key, values in CHOICES.items()}


def test_versions_of_the_image_format() -> None:
    taken = []
    for number in range(-1, 10):
        with contextlib.suppress(argparse.ArgumentTypeError):
            taken.append(opening.parse_erofs_version(str(number)))
    assert taken == list(EROFS_FORMATS)


def test_findings_about_other_systems() -> None:
    assert status._OTHERS == FindingKind.FOREIGN


@pytest.mark.parametrize("filesystem", list(Filesystem))
def test_help_names_the_file_systems(filesystem: Filesystem) -> None:
    (install,) = (command for command in commands_for(["install"]) if command.name == "install")
    (option,) = (o for o in install.commands[0].options if o.flags == ("--filesystem",))
    assert filesystem.value in option.help
