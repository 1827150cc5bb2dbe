from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.deploy.etc.decisions import (
    InvalidEtcPath,
    MalformedDecisions,
    etc_path,
    read_decisions,
    write_decisions,
)
from bootc.deploy.etc.merge import Choice
from bootc.deploy.host.statedir import StateDir
from bootc.errors import one_line
from bootc.fs.dir import Dir
from support.failing import failing
from support.sysroot import image_id

KEEP, TAKE = Choice.KEEP, Choice.TAKE
FILE = "etc-decisions.json"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDir]:
    with StateDir(Dir.open(tmp_path), image_id("aa")) as directory:
        yield directory


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("/etc/ssh/sshd_config", b"ssh/sshd_config"),
        ("ssh/sshd_config", b"ssh/sshd_config"),
        ("//etc//ssh/./moduli/", b"ssh/moduli"),
        ("./fstab", b"fstab"),
        ("etc/x", b"etc/x"),
        ("/etc/etc", b"etc"),
        ("/etc", b""),
        (".", b""),
        ("...", b"..."),
        (b"/etc/caf\xe9", b"caf\xe9"),
        ("/etc/caf\udce9", b"caf\xe9"),
    ],
)
def test_paths_as_users_give_them(given: str | bytes, expected: bytes) -> None:
    assert etc_path(given) == expected


@pytest.mark.parametrize(
    "given", ["", "/", "/usr/lib", "/etcetera", "..", "a/../b", "/etc/../etc/passwd", "a\0b"]
)
def test_paths_that_are_not_in_etc(given: str) -> None:
    with pytest.raises(InvalidEtcPath, match="is not a path in /etc"):
        etc_path(given)


def test_nothing_is_decided_at_first(state: StateDir) -> None:
    assert read_decisions(state) == {}


def test_what_is_stored(state: StateDir) -> None:
    decisions = {
        b"z": TAKE,
        b"": KEEP,
        b"caf\xe9/100%\n": TAKE,
        "ssh/café".encode(): KEEP,
        b'"\\': KEEP,
    }
    write_decisions(state, decisions)
    assert state.dir.read_bytes(FILE).decode() == (
        "{\n"
        '  "version": 1,\n'
        '  "decisions": {\n'
        '    ".": "keep",\n'
        '    "\\"\\\\": "keep",\n'
        '    "caf%E9/100%25%0A": "take",\n'
        '    "ssh/café": "keep",\n'
        '    "z": "take"\n'
        "  }\n"
        "}\n"
    )
    assert read_decisions(state) == decisions
    assert stat.S_IMODE(state.dir.stat(FILE).st_mode) == 0o644
    write_decisions(state, {})
    assert read_decisions(state) == {}


def test_every_byte_survives(state: StateDir) -> None:
    decisions = {bytes([byte]) * 2: KEEP for byte in range(1, 256) if byte not in b"/."}
    write_decisions(state, decisions)
    assert read_decisions(state) == decisions


def stored(**decisions: object) -> bytes:
    return json.dumps({"version": 1, "decisions": decisions}).encode()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "Expecting value"),
        (b'{"version": 1', "Expecting"),
        (b"\xff\xfe\xfd", "codec"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "no decisions of version 1"),
        (b'{"version": 2, "decisions": {}}', "no decisions of version 1"),
        (b'{"version": 1}', '"decisions" is no object'),
        (b'{"version": 1, "decisions": []}', '"decisions" is no object'),
        (stored(a="both"), "'a' is neither keep nor take"),
        (stored(a=["keep"]), "'a' is neither keep nor take"),
        (stored(**{"a": "keep", "./a": "take"}), "two decisions about './a'"),
        (stored(**{"../a": "keep"}), "is not a path in /etc"),
        (stored(**{"%2e%2e/a": "keep"}), "is not a path in /etc"),
        (stored(**{"a%00": "keep"}), "is not a path in /etc"),
        (stored(**{"": "keep"}), "is not a path in /etc"),
        (stored(**{"/etc/a": "keep"}), "'/etc/a' is not relative to /etc"),
        (stored(**{"%2fetc": "keep"}), "not relative"),
        (stored(**{"50%": "keep"}), "'50%' has a % without two hex digits"),
        (stored(**{"%zz": "keep"}), "has a % without two hex digits"),
        (b'{"version": 1, "decisions": {"\\udc80": "keep"}}', "surrogates not allowed"),
    ],
)
def test_a_file_that_is_damaged(state: StateDir, data: bytes, reason: str) -> None:
    Path(state.path, FILE).write_bytes(data)
    with pytest.raises(MalformedDecisions) as caught:
        read_decisions(state)
    text = one_line(caught.value)
    assert text.startswith(f"{state.path}/{FILE} is malformed: ")
    assert reason in text
    assert text.endswith("(hint: correct the file, or remove it to decide nothing)")


def test_a_file_of_any_size_is_not_read(state: StateDir) -> None:
    os.truncate(state.dir.open_file(FILE, os.O_CREAT | os.O_RDWR), 1 << 40)
    with pytest.raises(OSError, match="file is larger") as caught:
        read_decisions(state)
    assert caught.value.errno == errno.EFBIG
    assert one_line(caught.value).startswith("Reading what was decided about /etc: ")


@pytest.mark.parametrize("at", [1, 2])
def test_a_full_disk_leaves_what_was_stored(state: StateDir, at: int) -> None:
    write_decisions(state, {b"a": KEEP})
    with failing(at, errno.ENOSPC), pytest.raises(OSError, match="No space left"):
        write_decisions(state, {b"a": TAKE})
    assert read_decisions(state) == {b"a": KEEP}
    assert state.dir.names() == [FILE]
