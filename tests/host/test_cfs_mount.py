"""``cfs mount`` with a real kernel, in a child process with a mount namespace of its own.

What a secure repository demands of the kernel is seen in tests/boot, under one that has
fs-verity.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bootc
from bootc.fs.dir import Dir
from bootc.repository.repository import Repository
from support import require

pytestmark = pytest.mark.host

SRC = str(Path(bootc.__file__).parents[1])
CONTENT = "content" * 100
READ_ONLY = "Read-only file system"

#: Runs a verb and tells what is mounted and what can be done with it.
PROGRAM = f"""
import json, os, sys
sys.path.append({SRC!r})
from bootc.cli.main import main
from bootc.fs.mounts import private_mount_namespace, read_mounts

def attempt(work):
    try:
        return work()
    except OSError as exc:
        return exc.strerror

def read(path):
    with open(path) as file:
        return file.read()

def write(path):
    with open(path, "w") as file:
        return file.write("new")

private_mount_namespace()
target, *words = sys.argv[1:]
code = main(["internals", "cfs", *words])
print(json.dumps({{
    "code": code,
    "mounts": [
        (m.fstype, m.source) for m in read_mounts() if m.path == target or "bootc-layer" in m.path
    ],
    "large": attempt(lambda: read(f"{{target}}/usr/large")),
    "small": attempt(lambda: read(f"{{target}}/usr/small")),
    "write": attempt(lambda: write(f"{{target}}/usr/new")),
    "left": [name for name in os.listdir("/run") if name.startswith("bootc-layer")],
}}))
"""


@pytest.fixture(autouse=True)
def _root() -> None:
    require.root()


class Cfs:
    """The verbs, on a repository that has an image called ``os``."""

    def __init__(self, tmp_path: Path) -> None:
        self.repo = tmp_path / "repo"
        self.target = tmp_path / "target"
        self.target.mkdir()
        with Dir.open(tmp_path) as parent:
            Repository.create(parent, name="repo", secure=False).close()
        root = tmp_path / "root"
        (root / "usr").mkdir(parents=True)
        (root / "usr/large").write_text(CONTENT)
        (root / "usr/small").write_text("small")
        self.image = self.run("create-image", root, "os").stdout.partition("\n")[0]

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        verb = ["--repo", str(self.repo), *map(str, words)]
        return subprocess.run(
            [sys.executable, "-c", PROGRAM, str(self.target), *verb],
            capture_output=True,
            text=True,
            check=False,
        )

    def mount(self, *words: object, name: str = "os") -> dict[str, Any]:
        done = self.run("mount", name, self.target, *words)
        assert done.stderr == ""
        seen = json.loads(done.stdout)
        assert isinstance(seen, dict)
        assert seen["left"] == []
        return seen


@pytest.fixture
def cfs(tmp_path: Path) -> Cfs:
    return Cfs(tmp_path)


@pytest.mark.parametrize("form", ["os", "refs/os", "digest"])
def test_an_image(cfs: Cfs, form: str) -> None:
    digest = cfs.image.removeprefix("sha512:")
    seen = cfs.mount(name=digest if form == "digest" else form)
    assert seen == {
        "code": 0,
        "mounts": [["overlay", f"composefs:{digest}"]],
        "large": CONTENT,
        "small": "small",
        "write": READ_ONLY,
        "left": [],
    }


def test_changes_are_kept_above(cfs: Cfs, tmp_path: Path) -> None:
    # A name longer than what fsconfig(2) takes.
    above = tmp_path / ("long" * 60)
    (above / "upper").mkdir(parents=True)
    (above / "work").mkdir()
    layers = ("--upperdir", above / "upper", "--workdir", above / "work")
    assert cfs.mount(*layers)["write"] == READ_ONLY
    assert cfs.mount(*layers, "--read-write")["write"] == 3
    assert (above / "upper/usr/new").read_text() == "new"


def failed(cfs: Cfs, *words: object) -> str:
    done = cfs.run("mount", *words)
    seen = json.loads(done.stdout)
    assert (seen["code"], seen["mounts"], seen["left"]) == (1, [], [])
    (line,) = done.stderr.splitlines()
    return line.removeprefix("error: ")


def test_places_that_are_not_there(cfs: Cfs, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert failed(cfs, "os", missing) == f"Mounting at {missing}: No such file or directory"
    layers = ("--upperdir", missing, "--workdir", tmp_path)
    assert failed(cfs, "os", cfs.target, *layers) == (
        f"Mounting at {cfs.target}: {missing}: No such file or directory"
    )


def test_what_is_no_image(cfs: Cfs) -> None:
    with (
        Dir.open(cfs.repo.parent) as parent,
        Repository.open(parent, name="repo", require_verity=False, writable=True) as repository,
    ):
        digest = repository.images.add(bytes(8192))
    told = failed(cfs, digest, cfs.target)
    assert told.startswith(f"Mounting at {cfs.target}: mounting image {digest}: ")
    assert told.endswith(": Invalid argument")


def test_without_the_right_to_mount(cfs: Cfs) -> None:
    setpriv = require.tool("setpriv")
    program = (
        "import sys; sys.path.append(sys.argv[1]); from bootc.cli.main import main; "
        "sys.exit(main(sys.argv[2:]))"
    )
    verb = ["internals", "cfs", "--repo", str(cfs.repo), "mount", "os", str(cfs.target)]
    done = subprocess.run(
        [setpriv, "--bounding-set=-sys_admin", sys.executable, "-c", program, SRC, *verb],
        capture_output=True,
        text=True,
        check=False,
    )
    digest = cfs.image.removeprefix("sha512:")
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        f"error: Mounting at {cfs.target}: mounting image {digest}: Operation not permitted\n",
    )
