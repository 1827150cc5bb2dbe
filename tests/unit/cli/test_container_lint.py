"""``bootc container lint`` as a Containerfile calls it: streams and exit codes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml

from bootc.deploy.host import boot_state
from bootc.fs.imageroot import ImageRoot
from bootc.lint import run as lint_run
from bootc.lint.table import LINTS
from support.roots import MODULES, base, bootable

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(bootc: Run) -> Run:
    return partial(bootc, "container", "lint")


def test_images_that_pass(run: Run, tmp_path: Path) -> None:
    for make in (base, bootable):
        root = make(tmp_path / make.__name__).path
        for options in ((), ("--fatal-warnings",), ("--no-truncate",)):
            assert run("--rootfs", root, *options) == (
                0,
                "Checks passed: 13\nChecks skipped: 1\n",
                "",
            )


def test_the_root_of_the_machine_is_announced(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = base(tmp_path / "root").path
    monkeypatch.setattr(ImageRoot, "is_running", True)
    monkeypatch.setattr(boot_state, "in_container", lambda root: True)
    assert run("--rootfs", root)[2] == ""
    monkeypatch.setattr(boot_state, "in_container", lambda root: False)
    code, _, notices = run("--rootfs", root)
    assert code == 0
    assert notices.startswith("notice: this checks / of the running machine")
    assert "--rootfs DIR" in notices


def test_a_slow_check_shows_how_far_it_is(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lint_run, "_SILENT_S", 0.0)
    monkeypatch.setattr(lint_run, "_NAMES_A_LOOK", 1)
    code, _, notices = run("--rootfs", base(tmp_path / "root").path)
    assert code == 0
    assert "Checked 1 names, now below /" in notices


def test_warnings(run: Run, tmp_path: Path) -> None:
    root = base(tmp_path / "root").file("var/log/dnf.log", "x").file("etc/hostname")
    for number in range(6):
        root.file(f"boot/{number}")
    empty = (
        "Lint warning: buildah-injected: /etc/hostname is an empty file; "
        "this may have been synthesized by a container runtime.\n"
    )
    boot = "Lint warning: nonempty-boot: Found non-empty /boot:\n  0\n  1\n  2\n  3\n  4\n"
    log = "Lint warning: var-log: Found non-empty logfiles:\n  /var/log/dnf.log\n\n"
    counts = "Checks passed: 10\nChecks skipped: 1\nWarnings: 3\n"
    cut = f"{empty}{boot}  ...and 1 more\n\n{log}{counts}"
    assert run("--rootfs", root.path) == (0, cut, "")
    assert run("--rootfs", root.path, "--no-truncate") == (
        0,
        f"{empty}{boot}  5\n\n{log}{counts}",
        "",
    )
    assert run("--rootfs", root.path, "--fatal-warnings") == (
        1,
        cut,
        "error: Linting: Checks failed: 3\n",
    )
    skipping = ("--skip", "var-log", "--skip", "nonempty-boot", "--skip", "no-such-lint")
    assert run("--rootfs", root.path, *skipping) == (
        0,
        f"{empty}Checks passed: 10\nChecks skipped: 3\nWarnings: 1\n",
        "",
    )


def test_failures(run: Run, tmp_path: Path) -> None:
    root = base(tmp_path / "root").directory("var/run", "usr/etc").remove("ostree")
    assert run("--rootfs", root.path) == (
        1,
        "Failed lint: baseimage-root: Missing ostree -> sysroot/ostree link\n"
        "Failed lint: etc-usretc: Found /usr/etc - this is a bootc implementation detail "
        "and not supported to use in containers\n"
        "Failed lint: var-run: Not a symlink: var/run\n"
        "Checks passed: 10\nChecks skipped: 1\n",
        "error: Linting: Checks failed: 3\n",
    )


def test_a_lint_that_cannot_run(run: Run, tmp_path: Path) -> None:
    root = base(tmp_path / "root").remove("ostree").file("usr/lib/bootc/kargs.d/a.toml", "=")
    code, out, err = run("--rootfs", root.path)
    assert code == 1
    assert out == "Failed lint: baseimage-root: Missing ostree -> sysroot/ostree link\n"
    assert err.startswith(
        "error: Linting: Unexpected runtime error running lint bootc-kargs: Parsing a.toml: "
    )
    assert err.count("\n") == 1


def test_several_kernels(run: Run, tmp_path: Path) -> None:
    root = base(tmp_path / "root")
    for name in ("5.7.2", "6.3.1"):
        root.file(f"usr/lib/modules/{name}/vmlinuz", "x")
    assert run("--rootfs", root.path) == (
        1,
        "",
        "error: Linting: Unexpected runtime error running lint kernel: Found multiple "
        "subdirectories in usr/lib/modules (hint: keep one of 5.7.2, 6.3.1)\n",
    )


def test_ours(run: Run, tmp_path: Path) -> None:
    root = bootable(tmp_path / "root").file("etc/fstab", "UUID=1 / ext4\n").file("boot/x")
    root.remove(f"{MODULES}/initramfs.img")
    code, out, err = run("--rootfs", root.path, "--fatal-warnings", "--skip", "pybootc-fstab")
    assert (code, err) == (1, "error: Linting: Checks failed: 2\n")
    assert out.splitlines()[3].startswith("Lint warning: pybootc-installable: Found what ")
    assert out.endswith(
        "Checks passed: 12\nChecks skipped: 1\nWarnings: 1\nWarnings of pybootc: 1\n"
    )


def test_the_list(run: Run) -> None:
    code, out, err = run("--list", "--rootfs", "/no/such/place")
    assert (code, err) == (0, "")
    assert yaml.safe_load(out) == [
        {"name": one.name, "type": one.kind.value, "description": one.description}
        | ({"root-type": one.root_type.value} if one.root_type else {})
        for one in LINTS
    ]


def test_no_root(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "nothing"
    assert run("--rootfs", path) == (1, "", f"error: {path}: No such file or directory\n")
    path.touch()
    assert run("--rootfs", path) == (1, "", f"error: {path}: Not a directory\n")
