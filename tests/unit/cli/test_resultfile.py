"""A result is whole, or what was there stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootc.cli.options import Context
from bootc.cli.resultfile import result_file
from bootc.errors import UsageError
from support.children import running


@pytest.fixture
def printed() -> list[bytes]:
    return []


@pytest.fixture
def context(printed: list[bytes]) -> Context:
    return Context(lambda text: None, printed.append, lambda event: None, False)


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("existing", [b"old", None])
def test_a_failure_changes_nothing(
    tmp_path: Path, context: Context, failure: BaseException, existing: bytes | None
) -> None:
    place = tmp_path / "result"
    if existing is not None:
        place.write_bytes(existing)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def write_half() -> None:
        with result_file(str(place), context) as file:
            file.write(b"the first half")
            raise failure

    with pytest.raises(type(failure)):
        write_half()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_link_is_followed_even_to_nothing(tmp_path: Path, context: Context) -> None:
    link = tmp_path / "link"
    link.symlink_to("target")
    for text in (b"new", b"newer"):
        with result_file(str(link), context) as file:
            file.write(text)
        assert (os.readlink(link), (tmp_path / "target").read_bytes()) == ("target", text)


def test_a_pipe_is_written_to(tmp_path: Path, context: Context) -> None:
    place = tmp_path / "fifo"
    os.mkfifo(place)
    with running(["cp", place, tmp_path / "copy"]), result_file(str(place), context) as file:
        file.write(b"through")
    assert place.is_fifo()
    assert (tmp_path / "copy").read_bytes() == b"through"


def test_standard_output(context: Context, printed: list[bytes]) -> None:
    with result_file("-", context) as file:
        file.write(b"out")
    assert printed == [b"out"]
    with pytest.raises(UsageError, match="is empty"), result_file("", context):
        pass
