"""Skip aloud where a tool is missing, and fail instead where CI must not skip."""

from __future__ import annotations

import os
import shutil

import pytest


def lacking(reason: str) -> None:
    """Skip the running test, or fail it in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"CI must not skip: {reason}")
    pytest.skip(reason)


def tool(name: str) -> str:
    """Return the path of an external tool."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        lacking(f"{name} is not installed (tools/host-packages installs it)")
    assert path is not None
    return path


def root() -> None:
    """Demand root."""
    if os.geteuid() != 0:
        lacking("needs root")
