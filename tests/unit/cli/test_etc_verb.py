"""What ``bootc etc diff`` prints, and ``internals dir-diff``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bootc.cli import main as cli
from bootc.cli.verbs.etc import lines, to_json
from bootc.deploy.etc.diff import Change, Kind
from bootc.deploy.etc.merge import Choice, Conflict, ConflictPolicy
from bootc.deploy.etc.review import MergeReview, Review
from support.sysroot import image_id

STAGED = image_id("bb")
CHANGES = (Change(b"caf\xe9\n", Kind.ADDED), Change(b"ssh/config", Kind.MODIFIED))
REASON = "File 'x' now defaults to a directory in new etc"


def merge(resolution: Choice | None, policy: ConflictPolicy) -> MergeReview:
    return MergeReview(STAGED, policy, (Conflict(b"x", REASON, resolution),), (b"ssh/config",))


def test_nothing_to_tell() -> None:
    found = Review((), {}, None)
    assert list(lines(found)) == ["No local changes."]
    assert to_json(found) == {"changes": [], "decisions": [], "staged": None}


def test_all_there_is_to_tell() -> None:
    decisions = {b"z": Choice.TAKE, b"a": Choice.KEEP}
    found = Review(CHANGES, decisions, merge(None, ConflictPolicy.FAIL))
    assert list(lines(found)) == [
        'Added "caf\\xE9\\n"',
        'Modified "ssh/config"',
        "",
        "Decided:",
        '  keep "a"',
        '  take "z"',
        "",
        f"Merged into staged deployment {STAGED}:",
        '  Local version stays, the new image\'s is not used: "ssh/config"',
        f"  Unmergable {REASON}",
        "  The update cannot be finalized: decide with bootc etc keep PATH or take PATH.",
    ]
    assert to_json(found) == {
        "changes": [
            {"path": "caf\\xe9\\n", "pathHex": "636166e90a", "change": "added"},
            {"path": "ssh/config", "change": "modified"},
        ],
        "decisions": [{"path": "a", "choice": "keep"}, {"path": "z", "choice": "take"}],
        "staged": {
            "deployment": STAGED.hex,
            "policy": "fail",
            "mergeable": False,
            "conflicts": [{"path": "x", "reason": REASON, "resolution": None}],
            "shadowed": [{"path": "ssh/config"}],
        },
    }


def test_a_conflict_that_is_settled() -> None:
    found = Review((), {}, merge(Choice.KEEP, ConflictPolicy.KEEP_LOCAL))
    assert list(lines(found))[-2:] == [
        f"  Resolved (keep-local) {REASON}",
        "  No conflict is unresolved.",
    ]
    staged = to_json(found)["staged"]
    assert staged["mergeable"] is True
    assert staged["conflicts"][0]["resolution"] == "keep"
    json.dumps(staged)


@pytest.fixture
def directories(tmp_path: Path) -> list[str]:
    pristine, current, new = (tmp_path / name for name in ("pristine", "current", "new"))
    for path in (pristine, current, new):
        path.mkdir()
    (pristine / "both").write_text("a")
    (current / "both").write_text("b")
    (current / "mine").write_text("x")
    (new / "both").mkdir()
    return [str(path) for path in (pristine, current, new)]


def test_three_directories(directories, capsys) -> None:
    assert cli.main(["internals", "dir-diff", *directories]) == 0
    assert capsys.readouterr().out == (
        'Added "mine"\n'
        'Modified "both"\n'
        "Unmergable File 'both' now defaults to a directory in new etc\n"
    )


def test_a_directory_that_is_not_there(directories, capsys) -> None:
    assert cli.main(["internals", "dir-diff", *directories[:2], "/nonexistent"]) == 1
    err = capsys.readouterr().err
    assert err == "error: Reading /nonexistent: /nonexistent: No such file or directory\n"
