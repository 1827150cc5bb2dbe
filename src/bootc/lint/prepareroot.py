"""The lint of ``prepare-root.conf``: composefs must be enabled."""

from __future__ import annotations

from bootc.errors import doing
from bootc.formats.prepareroot import composefs_enabled
from bootc.fs.imageroot import ImageRoot
from bootc.lint.layout import here_and_in_reference
from bootc.lint.model import LintFinding

_CONF = "ostree/prepare-root.conf"
#: The directories that ostree searches. The first file counts.
_DIRECTORIES = ("etc", "run", "usr/lib")
_MAX_BYTES = 1 << 20


def baseimage_composefs(root: ImageRoot) -> LintFinding | None:
    """Find a configuration that is missing or does not enable composefs."""
    return here_and_in_reference(root, _enabled)


def _enabled(root: ImageRoot) -> LintFinding | None:
    for directory in _DIRECTORIES:
        path = f"{directory}/{_CONF}"
        data = root.read(path, _MAX_BYTES)
        if data is None:
            continue
        with doing(f"Parsing {path}"):
            enabled = composefs_enabled(data)
        return None if enabled else f"{_CONF} does not have composefs enabled"
    return f"{_CONF} is not present to enable composefs"
