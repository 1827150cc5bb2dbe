from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootc.lint.runtime import nonempty_run_tmp, var_log
from support.roots import Root, base

RUNTIME = "Found content in runtime-only directories (/run, /tmp):\n"


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return base(tmp_path / "root")


def test_nothing(root: Root) -> None:
    assert root.found(nonempty_run_tmp) is None
    assert root.found(var_log) is None


def test_run_and_tmp(root: Root) -> None:
    root.directory("run/lock").file("tmp/a b").file("run/dnf/x").file("run/dnf-")
    assert root.found(nonempty_run_tmp) == (
        f"{RUNTIME}  /run/dnf\n  /run/dnf/x\n  /run/dnf-\n  /run/lock\n  '/tmp/a b'\n"
    )


def test_directories_that_are_missing_or_something_else(root: Root) -> None:
    root.remove("run").remove("tmp").file("tmp", "x").remove("var/log").file("var/log", "x")
    assert root.found(nonempty_run_tmp) is None
    assert root.found(var_log) is None


@pytest.mark.parametrize("left", ["run/systemd/resolve/stub-resolv.conf", "run/systemd/resolve/"])
def test_what_an_engine_mounts_leaves_nothing_to_find(root: Root, left: str) -> None:
    if left.endswith("/"):
        root.directory(left)
    else:
        root.file(left)
    assert root.found(nonempty_run_tmp) is None
    root.file("run/systemd/x")
    assert root.found(nonempty_run_tmp) == f"{RUNTIME}  /run/systemd\n  /run/systemd/x\n"
    root.file("run/systemd/resolve/y")
    assert root.found(nonempty_run_tmp) == (
        f"{RUNTIME}  /run/systemd\n  /run/systemd/resolve\n  /run/systemd/resolve/y\n"
        "  /run/systemd/x\n"
    )


def test_logs(root: Root) -> None:
    root.file("var/log/apt/term.log", "x").file("var/log/dpkg.log", "x").file("var/log/empty")
    root.link("var/log/README", "apt/term.log").directory("var/log/private")
    os.mkfifo(root.path / "var/log/pipe")
    assert root.found(var_log) == (
        "Found non-empty logfiles:\n  /var/log/apt/term.log\n  /var/log/dpkg.log\n"
    )


def test_a_link_for_the_directory_of_logs(root: Root) -> None:
    root.remove("var/log").link("var/log", "/srv/log").file("srv/log/x", "y")
    assert root.found(var_log) == "Found non-empty logfiles:\n  /var/log/x\n"
