"""``bootc internals``: verbs for those who work on the system, not with it."""

from __future__ import annotations

import argparse
import json

from bootc import __version__
from bootc.cli.options import Command, Context, Option
from bootc.cli.verbs import composefs_info, mkcomposefs
from bootc.cli.verbs.cfs import command as cfs

#: The composefs tools this can be called as.
TOOLS = {
    "mkcomposefs": mkcomposefs.COMMAND,
    "composefs-info": composefs_info.COMMAND,
    "cfsctl": cfs.COMMAND,
}

#: What is used when it is there: the name shown, and the distribution it comes from.
_LIBRARIES = {"zstandard": "zstandard", "rich": "rich", "yaml": "PyYAML"}


def features(args: argparse.Namespace, context: Context) -> None:
    """Print what this installation is made of and which path its hashing takes."""
    import platform

    from bootc.formats import _speed

    found: dict[str, str | None] = {
        "bootc": __version__,
        "python": platform.python_version(),
        "extension": _speed.EXTENSION,
        "hashing": _speed.CHOICE.kernel,
        "hashing-reason": _speed.CHOICE.reason,
    }
    found |= {name: _version(library) for name, library in _LIBRARIES.items()}
    if args.json:
        context.write(json.dumps(found) + "\n")
        return
    for name, value in found.items():
        context.write(f"{name}: {value or 'absent'}\n")


def _version(library: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


COMMAND = Command(
    name="internals",
    help="Commands for developers of the system.",
    commands=(
        Command(
            name="features",
            help="Print what this installation is made of, and how it hashes.",
            options=(Option(("--json",), "As one JSON object.", default=False),),
            run=features,
        ),
        *TOOLS.values(),
    ),
    hidden=True,
)
