"""What README has a reader do with an image of his own, in a virtual environment of his own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.formats.imgref import ImageReference
from bootc.oci.source import open_source
from support import require
from support.images import compute_image_id
from support.readme import TOP, of_containers
from testbed.demo_os import DemoOs

pytestmark = pytest.mark.interop

#: What a fresh clone has not.
NOT_CLONED = shutil.ignore_patterns(
    ".git", ".venv", "build", "__pycache__", "*.so", "*.egg-info", ".*_cache", ".hypothesis"
)
#: In a namespace of its own: the tree of the image as /mnt/os-tree, then a command.
WITH_TREE = """
mount -t tmpfs none /mnt
mkdir /mnt/os-tree
mount --bind "$1" /mnt/os-tree
eval "$2"
"""


class Shell:
    """Somebody's shell, in the project's directory and with the environment activated."""

    def __init__(self, directory: Path, path: str) -> None:
        self.directory = directory
        self._environment = {**os.environ, "PATH": path}

    def __call__(self, command: str, *argv: str) -> str:
        """Run a command line, which must succeed, and return what it prints."""
        done = subprocess.run(
            argv or ["sh", "-c", command],
            cwd=self.directory,
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout


@pytest.fixture(scope="module")
def demo_os() -> DemoOs:
    demo = DemoOs()
    if demo.missing():
        require.lacking(f"{demo.missing()[0]} is not built (examples/debian/build)")
    return demo


@pytest.fixture(scope="module")
def shell(demo_os: DemoOs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    directory = tmp_path_factory.mktemp("reader")
    project, environment = directory / "pybootc", directory / "venv"
    shutil.copytree(TOP, project, symlinks=True, ignore=NOT_CLONED)
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    (project / "os").symlink_to(demo_os.layout.resolve())
    shell = Shell(project, f"{environment}/bin:{os.environ['PATH']}")
    shell("pip install .")
    yield shell
    shutil.rmtree(directory)


def test_the_command_is_the_one_that_was_installed(shell: Shell) -> None:
    assert shell("command -v bootc").startswith(f"{shell.directory.parent}/venv/bin/")
    assert "\nhashing: " in shell("bootc internals features")


def test_the_digest_of_an_image(shell: Shell, demo_os: DemoOs) -> None:
    command, _ = of_containers()
    with open_source(ImageReference.parse(f"oci:{demo_os.layout}:v1")) as source:
        assert shell(command) == f"{compute_image_id(source)}\n"


def test_why_two_digests_differ(shell: Shell) -> None:
    require.root()
    _, command = of_containers()
    bundle = shell.directory.parent / "bundle"
    subprocess.run(
        [require.tool("umoci"), "unpack", "--image", f"{shell.directory}/os:v1", bundle], check=True
    )
    said = shell(
        "", "unshare", "--mount", "sh", "-ec", WITH_TREE, "sh", f"{bundle}/rootfs", command
    )
    assert said.splitlines()[0].startswith("A: oci:./os:v1 (container image, ")
    assert said.endswith("\nThe digests are equal.\n")
