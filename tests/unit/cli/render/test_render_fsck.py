from __future__ import annotations

import json

import pytest

from bootc.cli.render.fsck import oci_report_json, oci_report_text, report_json, report_text
from bootc.oci.fsck import OciFsckKind, OciFsckReport
from bootc.repository.fsck_report import Count, FsckFinding, FsckKind, FsckReport

SOUND = FsckReport(has_metadata=True, objects=Count(4), streams=Count(2), images=Count(1))
DAMAGED = FsckReport(
    has_metadata=True,
    objects=Count(4, 1),
    streams=Count(2, 1),
    findings=(
        FsckFinding(FsckKind.OBJECT_OPEN_FAILED, "objects/aa/\x1b[2J\n", "two\nlines"),
        FsckFinding(FsckKind.BROKEN_SYMLINK, "streams/x"),
        FsckFinding(FsckKind.MISSING_OBJECT_REF, "streams/y", "00"),
        FsckFinding(FsckKind.MISSING_NAMED_REF, "streams/y", "11"),
    ),
)


def test_a_sound_repository() -> None:
    assert report_text(SOUND) == (
        "meta.json: ok\nobjects: 4/4 ok\nstreams: 2/2 ok\nimages: 1/1 ok\nstatus: ok\n"
    )


def test_findings() -> None:
    assert report_text(DAMAGED) == (
        "meta.json: ok\n"
        "objects: 3/4 ok\n"
        "streams: 1/2 ok\n"
        "images: 0/0 ok\n"
        "broken symlinks: 1\n"
        "missing objects: 2\n"
        "status: 4 error(s)\n"
        "  - fsck: object-open-failed: objects/aa/\\x1b[2J\\n: two\\nlines\n"
        "  - fsck: broken-symlink: streams/x\n"
        "  - fsck: missing-object-ref: streams/y: 00\n"
        "  - fsck: missing-named-ref: streams/y: 11\n"
    )


@pytest.mark.parametrize(
    ("report", "state"),
    [
        (SOUND, "ok"),
        (FsckReport(has_metadata=False), "absent"),
        (
            FsckReport(True, findings=(FsckFinding(FsckKind.METADATA_PARSE_FAILED, "meta.json"),)),
            "error",
        ),
        (
            FsckReport(
                True, findings=(FsckFinding(FsckKind.METADATA_ALGORITHM_MISMATCH, "meta.json"),)
            ),
            "error",
        ),
    ],
)
def test_the_state_of_the_metadata(report: FsckReport, state: str) -> None:
    assert report_text(report).startswith(f"meta.json: {state}\n")


def test_json() -> None:
    assert json.dumps(report_json(DAMAGED)) == json.dumps(
        {
            "ok": False,
            "has_metadata": True,
            "objects_checked": 4,
            "objects_corrupted": 1,
            "streams_checked": 2,
            "streams_corrupted": 1,
            "images_checked": 0,
            "images_corrupted": 0,
            "broken_links": 1,
            "missing_objects": 2,
            "errors": [
                "fsck: object-open-failed: objects/aa/\\x1b[2J\\n: two\\nlines",
                "fsck: broken-symlink: streams/x",
                "fsck: missing-object-ref: streams/y: 00",
                "fsck: missing-named-ref: streams/y: 11",
            ],
        }
    )


def test_images() -> None:
    findings = (FsckFinding(OciFsckKind.CONFIG_REF_MISSING, "os", "sha256:00"),)
    assert oci_report_text(OciFsckReport(SOUND, Count(1), ())) == (
        report_text(SOUND) + "oci images: 1/1 ok\n"
    )
    report = OciFsckReport(SOUND, Count(2, 1), findings)
    line = "fsck: config-ref-missing: os: sha256:00"
    assert oci_report_text(report) == (
        report_text(SOUND) + f"oci images: 1/2 ok\noci errors: 1\n  - {line}\n"
    )
    assert json.dumps(oci_report_json(report)) == json.dumps(
        {
            "ok": False,
            "images_checked": 2,
            "images_corrupted": 1,
            "errors": [line],
            "repo": report_json(SOUND),
        }
    )
