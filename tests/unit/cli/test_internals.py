from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from bootc import __version__
from bootc.cli import main as cli
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.tree import Directory, Stat


def features(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bootc", "internals", "features", *args],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_features_say_which_path_is_taken() -> None:
    lines = features(BOOTC_SPEED="pure").stdout.splitlines()
    assert lines[:2] == [f"bootc: {__version__}", f"python: {platform.python_version()}"]
    assert lines[3:5] == ["hashing: hashlib", "hashing-reason: BOOTC_SPEED=pure"]


def test_features_as_json() -> None:
    found = json.loads(features("--json", BOOTC_SPEED="pure").stdout)
    assert list(found) == [
        *("bootc", "python", "extension", "hashing", "hashing-reason"),
        "storing",
        *("zstandard", "rich"),
    ]
    assert (found["hashing"], found["storing"]) == ("hashlib", "python")
    assert found["zstandard"] is not None


def test_an_unknown_demand_is_one_line() -> None:
    done = features(BOOTC_SPEED="warp")
    assert done.returncode == 1
    assert done.stderr == "error: BOOTC_SPEED is 'warp' (hint: it may be c, or pure, or not set)\n"


def test_the_layout_of_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "image"
    raw = mkfs_erofs(Directory(Stat(0o755)), version=2)
    image.write_bytes(raw)
    assert cli.main(["internals", "erofs-dump", str(image)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "0x00000000  composefs header: version 2, flags 0x0"
    assert lines[-1] == f"{len(raw):#010x}  end"

    image.write_bytes(raw[:100])
    assert cli.main(["internals", "erofs-dump", str(image)]) == 0
    assert "damage: " in capsys.readouterr().out

    assert cli.main(["internals", "erofs-dump", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_a_library_that_is_absent(monkeypatch) -> None:
    import argparse

    from bootc.cli.options import Context
    from bootc.cli.verbs import internals

    monkeypatch.setitem(internals._LIBRARIES, "rich", "no-such-distribution")
    written: list[str] = []
    context = Context(written.append, lambda data: None, lambda event: None, False)
    internals.features(argparse.Namespace(json=False), context)
    assert "rich: absent\n" in written
