"""meta.json: the reference implementation's bytes, and its rules about features."""

from __future__ import annotations

import json

import pytest

from bootc.formats.digest import Algorithm
from bootc.repository.metadata import (
    ErofsFormats,
    Metadata,
    MetadataError,
    UnsupportedRepository,
)

DEFAULT = b"""{
  "version": 1,
  "algorithm": "fsverity-sha512-12",
  "features": {
    "compatible": [],
    "read-only-compatible": [
      "v1_erofs"
    ],
    "incompatible": []
  },
  "erofs_formats": {
    "default": 1
  }
}
"""


def parse(**members: object) -> Metadata:
    document = {"version": 1, "algorithm": "fsverity-sha512-12", **members}
    return Metadata.parse(json.dumps(document).encode(), "/r/meta.json")


def test_a_new_repository_has_exactly_these_bytes() -> None:
    assert Metadata().to_bytes() == DEFAULT
    assert len(DEFAULT) == 219
    assert Metadata.parse(DEFAULT, "") == Metadata()


def test_everything_survives_a_round_trip() -> None:
    metadata = Metadata(Algorithm.SHA256, ("a",), ("é",), ("b", "c"), ErofsFormats(1, (0, 2)))
    assert Metadata.parse(metadata.to_bytes(), "") == metadata
    assert b'"extra": [\n      0,\n      2\n    ]' in metadata.to_bytes()
    legacy = Metadata(read_only_compatible=(), erofs_formats=None)
    assert Metadata.parse(legacy.to_bytes(), "") == legacy
    assert b"erofs_formats" not in legacy.to_bytes()


@pytest.mark.parametrize(
    ("formats", "flag", "effective"),
    [
        (None, False, ErofsFormats(2)),
        (None, True, ErofsFormats(1)),
        ({"default": 2}, False, ErofsFormats(2)),
        ({"default": 2}, True, ErofsFormats(1)),
        ({"default": 1}, False, ErofsFormats(1)),
        ({"default": 0}, True, ErofsFormats(0)),
        ({"default": 2, "extra": [1, 0, 1]}, True, ErofsFormats(2, (0, 1))),
        ({"default": 1, "extra": [2]}, True, ErofsFormats(1, (2,))),
    ],
)
def test_effective_formats(formats: object, flag: bool, effective: ErofsFormats) -> None:
    features = {"read-only-compatible": ["v1_erofs"] if flag else []}
    members = {"features": features} | ({} if formats is None else {"erofs_formats": formats})
    assert parse(**members).effective_erofs_formats() == effective


def test_unknown_members_and_compatible_features_are_ignored() -> None:
    metadata = parse(future={"x": 1}, features={"compatible": ["new"], "other": 3})
    metadata.require_supported("/r", writable=True)
    assert metadata.read_only_compatible == ()


def test_unknown_read_only_features_forbid_writing() -> None:
    metadata = parse(features={"read-only-compatible": ["v1_erofs", "squash"]})
    metadata.require_supported("/r", writable=False)
    with pytest.raises(UnsupportedRepository, match=r"/r can only be read.*'squash'"):
        metadata.require_supported("/r", writable=True)


def test_unknown_incompatible_features_forbid_everything() -> None:
    metadata = parse(features={"incompatible": ["crypt"]})
    with pytest.raises(UnsupportedRepository, match="/r needs unknown features: 'crypt'"):
        metadata.require_supported("/r", writable=False)


def test_a_newer_version_is_refused() -> None:
    with pytest.raises(UnsupportedRepository, match="has version 2, this program knows 1"):
        parse(version=2)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 30_000, "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b"{}", "version is None"),
        (b'{"version": true}', "version is True"),
        (b'{"version": 0}', "version is 0"),
        (b'{"version": "1"}', "version is '1'"),
        (b'{"version": 1}', "unknown fs-verity algorithm None"),
        (b'{"version": 1, "algorithm": ["x"]}', "unknown fs-verity algorithm"),
        (b'{"version": 1, "algorithm": "fsverity-sha512-16"}', "'fsverity-sha512-16'"),
    ],
)
def test_nonsense_is_named(data: bytes, complaint: str) -> None:
    with pytest.raises(MetadataError, match=r"^/r/meta\.json") as caught:
        Metadata.parse(data, "/r/meta.json")
    assert complaint in caught.value.message


@pytest.mark.parametrize(
    "members",
    [
        {"features": []},
        {"features": {"incompatible": "x"}},
        {"features": {"compatible": [1]}},
        {"features": {"compatible": ["\ud800"]}},
        {"erofs_formats": 1},
        {"erofs_formats": {}},
        {"erofs_formats": {"default": 3}},
        {"erofs_formats": {"default": True}},
        {"erofs_formats": {"default": 1, "extra": 2}},
        {"erofs_formats": {"default": 1, "extra": [9]}},
    ],
)
def test_members_of_the_wrong_shape_are_refused(members: dict[str, object]) -> None:
    with pytest.raises(MetadataError, match=r"^/r/meta\.json"):
        parse(**members)
