"""The notes about deployments, as bytes and as values."""

from __future__ import annotations

import json

import pytest

from bootc.deploy.host.model import ImageSpec, ImageStatus
from bootc.deploy.host.notes import (
    CleanupFailure,
    FinalizeFailure,
    MalformedNote,
    parse_cached_update,
    parse_cleanup_failures,
    parse_failure,
    parse_imginfo,
    serialise_cleanup_failures,
    serialise_failure,
)
from bootc.formats.digest import OciDigest
from bootc.formats.imgref import ImageReference

IMAGE = ImageReference("registry", "quay.io/example/os:43")
GOOD = ImageStatus(ImageSpec(IMAGE), OciDigest("sha256", "11" * 32), "amd64").to_json()


@pytest.mark.parametrize(
    "value",
    [
        {},
        {**GOOD, "image": None},
        {**GOOD, "image": {"image": "x", "transport": "carrier-pigeon"}},
        {**GOOD, "image": {"image": "x", "transport": "oci", "signature": {}}},
        {**GOOD, "image": {"image": "x", "transport": "oci", "signature": "insecure"}},
        {**GOOD, "imageDigest": "sha256:11"},
        {**GOOD, "imageDigest": 1},
        {**GOOD, "architecture": None},
        {**GOOD, "architecture": "\x1b[2J"},
        {**GOOD, "timestamp": "soon"},
        {**GOOD, "version": ["44"]},
    ],
)
def test_an_update_that_makes_no_sense(value: object) -> None:
    with pytest.raises(MalformedNote, match=r"^cached-update\.json is malformed: "):
        parse_cached_update(json.dumps(value).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b'{"reason":1}',
        b'{"reason":"x","time":7}',
        b'{"reason":"x","time":"soon"}',
        b"[" * 60_000,
        b'{"reason":' + b"9" * 5000 + b"}",
    ],
)
def test_a_failure_that_makes_no_sense(data: bytes) -> None:
    with pytest.raises(MalformedNote, match=r"^finalize-failure\.json is malformed: "):
        parse_failure(data)


@pytest.mark.parametrize(
    "note",
    [
        "{",
        "[]",
        "{}",
        '{"failures": 1}',
        '{"failures": [1]}',
        '{"failures": [{"reason": 1}]}',
        '{"failures": [{"reason": "x", "time": "yesterday"}]}',
        '{"failures": ' + "[" * 30_000 + "]" * 30_000 + "}",
    ],
)
def test_malformed_notes_of_clean_ups(note: str) -> None:
    with pytest.raises(MalformedNote, match=r"cleanup-failures\.json is malformed"):
        parse_cleanup_failures(note.encode())


def test_a_reason_with_anything_in_it() -> None:
    data = serialise_failure(FinalizeFailure("two\nlines \udcff"))
    assert parse_failure(data) == FinalizeFailure("two\\nlines \\xff")


def test_a_note_stays_readable_however_much_fails() -> None:
    data = serialise_cleanup_failures([CleanupFailure("é" * 10_000, False)] * 1000)
    found = parse_cleanup_failures(data)
    assert len(found) == 7
    assert {failure.reason for failure in found} == {"é" * 1500}
    assert len(data) <= 1 << 16


def test_the_documents_of_an_old_bootc() -> None:
    found = parse_imginfo('{"config": {"b": ["é"]}, "manifest": {"a": 1}}'.encode())
    assert found.manifest_raw == b'{"a":1}'
    assert found.config_raw == '{"b":["é"]}'.encode()
    assert found.manifest_digest == OciDigest.of(b'{"a":1}')


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"manifest": {}}',
        b'{"manifest":"\\ud800","config":1}',
        b"[" * 60_000,
        b'{"config":1,"manifest":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    ],
)
def test_malformed_documents_of_an_old_bootc(data: bytes) -> None:
    with pytest.raises(MalformedNote, match=r"^it holds no manifest and configuration: "):
        parse_imginfo(data)
