r"""Reads ``shadow`` and ``gshadow``: which of their entries belong to an account.

The name of an account comes first in each line, as in ``passwd`` and ``group``. Lines of NIS
(``+`` and ``-``), comments and lines without a colon are no entries.

Sources: shadow(5), gshadow(5), passwd(5).

>>> without_orphans(b"root:*::\ngone:!::\n", {b"root"})
(b'root:*::\n', [b'gone'])
"""

from __future__ import annotations

from collections.abc import Collection


def account_names(data: bytes) -> set[bytes]:
    """Return the names of the accounts in a file of one of the four formats."""
    names = {_name(line) for line in data.split(b"\n")}
    return {name for name in names if name is not None}


def without_orphans(data: bytes, accounts: Collection[bytes]) -> tuple[bytes, list[bytes]]:
    """Remove entries without an account, and all entries of an account except the first.

    Args:
        data: The content of ``shadow`` or ``gshadow``.
        accounts: The names of all users or groups.

    Returns:
        The other lines unchanged, and the names of the removed entries in order.
    """
    kept, removed = [], []
    seen: set[bytes] = set()
    for line in data.splitlines(keepends=True):
        name = _name(line)
        if name is not None and (name not in accounts or name in seen):
            removed.append(name)
            continue
        if name is not None:
            seen.add(name)
        kept.append(line)
    return b"".join(kept), removed


def _name(line: bytes) -> bytes | None:
    """Return the name in an entry, or None for any other line."""
    name, colon, _ = line.partition(b":")
    if not colon or not name or name[:1] in b"#+-":
        return None
    return name
