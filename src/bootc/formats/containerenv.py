r"""``/run/.containerenv``: what podman tells a container about itself.

Lines of ``key="value"``, quoted as Go quotes text. The file is empty in containers that are
not privileged, and in builds.

>>> parse_containerenv(b'engine="podman-5.4.2"\nrootless=0\n')
{'engine': 'podman-5.4.2', 'rootless': '0'}
"""

from __future__ import annotations

import json


def parse_containerenv(data: bytes) -> dict[str, str]:
    """Return the values by key. Malformed lines are ignored."""
    values: dict[str, str] = {}
    for line in data.decode("utf-8", "replace").split("\n"):
        key, equals, quoted = line.strip().partition("=")
        value = _unquoted(quoted)
        if equals and key and value is not None:
            values[key] = value
    return values


def _unquoted(text: str) -> str | None:
    if not text.startswith('"'):
        return text
    try:
        # Go has escapes that JSON lacks, but names and ids do not need them.
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, str) else None
