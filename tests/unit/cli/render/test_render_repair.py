from __future__ import annotations

import json

from bootc.cli.render.repair import (
    repaired_images_json,
    repaired_images_text,
    repaired_json,
    repaired_text,
)
from bootc.formats.digest import Digest
from bootc.oci.repair import RepairedImages
from bootc.repository.fsck_report import FsckFinding, FsckKind
from bootc.repository.repair import Repaired

DAMAGED, RESEALED, MISSING = (Digest.from_hex(byte * 64) for byte in ("aa", "bb", "cc"))
NOTHING = Repaired((), (), (), {}, (), (), ())
ALL = Repaired(
    quarantined=(DAMAGED,),
    resealed=(RESEALED,),
    set_aside=("oci-layer-sha256:1",),
    needed_by={MISSING: ("streams/x\n",)},
    left=(
        FsckFinding(FsckKind.MISSING_OBJECT_REF, "streams/x\n", MISSING.hex, MISSING),
        FsckFinding(FsckKind.OBJECT_CHECK_FAILED, "objects/aa"),
    ),
    moved=("images/\x1b",),
    relinked=("images/x",),
)
LEFT = "fsck: object-check-failed: objects/aa"


def test_a_repository_for_people() -> None:
    assert repaired_text(NOTHING) == "nothing to repair\n"
    assert repaired_text(ALL).splitlines() == [
        f"quarantined: {DAMAGED}",
        "quarantined: images/\\x1b",
        "relinked: images/x",
        f"resealed: {RESEALED}",
        "set aside: oci-layer-sha256:1",
        f"missing: {MISSING}",
        "  needed by streams/x\\n",
        f"left: {LEFT}",
    ]


def test_a_repository_for_programs() -> None:
    assert json.dumps(repaired_json(NOTHING)) == json.dumps(
        {"quarantined": [], "resealed": [], "set_aside": [], "needed_by": {}, "left": []}
    )
    assert json.dumps(repaired_json(ALL)) == json.dumps(
        {
            "quarantined": [str(DAMAGED), "images/\x1b"],
            "relinked": ["images/x"],
            "resealed": [str(RESEALED)],
            "set_aside": ["oci-layer-sha256:1"],
            "needed_by": {str(MISSING): ["streams/x\n"]},
            "left": [f"fsck: missing-object-ref: streams/x\\n: {MISSING}", LEFT],
        }
    )


def test_images_for_people() -> None:
    assert repaired_images_text(RepairedImages(None, (), (), ())) == "nothing to repair\n"
    left = (FsckFinding(FsckKind.OBJECT_CHECK_FAILED, "objects/aa"),)
    images = RepairedImages(ALL, ("oci-config-sha256:2",), ("os\n",), left)
    assert repaired_images_text(images) == (
        repaired_text(ALL) + f"set aside: oci-config-sha256:2\nleft: {LEFT}\npull again: os\\n\n"
    )


def test_images_for_programs() -> None:
    assert json.dumps(repaired_images_json(RepairedImages(None, ("x",), ("os",), ()))) == (
        json.dumps(
            {
                "quarantined": [],
                "resealed": [],
                "needed_by": {},
                "set_aside": ["x"],
                "left": [],
                "pull_again": ["os"],
            }
        )
    )
    left = (FsckFinding(FsckKind.OBJECT_CHECK_FAILED, "objects/aa"),)
    images = repaired_images_json(RepairedImages(ALL, ("x",), ("os",), left))
    whole = repaired_json(ALL)
    assert list(images) == [
        *("quarantined", "resealed", "needed_by", "set_aside", "left", "relinked", "pull_again")
    ]
    assert images == {
        **whole,
        "set_aside": ["oci-layer-sha256:1", "x"],
        "left": [f"fsck: missing-object-ref: streams/x\\n: {MISSING}", LEFT, LEFT],
        "pull_again": ["os"],
    }
