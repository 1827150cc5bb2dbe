"""Tests that share an installation run in one process, with the versions that are installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sharing import rank, shared_by

CONFTEST = """\
import os, pytest
from sharing import Sharing

def pytest_xdist_make_scheduler(config, log):
    return Sharing(config, log)

@pytest.fixture(scope="session", params=["type1", "uki"])
def family(request):
    name = f"{request.param}-{os.environ['PYTEST_XDIST_WORKER']}"
    open(request.config.rootpath / name, "x").close()
"""
TESTS = """\
import time

def test_some(family):
    time.sleep(0.2)

def test_more(family):
    time.sleep(0.2)
"""


@pytest.mark.parametrize(
    ("nodeid", "name"),
    [
        ("tests/boot/test_updates.py::test_a_life[uki]", "uki"),
        ("tests/boot/test_variants.py::test_tags[type1-3]", "type1"),
        ("tests/boot/test_variants.py::test_tags[3-type1]", "type1"),
        ("tests/boot/test_journey.py::TestX::test_y[not type1]", "tests/boot/test_journey.py"),
        ("tests/boot/test_journey.py::TestX::test_y", "tests/boot/test_journey.py"),
        ("tests/host/test_mounts.py::test_z", "this machine"),
        ("tests/interop/test_skopeo.py::test_z[uki]", "this machine"),
        ("tests/crash/test_gc_crash.py::test_z[uki]", "tests/crash/test_gc_crash.py"),
        ("tests/property/test_gc.py::test_z", "tests/property/test_gc.py"),
    ],
)
def test_what_is_shared(nodeid: str, name: str) -> None:
    assert shared_by(nodeid) == name


def test_what_may_be_left_out_comes_last() -> None:
    tests = [
        "tests/boot/test_journey.py::TestX::test_y",
        "tests/boot/test_grub.py::test_bios",
        "tests/boot/test_sealed.py::test_it_lives",
        "tests/host/test_mounts.py::test_z",
        "tests/crash/test_gc_crash.py::test_a",
        "tests/boot/test_updates.py::test_a_life[uki]",
    ]
    turned = [*tests[3:], *tests[:3]]
    assert sorted(turned, key=rank) == tests
    assert rank("tests/boot/test_updates.py::test_a_life[type1]") == rank(tests[-1])


def test_one_process_for_each_family(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    tests = tmp_path / "boot"
    tests.mkdir()
    for name in ("test_a.py", "test_b.py"):
        (tests / name).write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-n", "3", "-p", "no:cacheprovider", "--rootdir"]
    subprocess.run(
        [*command, str(tmp_path), "-o", f"pythonpath={Path(__file__).parent}", str(tmp_path)],
        check=True,
        capture_output=True,
        cwd=tmp_path,
    )
    families = [path.name.partition("-")[0] for path in tmp_path.glob("*-gw*")]
    assert sorted(families) == ["type1", "uki"]
