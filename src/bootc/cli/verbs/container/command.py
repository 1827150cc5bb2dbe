"""``bootc container``: verbs for people who build images, and for their build scripts."""

from __future__ import annotations

from bootc.cli.options import Command
from bootc.cli.verbs.container import digest, export, inspect, lint, seal, split, ukify

_COMMAND = Command(
    name="container",
    help="Commands for building images.",
    commands=(
        lint.COMMAND,
        inspect.COMMAND,
        split.COMMAND,
        ukify.COMMAND,
        seal.COMMAND,
        export.COMMAND,
        digest.COMMAND,
        digest.FROM_STORAGE,
    ),
)

COMMANDS = (_COMMAND,)
