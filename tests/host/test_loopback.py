"""Loop devices of parts of files, as the kernel has them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bootc.fs import loopback
from support import children, require

pytestmark = pytest.mark.host

MIB = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    require.root()
    path = tmp_path / "image"
    path.write_bytes(b"a" * MIB + b"b" * MIB + b"c" * MIB)
    return path


def attached_to(path: Path) -> list[str]:
    argv = [require.tool("losetup"), "--noheadings", "--output", "NAME", "--associated", str(path)]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()


def test_a_part_of_a_file(image: Path) -> None:
    with loopback.attached(str(image), offset=MIB, size_bytes=MIB) as node:
        assert attached_to(image) == [node]
        with open(node, "r+b") as device:
            assert device.read() == b"b" * MIB
            device.seek(0)
            device.write(b"x" * 4096)
            device.flush()
            os.fsync(device.fileno())
    assert attached_to(image) == []
    assert image.read_bytes()[MIB - 1 : MIB + 4097] == b"a" + b"x" * 4096 + b"b"


def test_several_parts_at_once(image: Path) -> None:
    with loopback.attached(str(image)) as whole, loopback.attached(str(image), offset=MIB) as rest:
        assert set(attached_to(image)) == {whole, rest}
        with open(rest, "rb") as device:
            assert device.seek(0, os.SEEK_END) == 2 * MIB


HOLDER = """
import sys, time
from bootc.fs import loopback
with loopback.attached(sys.argv[1]):
    print("attached", flush=True)
    time.sleep(60)
"""


def test_nothing_is_left_of_a_process_that_is_killed(image: Path) -> None:
    argv = [sys.executable, "-c", HOLDER, str(image)]
    with children.running(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"attached\n"
        assert len(attached_to(image)) == 1
        process.kill()
    deadline = time.monotonic() + 60
    while attached_to(image):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_is_no_file(tmp_path: Path) -> None:
    require.root()
    with pytest.raises(OSError, match="No such file") as caught, loopback.attached("/none"):
        pass
    assert caught.value.__notes__ == ["Attaching /none to a loop device"]
    with pytest.raises(OSError), loopback.attached(str(tmp_path)):  # noqa: PT011
        pass
