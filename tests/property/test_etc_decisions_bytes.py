from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bootc.deploy.etc.decisions import (
    InvalidEtcPath,
    MalformedDecisions,
    etc_path,
    read_decisions,
    write_decisions,
)
from bootc.deploy.etc.merge import Choice
from bootc.deploy.host import statedir
from bootc.deploy.host.statedir import StateDir
from bootc.fs.dir import Dir
from support.sysroot import image_id

IMAGE_ID = image_id("aa")
NAMES = st.binary(min_size=1, max_size=5).filter(
    lambda name: name not in (b".", b"..") and not set(name) & set(b"/\0")
)
DECISIONS = st.dictionaries(
    st.lists(NAMES, max_size=3).map(b"/".join), st.sampled_from(Choice), max_size=5
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda below: st.lists(below) | st.dictionaries(st.text(max_size=4), below),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def state() -> Iterator[StateDir]:
    with (
        tempfile.TemporaryDirectory() as path,
        StateDir(Dir.open(path), image_id("aa")) as directory,
    ):
        yield directory


@settings(deadline=None, max_examples=60)
@given(decisions=DECISIONS)
def test_what_is_written_is_read(state: StateDir, decisions: dict[bytes, Choice]) -> None:
    write_decisions(state, decisions)
    assert read_decisions(state) == decisions


@settings(deadline=None, max_examples=100)
@given(
    data=st.one_of(
        st.binary(max_size=40),
        JSON.map(lambda value: json.dumps(value).encode()),
        st.dictionaries(st.text(max_size=6), JSON | st.sampled_from(["keep", "take"])).map(
            lambda value: json.dumps({"version": 1, "decisions": value}).encode()
        ),
    )
)
@example(data=b"9" * 5000)
@example(data=b'{"version": 1, "decisions": {"%": "keep"}}')
def test_anything_else_is_read_or_refused(state: StateDir, data: bytes) -> None:
    Path(state.path, statedir.DECISIONS).write_bytes(data)
    with contextlib.suppress(MalformedDecisions):
        assert all(etc_path(path or b".") == path for path in read_decisions(state))


@settings(deadline=None, max_examples=100)
@given(given_path=st.binary(max_size=12))
@example(given_path=b"/etc/../x")
def test_a_path_is_below_etc_or_refused(given_path: bytes) -> None:
    with contextlib.suppress(InvalidEtcPath):
        path = etc_path(given_path)
        assert not path.startswith(b"/")
        assert not {b"", b".", b".."} & set(path.split(b"/")) or path == b""
        assert etc_path(b"/etc/" + path) == path
