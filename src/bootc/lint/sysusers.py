"""The lint of users and groups: systemd-sysusers must know those of the image.

Updates keep ``/etc/passwd`` and ``/etc/group`` if the machine has changed them. A new user of the
image then exists only if systemd-sysusers creates it, by a file of ``sysusers.d``.
"""

from __future__ import annotations

from bootc.formats.accounts import parse_accounts
from bootc.formats.shellquote import shell_quoted
from bootc.formats.systemdlines import typed_names
from bootc.fs.imageroot import ImageRoot
from bootc.lint.dropins import drop_ins
from bootc.lint.model import LintFinding, Listing, lists

_SYSUSERS_D = ("usr/lib/sysusers.d",)
_MAX_BYTES = 1 << 24


def sysusers(root: ImageRoot) -> LintFinding | None:
    """Find users and groups that no file of ``sysusers.d`` names."""
    passwd = root.read("etc/passwd", _MAX_BYTES)
    if passwd is None:
        return None
    group = root.read("etc/group", _MAX_BYTES) or b""
    users, groups = _known(root)
    return lists(
        *(
            Listing(
                f"Found /etc/{file} entry without corresponding systemd sysusers.d",
                [shell_quoted(name) for name in sorted(parse_accounts(data)) if name not in known],
            )
            for file, data, known in (("passwd", passwd, users), ("group", group, groups))
        )
    )


def _known(root: ImageRoot) -> tuple[set[str], set[str]]:
    """Return the users and the groups that ``sysusers.d`` creates."""
    users: set[str] = set()
    groups: set[str] = set()
    for data in drop_ins(root, _SYSUSERS_D):
        for kind, account in typed_names(data):
            if kind.rstrip("!") == "u":
                # A line of a user also creates a group of this name.
                users.add(account)
                groups.add(account)
            elif kind == "g":
                groups.add(account)
    return users, groups
