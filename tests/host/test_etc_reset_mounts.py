"""A path of ``/etc`` on which something is mounted is not reset."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import require

pytestmark = pytest.mark.host

#: As on a booted machine: the deployment's etc is mounted at /etc, here in a peer group of its
#: own, so that what is mounted there does not show in the physical root.
SCRIPT = """
import os, sys
from pathlib import Path
from bootc.deploy.etc.apply import read_etc
from bootc.deploy.etc.review import CannotReset, reset
from bootc.deploy.etc.local import LocalEtc
from bootc.deploy.host.statedir import StateDir
from bootc.errors import one_line
from bootc.formats.digest import Algorithm, Digest
from bootc.formats.tree import Directory
from bootc.fs import mounts
from bootc.fs.dir import Dir
from bootc.kernel.mount import MS_BIND, MS_PRIVATE, mount

base, target = Path(sys.argv[1]), sys.argv[2]
mounts.private_mount_namespace()
state, live, other = base / "state", base / "live", base / "other"
for path in (state / "etc/ssl/certs", live, other):
    path.mkdir(parents=True)
(state / "etc/ssl/certs/covered").write_text("covered")
(other / "key").write_text("the only copy")
mount(str(state / "etc"), str(live), None, MS_BIND)
mount(None, str(live), None, MS_PRIVATE)
mount(str(other), str(base / target / "ssl/certs"), None, MS_BIND)

with Dir.open(state) as directory, read_etc(directory, Algorithm.SHA512) as current:
    local = LocalEtc(Directory(), current, {}, current.open_content)
    for path in (b"ssl", b"ssl/certs"):
        try:
            reset(StateDir(directory, Digest.from_hex('aa' * 64)), local, path)
        except CannotReset as exc:
            said = one_line(exc)
        else:
            raise AssertionError("nobody noticed")
        place = base / target / "ssl/certs"
        text = f"something is mounted on {place} (hint: first: umount {place})"
        assert said == f'Resetting "{path.decode()}": {text}', said
        assert directory.names() == ["etc"]
assert (place / "key").read_text() == "the only copy"
assert (other / "key").exists()
"""


@pytest.mark.parametrize("target", ["live", "state/etc"])
def test_what_is_mounted_is_not_reset(tmp_path: Path, target: str) -> None:
    require.root()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-c", SCRIPT, str(tmp_path), target]
    subprocess.run(argv, check=True, env=environment)
    assert (tmp_path / "state/etc/ssl/certs/covered").read_text() == "covered"
    assert (tmp_path / "other/key").read_text() == "the only copy"
