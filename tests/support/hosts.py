"""Sample hosts as ``bootc status`` describes them, for tests of text and JSON."""

from __future__ import annotations

from bootc.boot.findings import Finding, FindingKind
from bootc.boot.loader import Bootloader
from bootc.deploy.host.model import (
    BootEntry,
    ComposefsStatus,
    Host,
    HostSpec,
    HostStatus,
    ImageSpec,
    ImageStatus,
    Timestamp,
    UsrOverlay,
)
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import BootType, Signature

MANIFEST = OciDigest("sha256", "11" * 32)
NEWER = OciDigest("sha256", "22" * 32)
CREATED = Timestamp.parse("2026-08-01T00:00:00.5Z")


def entry(
    byte: str,
    *,
    name: str | None = "quay.io/example/os:43",
    transport: str = "registry",
    version: str | None = None,
    timestamp: Timestamp | None = None,
    signature: Signature | None = None,
    optional: bool = False,
    locked: bool = False,
) -> BootEntry:
    image = None
    if name is not None:
        spec = ImageSpec(ImageReference(transport, name), signature)
        image = ImageStatus(spec, MANIFEST, "amd64", version, timestamp)
    composefs = ComposefsStatus(
        Digest.from_hex(byte * 64), BootType.BLS, Bootloader.SYSTEMD, None, optional
    )
    return BootEntry(composefs, image, download_only=locked)


FULL = Host(
    HostSpec(),
    HostStatus(
        staged=entry("aa", transport="oci", name="/new", version="44", locked=True),
        booted=entry("bb", version="43", timestamp=CREATED, signature=Signature()),
        rollback=entry("cc", timestamp=CREATED, optional=True, signature=Signature("fedora")),
        other_deployments=(entry("dd"), entry("ee", name=None)),
        usr_overlay=UsrOverlay("readWrite"),
    ),
)

ODD = (
    Finding(FindingKind.FOREIGN, "windows.conf", "it starts an EFI program"),
    Finding(FindingKind.MALFORMED, "bootc_\udcff\x1b[2J.conf", "two\nlines"),
    Finding(FindingKind.FAILED, "deployment aa", "conflicts in /etc"),
)
