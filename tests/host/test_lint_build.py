"""``RUN bootc container lint``: the root is ``/``, and an engine has mounted its things there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support import require
from support.roots import Root, bootable

pytestmark = pytest.mark.host

#: Enters a root as container engines do while they build, and lints it. There is no Python in
#: the root: a first run imports everything.
PROGRAM = """
import contextlib, io, json, os, sys
from bootc.cli.main import main
from bootc.fs.mounts import private_mount_namespace
from bootc.kernel.mount import MS_BIND, mount

root, given, user, arguments = json.load(sys.stdin)
with contextlib.redirect_stdout(io.StringIO()):
    main(["container", "lint", "--rootfs", root])
private_mount_namespace()
mount(root, root, None, MS_BIND)
for name, kind in (("proc", "proc"), ("sys", "sysfs"), ("dev", "tmpfs"), ("run/secrets", "tmpfs")):
    mount(kind, f"{root}/{name}", kind, 0)
for name in ("run/.containerenv", "run/systemd/resolve/stub-resolv.conf", "etc/resolv.conf"):
    mount(given, f"{root}/{name}", None, MS_BIND)
for name in ("var/cache/apt", "tmp/build", "var/log/journal"):
    mount(os.path.dirname(given), f"{root}/{name}", None, MS_BIND)
os.chroot(root)
os.chdir("/")
if user:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
sys.exit(main(["container", "lint", *arguments]))
"""


@pytest.fixture
def root(tmp_path: Path) -> Root:
    require.root()
    root = bootable(tmp_path / "root")
    root.directory("run/secrets", "tmp/build", "var/cache/apt", "var/log/journal")
    for name in ("run/.containerenv", "run/systemd/resolve/stub-resolv.conf", "etc/resolv.conf"):
        root.file(name)
    root.file("etc/passwd").file("etc/group", "root:x:0:\n")
    root.file("usr/lib/sysusers.d/x.conf", "g root\n")
    root.file("usr/lib/tmpfiles.d/x.conf", "d /var/log\nd /var/cache\n")
    given = tmp_path / "given"
    given.mkdir()
    (given / "file").write_text("of the host")
    return root


def lint(root: Root, *arguments: str, user: int = 0) -> subprocess.CompletedProcess[str]:
    given = str(root.path.parent / "given/file")
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([str(root.path), given, user, arguments]),
        check=False,
        capture_output=True,
        text=True,
    )


def test_mounts_of_the_engine_are_not_the_images(root: Root) -> None:
    done = lint(root, "--no-truncate")
    assert done.stderr == ""
    assert done.stdout == (
        "Lint warning: var-tmpfiles: Found content in /var missing systemd tmpfiles.d entries:\n"
        "  d /var/cache/apt 0755 0 root - -\n"
        "  d /var/log/journal 0755 0 root - -\n\n"
        "Checks passed: 12\nChecks skipped: 1\nWarnings: 1\n"
    )
    assert done.returncode == 0


def test_what_the_build_left_beside_them(root: Root) -> None:
    root.file("run/systemd/left", "x").file("tmp/left")
    done = lint(root, "--fatal-warnings", "--skip", "var-tmpfiles")
    assert done.stdout == (
        "Lint warning: nonempty-run-tmp: Found content in runtime-only directories (/run, /tmp):\n"
        "  /run/systemd\n  /run/systemd/left\n  /tmp/left\n\n"
        "Checks passed: 11\nChecks skipped: 2\nWarnings: 1\n"
    )
    assert done.stderr == "error: Linting: Checks failed: 1\n"
    assert done.returncode == 1


def test_an_ordinary_user(root: Root) -> None:
    done = lint(root, "--skip", "var-tmpfiles", user=65534)
    assert (done.stdout, done.stderr) == ("Checks passed: 12\nChecks skipped: 2\n", "")
    (root.path / "usr/lib/secret").mkdir(mode=0o700)
    done = lint(root, "--skip", "var-tmpfiles", user=65534)
    assert done.stderr == (
        "error: Linting: Unexpected runtime error running lint utf8: "
        "/usr/lib/secret: Permission denied\n"
    )
    assert done.returncode == 1
