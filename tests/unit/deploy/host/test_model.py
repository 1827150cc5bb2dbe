from __future__ import annotations

import pytest

from bootc.deploy.host.model import Host, ImageSpec, Timestamp, UsrOverlay
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import Signature


def test_an_empty_host_has_every_key() -> None:
    assert Host.empty().to_json() == {
        "apiVersion": "org.containers.bootc/v1",
        "kind": "BootcHost",
        "metadata": {"name": "host"},
        "spec": {"image": None, "bootOrder": "default"},
        "status": {
            "staged": None,
            "booted": None,
            "rollback": None,
            "rollbackQueued": False,
            "type": None,
            "usrOverlay": None,
            "readOnly": False,
        },
    }


@pytest.mark.parametrize(
    ("signature", "rendered"),
    [
        (None, {}),
        (Signature(), {"signature": "containerPolicy"}),
        (Signature("fedora"), {"signature": {"ostreeRemote": "fedora"}}),
    ],
)
def test_signatures(signature: Signature | None, rendered: dict[str, object]) -> None:
    spec = ImageSpec(ImageReference("oci", "/a"), signature)
    assert spec.to_json() == {"image": "/a", "transport": "oci"} | rendered


def test_an_overlay_never_persists() -> None:
    assert UsrOverlay("readOnly").to_json() == {
        "accessMode": "readOnly",
        "persistence": "transient",
    }


@pytest.mark.parametrize(
    ("text", "rendered", "short"),
    [
        ("2026-08-01T00:00:00Z", "2026-08-01T00:00:00Z", "2026-08-01T00:00:00Z"),
        ("2026-08-01t02:30:00+02:30", "2026-08-01T00:00:00Z", "2026-08-01T00:00:00Z"),
        ("2026-08-01 00:00:00.5z", "2026-08-01T00:00:00.500Z", "2026-08-01T00:00:00Z"),
        (
            "2026-01-01T00:00:00.123456789-01:00",
            "2026-01-01T01:00:00.123456789Z",
            "2026-01-01T01:00:00Z",
        ),
        ("2026-01-01T00:00:00.0001Z", "2026-01-01T00:00:00.000100Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00.000Z", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00.1234567899Z", "2026-01-01T00:00:00.123456789Z", None),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
    ],
)
def test_timestamps(text: str, rendered: str, short: str | None) -> None:
    timestamp = Timestamp.parse(text)
    assert timestamp is not None
    assert timestamp.to_json() == rendered
    assert short is None or str(timestamp) == short


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "2026-13-01T00:00:00Z",
        "2026-01-01T25:00:00Z",
        "2026-01-01T00:00:00",
        "2026-01-01T00:00:00+99:99",
        "0001-01-01T00:00:00+01:00",
        "２０２６-01-01T00:00:00Z",  # noqa: RUF001
    ],
)
def test_what_is_no_moment(text: str) -> None:
    assert Timestamp.parse(text) is None
