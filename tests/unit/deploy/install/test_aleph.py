from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bootc.deploy.install.aleph import aleph, write_aleph
from bootc.formats.digest import OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.ocispec import ImageConfig
from bootc.fs.dir import Dir

TARGET = ImageReference("registry", "example.com/os:1")
DIGEST = OciDigest.parse("sha256:" + "ab" * 32)
CREATED = "2026-01-02T03:04:05Z"


@pytest.mark.parametrize(
    ("labels", "version", "timestamp"),
    [
        ({}, None, CREATED),
        (
            {
                "org.opencontainers.image.version": "43.1",
                "org.opencontainers.image.created": "2025-01-01T00:00:00Z",
            },
            "43.1",
            "2025-01-01T00:00:00Z",
        ),
    ],
)
def test_the_content_is_upstreams(
    tmp_path: Path, labels: dict[str, str], version: str | None, timestamp: str
) -> None:
    config = ImageConfig("amd64", "linux", CREATED, labels, ())
    value = aleph("example.com/installer:1", TARGET, DIGEST, config, selinux="disabled")
    with Dir.open(tmp_path) as root:
        write_aleph(root, value)
    text = (tmp_path / ".bootc-aleph.json").read_text()
    assert json.loads(text) == {
        "digest": "sha256:" + "ab" * 32,
        "image": "example.com/installer:1",
        "kernel": os.uname().release,
        "selinux": "disabled",
        "target-image": "example.com/os:1",
        "timestamp": timestamp,
        "version": version,
    } | ({"labels": labels} if labels else {})
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


@pytest.mark.parametrize("name", [None, "/tmp/build/image"])
def test_a_temporary_name_is_left_out(name: str | None) -> None:
    config = ImageConfig("amd64", "linux", None, {}, ())
    assert "image" not in aleph(name, TARGET, DIGEST, config, selinux="enabled")
