"""Which skopeo there is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootc.fs import process
from bootc.oci import skopeo
from support import require

#: The first that serves images of local storage.
LOCAL_STORAGE = (1, 11)
#: The first protocol of the image proxy that checks signatures.
SIGNATURES = (0, 2, 6)
#: Debian 13 has a skopeo that does, Debian 12 has not.
TREE = Path(__file__).parents[2] / "build" / "podman"
_WRAPPER = """\
#!/bin/sh
exec {tree}/lib64/ld-linux-x86-64.so.2 --library-path {tree}/usr/lib/x86_64-linux-gnu \\
    {tree}/usr/bin/skopeo "$@"
"""


def version() -> tuple[int, ...]:
    """Return the version's first two numbers."""
    text = process.run(["skopeo", "--version"]).stdout.decode().split()[2]
    return tuple(int(part) for part in text.split("-")[0].split(".")[:2])


def proxy_version() -> tuple[int, ...]:
    """Return the version of the image proxy's protocol."""
    with skopeo._proxy(os.environ) as proxy:
        return proxy.version


def checking_signatures(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a skopeo that checks signatures the skopeo of this process.

    Args:
        directory: An empty directory.
        monkeypatch: Undoes it.
    """
    require.tool("skopeo")
    if proxy_version() >= SIGNATURES:
        return
    if not (TREE / "usr/bin/skopeo").exists():
        require.lacking(f"{TREE} has no skopeo (tools/debian-tree, as in the Makefile)")
    program = directory / "skopeo"
    program.write_text(_WRAPPER.format(tree=TREE))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory), prepend=":")
