"""The order of versions, against systemd's own."""

from __future__ import annotations

import itertools
import subprocess

import pytest

from bootc.formats.bls import compare_versions
from support import require

pytestmark = pytest.mark.interop

VERSIONS = (
    "~",
    "~~1",
    "~-1",
    "",
    "1",
    "01",
    "1_2",
    "1-2",
    "1-_2",
    "1.0",
    "1^a",
    "a1",
    "1a~rc",
    "é",
)
EXIT_CODES = {0: 0, 11: 1, 12: -1}


def test_as_systemd_compares() -> None:
    tool = require.tool("systemd-analyze")
    for a, b in itertools.combinations(VERSIONS, 2):
        argv = [tool, "compare-versions", a, b]
        done = subprocess.run(argv, capture_output=True, check=False)
        ours = compare_versions(a, b)
        assert (ours > 0) - (ours < 0) == EXIT_CODES[done.returncode], (a, b)
