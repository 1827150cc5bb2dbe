"""The verb: what it prints where, and its exit codes, which are those of diff(1)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bootc.cli import main as cli

ROOT = "/ 0 40755 2 0 0 0 0.0 - - -\n"
VERB = ("container", "compute-composefs-digest")


def dumps(path: Path, a: str = ROOT, b: str = ROOT) -> list[str]:
    (path / "a").write_text(a)
    (path / "b").write_text(b)
    return [str(path / "a"), str(path / "b")]


def test_equal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*VERB, "--explain", *dumps(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith("\nThe digests are equal.\n")


def test_different(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = dumps(tmp_path, b=ROOT.replace("40755", "40700"))
    assert cli.main([*VERB, "--explain", *names]) == 1
    out, err = capsys.readouterr()
    assert "\nmode        1, directories only\n    /: 0755 in A, 0700 in B\n" in out
    assert err == ""


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*VERB, "--json", "--explain", *dumps(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["equal"] is True


@pytest.mark.parametrize("bad", ["/nowhere/at/all", "oci:/nowhere/at/all", "/proc/self/mem", "/"])
def test_nothing_to_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str], bad: str) -> None:
    assert cli.main([*VERB, "--explain", dumps(tmp_path)[0], bad]) == 2
    out, err = capsys.readouterr()
    assert (out, err[:7], err.count("\n")) == ("", "error: ", 1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--explain", "a"], "expected 2 arguments"),
        (["--explain", "a", "b", "c"], "--explain takes two names"),
        (["--write-dumpfile-to=x", "--explain", "a", "b"], "--explain takes two names"),
        (["--json", "a"], "--json needs --explain"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: list[str], text: str) -> None:
    assert cli.main([*VERB, *arguments]) == 2
    assert text in capsys.readouterr().err
