"""``bootc container ukify``, as far as it gets without ukify."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from support.roots import bootable

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(bootc: Run) -> Run:
    return partial(bootc, "container", "ukify")


def test_the_options_are_checked_before_the_root_is_read(run: Run, tmp_path: Path) -> None:
    root = bootable(tmp_path / "root").path
    dump = tmp_path / "dump"
    assert run("--rootfs", root, "--write-dumpfile-to", dump, "--", "--output=a.efi") == (
        1,
        "",
        f"error: {root}/a.efi would change the root after its digest was computed "
        "(hint: write the UKI below boot, or outside the root)\n",
    )
    assert run("--rootfs", root, "--write-dumpfile-to", dump)[0] == 1
    assert not dump.exists()


def test_the_running_root(run: Run) -> None:
    code, _, err = run("--kernel-dir", "/nowhere/6.12", "--", "--output=/boot/a.efi")
    assert (code, err) == (
        1,
        "error: /nowhere/6.12/vmlinuz is missing, or is not a regular file\n",
    )


@pytest.mark.parametrize(
    "arguments", [["--erofs-version", "v3"], ["--karg"], ["--kernel-dir", ""], ["--bogus"]]
)
def test_wrong_usage(run: Run, arguments: list[str]) -> None:
    assert run(*arguments)[0] == 2
