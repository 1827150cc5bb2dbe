r"""Reads ``passwd`` and ``group``: the numbers of users and groups.

Lines of NIS (``+`` and ``-``) and malformed lines are ignored.

Sources: passwd(5), group(5).

>>> parse_accounts(b"root:x:0:0:root:/root:/bin/sh\n")
{'root': 0}
"""

from __future__ import annotations

import os

_ID_FIELD = 2
#: 32 bits have no more digits; longer text would make int() slow.
_MAX_DIGITS = 10


def parse_accounts(data: bytes) -> dict[str, int]:
    """Return the numbers of users or groups by name, in the order of the file."""
    accounts: dict[str, int] = {}
    for line in os.fsdecode(data).split("\n"):
        name, *fields = line.strip().split(":")
        if not name or name[0] in "#+-" or len(fields) < _ID_FIELD:
            continue
        number = fields[_ID_FIELD - 1]
        if number.isascii() and number.isdigit() and len(number) <= _MAX_DIGITS:
            accounts.setdefault(name, int(number))
    return accounts
