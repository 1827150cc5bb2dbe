"""What an OS image gets, and what of it goes into an initramfs."""

from __future__ import annotations

import importlib.util
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bootc.formats import cmdline

KEYS = (cmdline.COMPOSEFS, cmdline.COMPOSEFS_DIGEST)
TOP = Path(__file__).parents[3]
SRC = TOP / "src"
CLOSURE = TOP / "data/dracut/51bootc/closure.py"


def closure(tree: Path, *modules: str) -> list[str]:
    """Run closure.py on this checkout; return the extension modules it names."""
    program = (
        f"import sys; sys.path.insert(0, {str(SRC)!r})\n"
        f"exec(compile(open({str(CLOSURE)!r}).read(), 'closure', 'exec'))"
    )
    return subprocess.run(
        [sys.executable, "-SI", "-c", program, str(tree), *modules],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()


def test_closure_is_bytecode_only_and_runs_without_sources(tmp_path: Path) -> None:
    native = closure(tmp_path)
    assert all(".so" in path for path in native)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".pyc"}
    # The interpreter recognises its library by this file.
    assert f"{tmp_path}{os.__file__}c" in map(str, files)

    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path) + str(SRC)!r})\n"
        "from bootc.initramfs import setup_root\n"
        "print(setup_root.__file__)\n"
        "sys.exit(setup_root.main(['--cmdline', 'rw', '--config', '/nowhere']))"
    )
    run = subprocess.run(
        [sys.executable, "-SI", "-c", program], capture_output=True, text=True, check=False
    )
    assert run.stdout.strip() == f"{tmp_path}{SRC}/bootc/initramfs/setup_root.pyc"
    assert run.stderr.startswith("bootc: no composefs image in the kernel command line\n")


def test_closure_holds_no_more_than_the_step_needs(tmp_path: Path) -> None:
    closure(tmp_path / "plain")
    closure(tmp_path / "toml", "tomllib")

    def names(tree: Path) -> set[str]:
        return {path.stem for path in tree.rglob("*.pyc")}

    assert not names(tmp_path / "plain") & {"py_compile", "re", "enum", "typing", "dataclasses"}
    assert {"_parser", "datetime"} <= names(tmp_path / "toml") - names(tmp_path / "plain")


def test_install_into_an_image(tmp_path: Path) -> None:
    old = tmp_path / "usr/lib/python3/dist-packages/bootc/gone.py"
    old.parent.mkdir(parents=True)
    old.write_text("")
    # What this Python cannot make is tested by tests/interop/test_install_os.py.
    done = subprocess.run(
        ["make", "--silent", "install", f"DESTDIR={tmp_path}"],
        cwd=TOP,
        env={**os.environ, "PYTHON": "false"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        f"bootc, its units and its initramfs step: installed in {tmp_path}",
        "compiled extensions: not installed (false has no setuptools)",
        "manual pages: not installed (false has no docutils)",
        "shell completions: not installed (false cannot run bootc)",
    ]

    installed = {
        str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode)
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    package = "usr/lib/python3/dist-packages/bootc/"
    sources = {
        str(path.relative_to(SRC / "bootc"))
        for pattern in ("bootc/**/*.py", "bootc/**/*.json")
        for path in SRC.rglob(pattern)
    }
    assert {name.removeprefix(package) for name in installed if name.startswith(package)} == sources
    assert {name: mode for name, mode in installed.items() if not name.startswith(package)} == {
        "usr/bin/bootc": 0o755,
        "usr/lib/bootc/initramfs-setup": 0o755,
        "usr/lib/dracut/dracut.conf.d/10-bootc.conf": 0o644,
        "usr/lib/dracut/modules.d/51bootc/closure.py": 0o755,
        "usr/lib/dracut/modules.d/51bootc/module-setup.sh": 0o755,
        "usr/lib/systemd/system-generators/bootc-systemd-generator": 0o755,
        "usr/lib/systemd/system/bootc-destructive-cleanup.service": 0o644,
        "usr/lib/systemd/system/bootc-fetch-apply-updates.service": 0o644,
        "usr/lib/systemd/system/bootc-fetch-apply-updates.timer": 0o644,
        "usr/lib/systemd/system/bootc-finalize-staged.service": 0o644,
        "usr/lib/systemd/system/bootc-refresh-boot-menu.service": 0o644,
        "usr/lib/systemd/system/bootc-security-counter.service": 0o644,
        "usr/lib/systemd/system/bootc-root-setup.service": 0o644,
        "usr/lib/systemd/system/bootc-status-updated-onboot.target": 0o644,
        "usr/lib/systemd/system/bootc-status-updated.path": 0o644,
        "usr/lib/systemd/system/bootc-status-updated.target": 0o644,
        "usr/lib/systemd/system/bootc-sysusers-shadow-sync.service": 0o644,
    }


def test_the_physical_root_is_never_switched_to() -> None:
    """The step is required for the new root, by either spelling of the argument.

    Leaving the emergency shell starts the default target again, and with it this step.
    """
    unit = (TOP / "data/systemd/bootc-root-setup.service").read_text().splitlines()
    conditions = {line for line in unit if line.startswith("ConditionKernelCommandLine=")}
    # Triggering conditions: one of them is enough.
    assert conditions == {f"ConditionKernelCommandLine=|{key}" for key in KEYS}
    assert "Before=initrd-root-fs.target" in unit
    assert {"OnFailure=emergency.target", "OnFailureJobMode=isolate"} <= set(unit)
    assert not any(line.startswith(("ExecStart=-", "SuccessExitStatus=")) for line in unit)
    module = (TOP / "data/dracut/51bootc/module-setup.sh").read_text()
    assert "initrd-root-fs.target.requires/bootc-root-setup.service" in module
    assert "initrd-root-fs.target.wants" not in module


@pytest.mark.parametrize("program", ["data/bin/bootc", "data/libexec/initramfs-setup"])
def test_launchers_name_what_exists(program: str) -> None:
    text = (TOP / program).read_text()
    compile(text, program, "exec")
    for line in text.splitlines():
        if line.startswith("from bootc."):
            assert importlib.util.find_spec(line.split()[1]) is not None
