from __future__ import annotations

import json

from bootc.cli.render.etc import change_lines, review_json, review_lines
from bootc.deploy.etc.diff import Change, ChangeKind
from bootc.deploy.etc.merge import Choice, Conflict, ConflictPolicy
from bootc.deploy.etc.review import MergeReview, Review
from support.sysroot import image_id

STAGED = image_id("bb")
CHANGES = (Change(b"caf\xe9\n", ChangeKind.ADDED), Change(b"ssh/config", ChangeKind.MODIFIED))
REASON = "File 'x' now defaults to a directory in new etc"


def merge(resolution: Choice | None, policy: ConflictPolicy) -> MergeReview:
    return MergeReview(STAGED, policy, (Conflict(b"x", REASON, resolution),), (b"ssh/config",))


def test_reasons_come_last() -> None:
    changes = [Change(b"a", ChangeKind.ADDED)]
    assert list(change_lines(changes, ["File 'a' is odd"])) == [
        'Added "a"',
        "Unmergable File 'a' is odd",
    ]


def test_nothing_to_tell() -> None:
    found = Review((), {}, None)
    assert list(review_lines(found)) == ["No local changes."]
    assert review_json(found) == {"changes": [], "decisions": [], "staged": None}


def test_all_there_is_to_tell() -> None:
    decisions = {b"z": Choice.TAKE, b"a": Choice.KEEP}
    found = Review(CHANGES, decisions, merge(None, ConflictPolicy.FAIL))
    assert list(review_lines(found)) == [
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
    assert review_json(found) == {
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
    assert list(review_lines(found))[-2:] == [
        f"  Resolved (keep-local) {REASON}",
        "  No conflict is unresolved.",
    ]
    staged = review_json(found)["staged"]
    assert staged["mergeable"] is True
    assert staged["conflicts"][0]["resolution"] == "keep"
    json.dumps(staged)
