"""The control block of ukiboot, written by bootc and by Debian's ukibootctl."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootc.formats.ukiboot import INITIAL, SIZE_BYTES, Name
from bootc.fs import rawdevice
from support.ukiboottree import ukibootctl


@pytest.mark.parametrize("new", list(Name))
def test_both_write_the_same_blocks(tmp_path: Path, new: Name) -> None:
    control, number = tmp_path / "control", str(list(Name).index(new))
    control.write_bytes(b"x" * 4096)
    ukibootctl(control, "init")
    block = INITIAL
    for command, then in (
        ("prepare-switch", block.prepared(new)),
        ("finalize-switch", block.prepared(new).switched(new)),
        ("mark-successful", block.prepared(new).switched(new).marked(new)),
    ):
        assert rawdevice.read_start(str(control), SIZE_BYTES) == block.to_bytes()
        ukibootctl(control, command, number)
        block = then
    assert rawdevice.read_start(str(control), SIZE_BYTES) == block.to_bytes()


def test_ukibootctl_reads_what_bootc_writes(tmp_path: Path) -> None:
    control = tmp_path / "control"
    control.write_bytes(b"x" * 4096)
    rawdevice.replace_start(str(control), INITIAL.marked(Name.A).to_bytes())
    assert ukibootctl(control, "dump").splitlines() == [
        "Slot 0: prio: 15, tries_remaining: 0, successful_boot: 1",
        "Slot 1: prio: 14, tries_remaining: 7, successful_boot: 0",
    ]
    assert control.read_bytes()[SIZE_BYTES:] == b"x" * (4096 - SIZE_BYTES)
