"""``bootc internals cfs``: the verbs of ``cfsctl``, for work on a composefs repository by hand.

The verbs print what ``cfsctl`` prints, except for messages. Options of the group come before
the verb; :mod:`bootc.cli.verbs.cfs.opening` says what they mean.
"""

from __future__ import annotations

from bootc.cli.options import Command, Option
from bootc.cli.verbs import composefs_info, mkcomposefs
from bootc.cli.verbs.cfs import images, oci, upkeep
from bootc.cli.verbs.cfs.opening import parse_algorithm, parse_erofs_version

_COMMAND = Command(
    name="cfs",
    help="Work on a composefs repository by hand.",
    options=(
        Option(("--repo",), "The repository.", metavar="PATH"),
        Option(("--user",), "The repository is ~/.var/lib/composefs.", default=False),
        Option(("--system",), "The repository is /sysroot/composefs.", default=False),
        Option(
            ("--hash",),
            "The digest algorithm of the repository: sha256 or sha512.",
            "ALG",
            offered=("sha256", "sha512"),
            parse=parse_algorithm,
        ),
        Option(
            ("--erofs-version",),
            "Create images of this version of the format: 0, 1 or 2.",
            "N",
            offered=("0", "1", "2"),
            parse=parse_erofs_version,
        ),
        Option(("--insecure",), "Do without fs-verity.", default=False, hidden=True),
        Option(("--require-verity",), "Refuse a repository that is not secure.", default=False),
        Option(("--no-upgrade",), "Refuse a repository without meta.json.", default=False),
        Option(("--no-repo",), "Do not ask a repository for its digest algorithm.", default=False),
        Option(("--no-wait",), "Fail if another process has locked the repository.", default=False),
    ),
    commands=(
        *upkeep.COMMANDS,
        *images.COMMANDS,
        oci.COMMAND,
        *mkcomposefs.COMMANDS,
        *composefs_info.COMMANDS,
    ),
    aliases=("cfsctl",),
)

COMMANDS = (_COMMAND,)
