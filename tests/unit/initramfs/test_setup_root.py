"""Options, configuration and imports of the initramfs step. tests/host mounts for real."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import bootc
from bootc.errors import one_line
from bootc.formats import cmdline
from bootc.initramfs import setup_root
from bootc.initramfs.setup_root import BIND, NONE, TRANSIENT, SetupError
from bootc.repository import layout, mounting
from bootc.repository.mounting import ImageNotFound, ImageNotTrusted

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
    "bootc.formats.security_counter",
    "bootc.formats.security_version",
    "bootc.formats.tpm2nv",
    "bootc.initramfs",
    "bootc.initramfs.secure_boot",
    "bootc.initramfs.setup_root",
    "bootc.kernel",
    "bootc.kernel.efivars",
    "bootc.kernel.files",
    "bootc.kernel.fsverity",
    "bootc.kernel.libc",
    "bootc.kernel.mount",
    "bootc.kernel.tpm",
    "bootc.printable",
    "bootc.repository",
    "bootc.repository.layout",
    "bootc.repository.mounting",
    "ctypes",
    "ctypes._endian",
    "errno",
    "fcntl",
    "os",
    "select",
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
    assert run.stderr == (
        "bootc: no composefs image in the kernel command line\n" + setup_root.RECOVERY
    )


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
    text = capsys.readouterr().err
    assert text.startswith("bootc: ")
    assert setup_root.RECOVERY not in text


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
    assert capsys.readouterr().err == (
        f"bootc: {line.format(root=root, hex=HEX)}\n{setup_root.RECOVERY}"
    )


def test_a_refused_boot_says_how_to_recover(capsys: pytest.CaptureFixture[str]) -> None:
    """The ways out: another entry, a new installation, and an argument with ?."""
    arguments = ["--config", "/nowhere", "--cmdline", f"composefs={HEX} composefs=?{HEX}"]
    assert setup_root.main(arguments) == 1
    first, recovery = capsys.readouterr().err.splitlines()
    assert "composefs=777777777777… and composefs=?777777777777… disagree" in first
    for way_out in ("another entry", "install the system again", "composefs=?ID"):
        assert way_out in recovery
    # The running system goes on if a soft reboot cannot be prepared.
    assert setup_root.main([*arguments, "--target", "/run/nextroot"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


A, B, C = "aa" * 64, "bb" * 64, "cc" * 64


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[int]:
    """A repository in which the second and the third image are, without fs-verity."""
    (tmp_path / "images").mkdir()
    for image in (B, C):
        (tmp_path / "images" / image).write_bytes(image.encode())
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def images_of(*arguments: str) -> cmdline.ComposefsImages:
    return cmdline.composefs_images(" ".join(arguments))


@pytest.mark.parametrize(
    ("arguments", "opened", "missing"),
    [
        ([f"composefs=?{B}"], B, []),
        ([f"composefs=?{C}", f"composefs=?{B}"], C, []),
        ([f"composefs.digest=?v1-sha512-12:{A}", f"composefs=?{B}"], B, [A]),
        ([f"composefs=?{B}", f"composefs.digest=?v1-sha512-12:{C}"], B, []),
        ([f"composefs=?{A}", f"composefs=?{'dd' * 64}", f"composefs=?{C}"], C, [A, "dd" * 64]),
    ],
)
def test_the_first_image_that_is_there(
    repository: int,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    opened: str,
    missing: list[str],
) -> None:
    name, fd = setup_root.open_first_image(repository, images_of(*arguments))
    with open(fd, "rb") as file:
        assert (name, file.read()) == (opened, opened.encode())
    warning = (
        f"bootc: warning: the repository does not have image {', '.join(missing)};"
        f" mounting {opened}, which the command line names, too\n"
    )
    assert capsys.readouterr().err == (warning if missing else "")


def test_no_image_is_there(repository: int) -> None:
    with pytest.raises(ImageNotFound) as caught:
        setup_root.open_first_image(repository, images_of(f"composefs={A}", f"composefs={HEX}"))
    assert one_line(caught.value) == f"image {A}, {HEX}: not in the repository"


def test_only_a_missing_image_leads_to_the_next(
    repository: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that is there and wrong stops the boot, whatever else the command line names."""
    strict = images_of(f"composefs={A}", f"composefs={B}", f"composefs={C}")
    with pytest.raises(ImageNotTrusted, match="not protected by fs-verity") as caught:
        setup_root.open_first_image(repository, strict)
    assert one_line(caught.value).startswith(f"image {B}: ")
    weak = images_of(f"composefs=?{B}", f"composefs=?{C}")
    (tmp_path / "images" / B).unlink()
    (tmp_path / "images" / B).mkdir()
    with pytest.raises(ImageNotTrusted, match="not a regular file"):
        setup_root.open_first_image(repository, weak)
    (tmp_path / "images" / B).rmdir()
    (tmp_path / "images" / B).symlink_to(B)
    with pytest.raises(OSError, match="symbolic link"):
        setup_root.open_first_image(repository, weak)
    # The image of another one in its place, as the kernel measures it.
    (tmp_path / "images" / B).unlink()
    (tmp_path / "images" / B).write_bytes(b"")

    def measured(fd: int, measure: object) -> tuple[int, bytes]:
        return 2, bytes.fromhex(C)

    monkeypatch.setattr(mounting, "_measured", measured)
    with pytest.raises(ImageNotTrusted, match="digest mismatch"):
        setup_root.open_first_image(repository, weak)


@pytest.mark.parametrize(
    ("states", "found"),
    [([A, B, C], A), ([B, C], B), ([C], C), ([], None)],
)
def test_the_state_is_that_of_the_deployment(
    tmp_path: Path, states: list[str], found: str | None
) -> None:
    for state in states:
        (tmp_path / layout.state_dir(state)).mkdir(parents=True)
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    images = images_of(f"composefs={B}", f"composefs.digest=v1-sha512-12:{A}", f"composefs={C}")
    try:
        if found is None:
            with pytest.raises(SetupError, match=f"^deployment {A} has no state: "):
                setup_root.open_state(fd, images)
            return
        path, state_fd = setup_root.open_state(fd, images)
        os.close(state_fd)
        assert path == layout.state_dir(found)
    finally:
        os.close(fd)


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
