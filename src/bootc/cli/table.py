"""The tables of verbs and their modules, so that a command imports one verb only.

Importing all verbs takes longer than most of them run. The first word of the command line
tells which module is needed. If it is not a verb, as in ``bootc --help``, all modules are
imported. The output is the same in both cases.

Each module lists its verbs in ``COMMANDS``; a test compares that with the tables.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence

from bootc.cli.options import HELP_VERB, Command

_INTERNALS = "internals"

#: Verbs and their aliases in the order of ``bootc --help``, each with its module below
#: :mod:`bootc.cli.verbs`.
VERBS = {
    "upgrade": "upgrade",
    "update": "upgrade",
    "switch": "switch",
    "rollback": "rollback",
    "status": "status",
    "etc": "etc",
    "addon": "addon",
    "image": "image",
    "pin": "pin",
    "unpin": "pin",
    "delete-deployment": "delete",
    "security-version": "securityversion",
    "usr-overlay": "usroverlay",
    "usroverlay": "usroverlay",
    "install": "install",
    "container": "container.command",
    "composefs-finalize-staged": "finalize",
    "completion": "completion",
    "config-diff": "configdiff",
    "exec-in-host-mount-namespace": "hostmounts",
    "edit": "refused",
    "loader-entries": "refused",
    "state": "refused",
}
#: The same for ``bootc internals``.
INTERNALS = {
    "features": "internals",
    "composefs-gc": "internals",
    "dir-diff": "internals",
    "erofs-dump": "internals",
    "print-json-schema": "jsonschema",
    "fsverity": "fsverity",
    "uki": "uki",
    "blockdev": "blockdev",
    "systemd-generator": "hostunits",
    "sysusers-sync": "hostunits",
    "fixup-etc-fstab": "hostunits",
    "relabel-overlay-mountpoints": "hostunits",
    "refresh-boot-menu": "hostunits",
    "remove-old-root": "hostunits",
    "cleanup": "hostupkeep",
    "fsck": "hostupkeep",
    "reboot": "hostupkeep",
    "bootc-install-completion": "hostupkeep",
    "mkcomposefs": "mkcomposefs",
    "composefs-info": "composefs_info",
    "cfs": "cfs.command",
    "cfsctl": "cfs.command",
}
#: Verbs of ``bootc internals`` that replace a program of the same name.
_TOOLS = ("mkcomposefs", "composefs-info", "cfsctl")
#: The name by which systemd calls the generator, and its verb of ``bootc internals``.
_GENERATOR = ("bootc-systemd-generator", "systemd-generator")


def as_called(argv: Sequence[str]) -> Sequence[str]:
    """Return the arguments of a command. The name of a tool or of the generator becomes the verb.

    >>> as_called(["/usr/bin/cfsctl", "gc"])
    ['internals', 'cfsctl', 'gc']
    """
    name = argv[0].rpartition("/")[2]
    if name == _GENERATOR[0]:
        return [_INTERNALS, _GENERATOR[1], *argv[1:]]
    return [_INTERNALS, name, *argv[1:]] if name in _TOOLS else argv[1:]


def commands_for(words: Sequence[str] = ()) -> tuple[Command, ...]:
    """Return the commands that are needed to parse ``words``."""
    if words and words[0] == HELP_VERB:
        words = words[1:]
    if words and words[0] == _INTERNALS:
        return (_internals(words[1:]),)
    if words and words[0] in VERBS:
        return _brought(VERBS, words)
    return (*_brought(VERBS, ()), _internals(()))


def _internals(words: Sequence[str]) -> Command:
    return Command(
        name=_INTERNALS,
        help="Commands for developers of the system.",
        commands=_brought(INTERNALS, words),
        hidden=True,
    )


def _brought(modules: Mapping[str, str], words: Sequence[str]) -> tuple[Command, ...]:
    """Import the module of the first word, or all modules if it is not a verb."""
    first = modules.get(words[0]) if words else None
    names = dict.fromkeys(modules.values()) if first is None else (first,)
    found = (importlib.import_module(f"bootc.cli.verbs.{name}") for name in names)
    return tuple(command for module in found for command in module.COMMANDS)
