"""The digests are those that ``fsverity digest`` of fsverity-utils computes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bootc.formats.digest import Algorithm
from bootc.formats.verity import verity_digest
from support import require

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("hashing")]


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 64 * 4096, 64 * 4096 + 1, 5_000_000])
def test_same_digest(tmp_path: Path, algorithm: Algorithm, size: int) -> None:
    data = (bytes(range(253)) * (size // 253 + 1))[:size]
    path = tmp_path / "file"
    path.write_bytes(data)
    tool = require.tool("fsverity")
    out = subprocess.run(
        [tool, "digest", "--compact", f"--hash-alg={algorithm.hash_name}", path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert verity_digest(data, algorithm).hex == out.stdout.strip()
