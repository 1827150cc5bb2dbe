"""An installed system as directories: repository, state and ESP, without a boot or a mount.

The repository, the origins and the entries are written by the code that writes
them in earnest; only what a kernel would have mounted is made up.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bootc.boot.entries import new_item
from bootc.boot.scheme import Scheme
from bootc.boot.systemd_boot import Bootloader
from bootc.deploy.sysroot import Sysroot
from bootc.formats.bls import Entry, entry_file_name, serialise_entry, sort_key
from bootc.formats.cmdline import composefs_karg
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.ocispec import CONFIG, MANIFEST
from bootc.formats.origin import BootType, Origin, serialise_origin
from bootc.formats.osrelease import OsRelease
from bootc.formats.splitstream import OCI_CONFIG, OCI_MANIFEST, StreamWriter
from bootc.fs.dir import Dir
from bootc.repository import layout
from bootc.repository.repository import Repository

IMAGE = ImageReference("registry", "quay.io/example/os:43")
BOOT_DIGEST = "b0" * 32
SCHEME = Scheme(Bootloader.SYSTEMD, BootType.BLS)


def image_id(byte: str) -> Digest:
    """Return an image id made of one byte, given as two hex digits."""
    return Digest.from_hex(byte * 64)


class FakeSysroot:
    """A system below ``path``; deployments are added to it and then it is opened."""

    def __init__(self, path: Path) -> None:
        self.physical = path / "sysroot"
        self.esp = path / "esp"
        self.physical.mkdir(parents=True)
        self.esp.mkdir()
        with Dir.open(self.physical) as root:
            Repository.create(root, secure=False).close()

    @contextlib.contextmanager
    def open(self, *, esp: bool = True, read_only: bool = False) -> Iterator[Sysroot]:
        """Open the system for reading, as if its ESP had been mounted."""
        with contextlib.ExitStack() as stack:
            physical = stack.enter_context(Dir.open(self.physical))
            repository = stack.enter_context(Repository.open(physical, require_verity=False))
            mounted = stack.enter_context(Dir.open(self.esp)) if esp else None
            yield Sysroot(physical, repository, mounted, read_only)

    def add_image(
        self,
        *,
        annotations: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        created: str | None = "2026-08-01T00:00:00Z",
    ) -> OciDigest:
        """Put the documents of an image into the repository and return its manifest digest."""
        config: dict[str, Any] = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": labels or {}},
            "rootfs": {"type": "layers", "diff_ids": []},
        }
        if created is not None:
            config["created"] = created
        config_raw = json.dumps(config).encode()
        config_digest = OciDigest.of(config_raw)
        descriptor = {"mediaType": CONFIG, "digest": str(config_digest), "size": len(config_raw)}
        manifest_raw = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": descriptor,
                "layers": [],
                "annotations": annotations or {},
            }
        ).encode()
        digest = OciDigest.of(manifest_raw)
        with (
            Dir.open(self.physical) as root,
            Repository.open(root, require_verity=False, writable=True) as repository,
        ):
            for name, kind, raw in (
                (f"oci-config-{config_digest}", OCI_CONFIG, config_raw),
                (f"oci-manifest-{digest}", OCI_MANIFEST, manifest_raw),
            ):
                stream = StreamWriter(repository.algorithm, kind)
                stream.external(repository.objects.put(raw), len(raw))
                repository.streams.write(name, stream.finish())
        return digest

    def add_state(self, deployment: Digest, origin: Origin | bytes | None = None) -> None:
        """Make the state directory of a deployment; by default it comes from a new image."""
        if origin is None:
            origin = Origin(
                image=IMAGE,
                boot_type=BootType.BLS,
                boot_digest=BOOT_DIGEST,
                manifest_digest=self.add_image(),
            )
        state = self.physical / layout.state_dir(deployment.hex)
        state.mkdir(parents=True)
        data = origin if isinstance(origin, bytes) else serialise_origin(origin)
        (state / layout.origin_name(deployment.hex)).write_bytes(data)

    def add_entry(self, deployment: Digest, *, rank: int = 0, staged: bool = False) -> None:
        """Put a deployment in the menu; rank 0 boots by default."""
        item = new_item(
            SCHEME,
            deployment,
            OsRelease({"ID": "fedora", "VERSION_ID": "43"}),
            options=composefs_karg(deployment.hex, optional=False),
        )
        assert isinstance(item.entry, Entry)
        entry = dataclasses.replace(item.entry, sort_key=sort_key("fedora", rank))
        name = entry_file_name("fedora", "43", 1 - rank)
        self.add_entry_file(name, serialise_entry(entry), staged=staged)

    def add_entry_file(self, name: str, data: bytes, *, staged: bool = False) -> None:
        """Put any bytes where an entry belongs."""
        directory = self.esp / (SCHEME.staged if staged else SCHEME.entries)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)

    def add_deployment(self, deployment: Digest, *, rank: int = 0, staged: bool = False) -> None:
        """Add state, image and entry of a deployment."""
        self.add_state(deployment)
        self.add_entry(deployment, rank=rank, staged=staged)
