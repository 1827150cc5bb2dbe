"""Every seed and every find of the fuzzers, without a fuzzer."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bootc.errors import Error
from fuzz.run import hunt
from fuzz.targets import CORPUS, TARGETS, Target


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("name", "path"),
    [
        pytest.param(target.name, path, id=f"{target.name}/{path.name}")
        for target in TARGETS.values()
        for path in target.seeds()
    ],
)
def test_seed(name: str, path: Path) -> None:
    TARGETS[name].run(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_at_all(name: str) -> None:
    TARGETS[name].run(b"")


def test_every_target_has_seeds_and_every_seed_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} == {t.corpus.name for t in TARGETS.values()}
    assert all(any(target.seeds()) for target in TARGETS.values())


class Wrong(Error):
    pass


def complain(message: str) -> Target:
    def check(data: bytes) -> None:
        raise Wrong(message)

    return Target("complains", check, (Wrong,), positions=True)


def test_what_a_target_is_content_with() -> None:
    complain("bad at offset 7").run(b"")
    for message in ("bad", "bad\x1b at offset 7", f"bad at offset 7: {'x' * 20_000}"):
        with pytest.raises(AssertionError):
            complain(message).run(b"")


def test_the_hunt_finds_what_is_there(tmp_path: Path) -> None:
    def check(data: bytes) -> None:
        assert b"MAGIC" not in data

    target = Target("bls", check, (), tokens=(b"MAGIC",))
    found = hunt(target, random.Random(1), 10, tmp_path)
    assert found is not None
    assert b"MAGIC" in found.read_bytes()
    assert hunt(Target("bls", len, ()), random.Random(1), 0.05, tmp_path) is None
