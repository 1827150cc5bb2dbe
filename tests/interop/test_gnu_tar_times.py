"""Times before 1970: what GNU tar writes and reads, bootc reads and writes alike."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path

import pytest

from bootc.formats.tar import EntryKind, HeaderReader
from bootc.formats.tarheader import TRAILER, Member, tar_header
from support import require

pytestmark = pytest.mark.interop

SECOND = 10**9
TIMES_NS = [-1, -SECOND // 4, -SECOND, -5 * SECOND, -5 * SECOND - 1, -(2**31) * SECOND + SECOND + 7]


@pytest.mark.parametrize("time_ns", TIMES_NS)
@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_read(tmp_path: Path, form: str, time_ns: int) -> None:
    (tmp_path / "f").touch()
    os.utime(tmp_path / "f", ns=(0, time_ns))
    tar = [require.tool("tar"), f"--format={form}", "--create", "f"]
    archive = subprocess.run(tar, cwd=tmp_path, check=True, capture_output=True).stdout
    (entry,) = HeaderReader(io.BytesIO(archive).read)
    # The GNU format has whole seconds only.
    wanted = time_ns if form == "posix" else time_ns // SECOND * SECOND
    assert divmod(wanted, SECOND) == (entry.mtime_s, entry.mtime_ns)


@pytest.mark.parametrize("time_ns", TIMES_NS)
def test_written(tmp_path: Path, time_ns: int) -> None:
    member = Member(b"f", EntryKind.FILE, 0o644, 0, 0, *divmod(time_ns, SECOND))
    tar = [require.tool("tar"), "--extract", "--no-same-owner", "-C", str(tmp_path)]
    archive = tar_header(member) + TRAILER
    done = subprocess.run(tar, input=archive, check=True, capture_output=True)
    assert b"implausibly old" in done.stderr
    assert (tmp_path / "f").stat().st_mtime_ns == time_ns
