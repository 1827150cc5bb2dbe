"""What lsblk answers, as rows; what it should not answer, in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bootc.errors import one_line
from bootc.fs import lsblk
from bootc.fs.lsblk import Block
from bootc.fs.process import CommandFailed
from support.commands import Commands


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(tmp_path / "bin", monkeypatch)


DISK: dict[str, Any] = {
    "name": "vda",
    "path": "/dev/vda",
    "type": "disk",
    "pttype": "gpt",
    "parttype": None,
    "size": 4096,
    "ro": False,
    "model": "QEMU",
    "serial": None,
}


def answer(commands: Commands, *devices: object) -> None:
    text = json.dumps({"blockdevices": devices}).replace("'", "'\\''")
    commands.mock("lsblk", f"printf %s '{text}'")


def test_a_device_and_what_is_made_of_it(commands: Commands) -> None:
    part = DISK | {
        "path": "/dev/vda1",
        "type": "part",
        "parttype": "X",
        "partuuid": "AB-C",
        "serial": "'\r",
    }
    other = DISK | {"path": "/dev/vda2", "type": "part"}
    volume = DISK | {"path": "/dev/mapper/v", "type": "lvm"}
    answer(commands, DISK | {"children": [part | {"children": [volume]}, other]})
    assert lsblk.above("/dev/vda") == [
        Block("/dev/vda", "disk", 4096, False, "QEMU", None, "gpt", None, None, None, False),
        Block("/dev/vda1", "part", 4096, False, "QEMU", "'\r", "gpt", "X", "ab-c", None, False),
        Block("/dev/vda2", "part", 4096, False, "QEMU", None, "gpt", None, None, None, True),
        Block("/dev/mapper/v", "lvm", 4096, False, "QEMU", None, "gpt", None, None, None, True),
    ]


def test_the_other_direction(commands: Commands) -> None:
    called = commands.mock("lsblk", f"echo '{json.dumps({'blockdevices': [DISK]})}'")
    (block,) = lsblk.below("/dev/vda1")
    assert block.is_last
    assert called.calls[0][-3:] == ["--inverse", "--", "/dev/vda1"]


def test_no_device_is_an_option(commands: Commands) -> None:
    called = commands.mock("lsblk", f"echo '{json.dumps({'blockdevices': [DISK]})}'")
    for ask in (lsblk.above, lsblk.below, lsblk.everything_about):
        ask("--version")
    assert [call[-2:] for call in called.calls] == [["--", "--version"]] * 3


@pytest.mark.parametrize(
    ("ro", "size", "flag"), [("0", "4096", False), ("1", 4096, True), (1, 4096, True)]
)
def test_older_versions_write_strings(
    commands: Commands, ro: object, size: object, flag: bool
) -> None:
    answer(commands, DISK | {"ro": ro, "size": size})
    (block,) = lsblk.above("/dev/vda")
    assert (block.read_only, block.size_bytes) == (flag, 4096)


def test_many_levels(commands: Commands) -> None:
    tree = DISK
    for _ in range(300):
        tree = DISK | {"children": [tree]}
    answer(commands, tree)
    assert len(lsblk.above("/dev/vda")) == 301


@pytest.mark.parametrize(
    ("devices", "what"),
    [
        ([], "it tells of no device"),
        (["vda"], "blockdevices is not a list of objects"),
        ([{}], "path is missing"),
        ([DISK | {"path": None}], "path is not a string"),
        ([DISK | {"type": 7}], "type is not a string"),
        ([DISK | {"size": None}], "size is not a number"),
        ([DISK | {"size": "4K"}], "size is not a number"),
        ([DISK | {"size": "²"}], "size is not a number"),
        ([DISK | {"size": True}], "size is not a number"),
        ([DISK | {"size": -1}], "size is negative"),
        ([DISK | {"ro": "no"}], "ro is not true or false"),
        ([DISK | {"ro": []}], "ro is not true or false"),
        ([DISK | {"model": {}}], "model is not a string"),
        ([DISK | {"children": {}}], "children is not a list"),
        ([DISK | {"children": [DISK | {"path": 1}]}], "path is not a string"),
    ],
)
def test_an_answer_that_makes_no_sense(
    commands: Commands, devices: list[object], what: str
) -> None:
    answer(commands, *devices)
    with pytest.raises(CommandFailed) as caught:
        lsblk.above("/dev/vda")
    assert one_line(caught.value).endswith(f" /dev/vda failed: its output makes no sense: {what}")


@pytest.mark.parametrize("text", ["", "[]", "7", "{}", '{"blockdevices": null}', "[" * 100_000])
def test_an_answer_of_another_form(commands: Commands, text: str) -> None:
    commands.mock("lsblk", f"printf %s '{text}'")
    with pytest.raises(CommandFailed, match=r" failed: its output (makes no sense|is not JSON): "):
        lsblk.above("/dev/vda")
