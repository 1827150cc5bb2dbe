"""Options, configuration and imports of the initramfs step. tests/host mounts for real."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import bootc
from bootc.errors import one_line
from bootc.initramfs import setup_root
from bootc.initramfs.setup_root import BIND, NONE, TRANSIENT, SetupError

SRC = str(Path(bootc.__file__).parents[1])
HEX = "77" * 64

#: All that may be loaded, apart from what the interpreter itself starts with.
ALLOWED = {
    "__future__",
    "_ctypes",
    "_struct",
    "bootc",
    "bootc.errors",
    "bootc.formats",
    "bootc.formats.cmdline",
    "bootc.initramfs",
    "bootc.initramfs.setup_root",
    "bootc.kernel",
    "bootc.kernel.fsverity",
    "bootc.kernel.libc",
    "bootc.kernel.mount",
    "bootc.printable",
    "bootc.repository",
    "bootc.repository.layout",
    "bootc.repository.mounting",
    "ctypes",
    "ctypes._endian",
    "errno",
    "fcntl",
    "os",
    "stat",
    "struct",
    "sys",
    "types",  # by ctypes
    # by os
    "_collections_abc",
    "abc",
    "_abc",
    "_stat",
    "genericpath",
    "os.path",
    "posixpath",
}


def python(program: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-SI", "-c", f"import sys; sys.path.append({SRC!r})\n{program}", *args],
        capture_output=True,
        text=True,
        check=False,
    )


def test_imports_stay_within_the_list() -> None:
    base = set(python("print(*sys.modules)").stdout.split())
    run = python(
        "from bootc.initramfs import setup_root\n"
        "status = setup_root.main(['--config', '/nowhere', '--cmdline', 'rw'])\n"
        "print(*sys.modules)\n"
        "sys.exit(status)"
    )
    assert run.returncode == 1
    assert set(run.stdout.split()) - base - ALLOWED == set()
    assert run.stderr == "bootc: no composefs image in the kernel command line\n"


@pytest.mark.parametrize(
    ("argv", "attribute", "value"),
    [
        ([], "sysroot", "/sysroot"),
        ([], "config", "/usr/lib/composefs/setup-root-conf.toml"),
        ([], "target", None),
        (["setup-root", "--sysroot", "/a"], "sysroot", "/a"),
        (["--sysroot=/a", "setup-root", "more"], "sysroot", "/a"),
        (["--cmdline", "--config"], "cmdline", "--config"),
        (["--cmdline=a=b c"], "cmdline", "a=b c"),
        (["--cmdline="], "cmdline", ""),
        (["--root-fs", "/r"], "root_fs", "/r"),
        (["--target", "/t"], "target", "/t"),
        (["--config", "/c"], "config", "/c"),
    ],
)
def test_options(argv: list[str], attribute: str, value: str | None) -> None:
    assert getattr(setup_root.parse_options(argv), attribute) == value


@pytest.mark.parametrize("argv", [["--nope"], ["-h"], ["--sysroot"], ["--sysroots=/a"], ["--"]])
def test_wrong_options(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert setup_root.main(argv) == 1
    assert capsys.readouterr().err.startswith("bootc: ")


@pytest.mark.parametrize(
    ("text", "root", "etc", "var"),
    [
        ("", False, "", ""),
        ("[root]\ntransient = true\n", True, "", ""),
        ("[root]\ntransient = false\n[unknown]\nkey = 1\n", False, "", ""),
        ("[etc]\nmount = 'none'\n[var]\nmount = 'root'\n", False, NONE, NONE),
        ("[etc]\nmount = 'transient'\n[var]\nmount = 'volatile'\n", False, TRANSIENT, TRANSIENT),
        ("[etc]\ntransient = true\n[var]\ntransient = false\n", False, TRANSIENT, ""),
        ("[etc]\ntransient = true\nmount = 'bind'\n", False, BIND, ""),
    ],
)
def test_config(tmp_path: Path, text: str, root: bool, etc: str, var: str) -> None:
    path = tmp_path / "conf.toml"
    path.write_text(text)
    config = setup_root.read_config(str(path))
    assert (config.transient_root, config.etc, config.var) == (root, etc, var)


def test_missing_config_means_defaults(tmp_path: Path) -> None:
    config = setup_root.read_config(str(tmp_path / "none"))
    assert (config.transient_root, config.etc, config.var) == (False, "", "")


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"[etc]\nmount = 'overlay'\n", '[etc] mount = "overlay" is not supported; use bind or'),
        (b"[var]\nmount = 'bound'\n", "[var] mount is none of bind, none, root, transient,"),
        (b"[var]\nmount = 1\n", "[var] mount is none of"),
        (b"[root]\ntransient = 'yes'\n", "[root] transient is neither true nor false"),
        (b"root = 1\n", "[root] is not a table"),
        (b"[root\n", "Expected"),
        (b"\xff", "'utf-8' codec can't decode"),
    ],
)
def test_config_with_a_mistake(tmp_path: Path, data: bytes, cause: str) -> None:
    path = tmp_path / "conf.toml"
    path.write_bytes(data)
    with pytest.raises(SetupError) as caught:
        setup_root.read_config(str(path))
    assert one_line(caught.value).startswith(f"{path}: {cause}")


def test_unreadable_config_is_no_missing_config(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        setup_root.read_config(str(tmp_path))


@pytest.mark.parametrize(
    ("make", "line"),
    [
        ([], "{root}: No such file or directory"),
        (["composefs"], "opening the repository in {root}: objects: No such file or directory"),
        (["composefs/objects"], "image {hex}: not in the repository"),
    ],
)
def test_failure_is_one_line_that_names_the_cause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: list[str], line: str
) -> None:
    root = tmp_path / "root"
    for path in make:
        (root / path).mkdir(parents=True)
    status = setup_root.main(
        ["--sysroot", str(root), "--config", "/nowhere", "--cmdline", f"composefs=?{HEX}"]
    )
    assert status == 1
    assert capsys.readouterr().err == f"bootc: {line.format(root=root, hex=HEX)}\n"


def test_volatile_root_names_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "run/systemd/volatile-root"
    monkeypatch.setattr(setup_root, "GPT_AUTO_ROOT", str(tmp_path / "none"))
    monkeypatch.setattr(setup_root, "VOLATILE_ROOT", str(link))
    setup_root.link_volatile_root()
    assert not link.parent.exists()

    monkeypatch.setattr(setup_root, "GPT_AUTO_ROOT", "/dev/null")
    for _ in range(2):  # the second time it is there already
        setup_root.link_volatile_root()
        assert os.readlink(link) == "/dev/block/1:3"
