"""``bootc container seal``, as far as it gets without ukify and a signer."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from support import images
from support.commands import Commands

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(bootc: Run) -> Run:
    return partial(bootc, "container", "seal")


@pytest.fixture
def base(tmp_path: Path) -> str:
    return images.single(tmp_path / "base", images.bootable(), tag="os").reference("os")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "IMAGE, OUTPUT"),
        (["oci:a"], "OUTPUT"),
        (["oci:a", "oci:b"], "name one signer: --key and --cert, or --signer"),
        (["oci:a", "oci:b", "--key=k"], "--key needs --cert"),
        (["oci:a", "oci:b", "--key=k", "--cert=c", "--signer=s"], "name one signer"),
        (["oci:a", "oci:b", "--signer= "], "--signer names no command"),
        (["oci:a", "oci:b", "--signer='x"], "--signer is not a command: No closing quotation"),
        (["oci:a", "oci:b", "--erofs-version=v3"], "invalid choice"),
        (["oci:a", "oci:b", "--security-version=-1"], "'-1' is not a number from 0 to 2147483647"),
        (["oci:a", "oci:b", "--minimum-security-version=x"], "'x' is not a number from 0"),
        (
            ["prepare", "oci:a", "d", "--minimum-security-version=1"],
            "--minimum-security-version needs --security-version",
        ),
        (["prepare", "oci:a"], "DIR"),
        (["prepare", "oci:a", "d", "--key=k"], "unrecognized arguments: --key=k"),
        (["finish", "oci:a", "d"], "OUTPUT"),
        (["--karg=a", "prepare", "oci:a", "d"], "unrecognized arguments: d"),
    ],
)
def test_wrong_usage(run: Run, arguments: list[str], message: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_a_minimum_above_the_version(run: Run) -> None:
    words = ("oci:a", "oci:b", "--signer=s", "--security-version=1", "--minimum-security-version=2")
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert "--minimum-security-version 2 is above --security-version 1" in err


def test_the_help_names_the_halves(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert out.startswith("usage: bootc container seal [-h] [--key FILE]")
    assert "\n  prepare   Write the files to sign" in out
    for words in (["prepare", "--help"], ["help", "prepare"]):
        code, out, _ = run(*words)
        assert (code, out[:40]) == (0, "usage: bootc container seal prepare [-h]")


def test_tools_that_are_missing(
    run: Run, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are named, with their packages, before the image is read."""
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    key = tmp_path / "key"
    key.write_bytes(b"")
    sealing = (base, f"oci:{tmp_path}/out", f"--key={key}", f"--cert={key}")
    monkeypatch.setattr("bootc.fs.process._SYSTEM_PATH", ())
    for words, tool, package in (
        (sealing, "ukify", "systemd-ukify"),
        (("prepare", base, tmp_path / "work"), "ukify", "systemd-ukify"),
    ):
        code, _, err = run(*words)
        assert code == 1
        assert err.startswith(f"error: the program {tool} is not installed (hint: on Debian")
        assert package in err
    Commands(tmp_path / "bin", monkeypatch).mock("ukify", "exit 1")
    monkeypatch.setattr("bootc.fs.process._SYSTEM_PATH", ())
    code, _, err = run(*sealing)
    assert (code, "osslsigncode is not installed" in err) == (1, True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "bin", "key"]


def test_an_output_that_exists(run: Run, base: str) -> None:
    assert run(base, base, "--signer=x") == (
        1,
        "",
        f"error: {base[4:-3]} has an image os already (hint: choose another name)\n",
    )


def test_an_epoch_that_is_none(
    run: Run, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Commands(tmp_path / "bin", monkeypatch).mock("ukify", "exit 1")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    code, _, err = run("prepare", base, tmp_path / "new/work")
    assert (code, "SOURCE_DATE_EPOCH is not a number" in err) == (2, True)
    assert not (tmp_path / "new").exists()


def test_a_directory_that_is_not_prepared(run: Run, base: str, tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/a").write_text("dear")
    finish = ("finish", base, tmp_path / "letters", f"oci:{tmp_path}/out")
    assert "has other files" in run(*finish)[2]
    assert run("finish", base, tmp_path / "absent", f"oci:{tmp_path}/out")[0] == 1
    assert not (tmp_path / "out").exists()
