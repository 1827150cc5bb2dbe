"""An installed system as directories: repository, state and ESP, without a boot or a mount.

The repository, the origins and the entries are written by the code that writes
them in earnest; only what a kernel would have mounted is made up.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bootc.boot.loader import Bootloader
from bootc.boot.menu_compose import compose_menu, new_item
from bootc.boot.scheme import BootDirs, Scheme
from bootc.deploy.host.boot_state import STAGED_MARKER_NAME, BootedState
from bootc.deploy.host.view import PartialHostView
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

    def __init__(
        self,
        path: Path,
        bootloader: Bootloader = Bootloader.SYSTEMD,
        boot_type: BootType = BootType.BLS,
    ) -> None:
        self.scheme = Scheme(bootloader, boot_type)
        self.physical = path / "sysroot"
        self.esp = path / "esp"
        self.run = path / "run"
        for directory in (self.physical / "boot", self.esp, self.run):
            directory.mkdir(parents=True)
        self.menu = self.esp if self.scheme.menu_on_esp else self.physical / "boot"
        self.binaries = self.esp if self.scheme.binaries_on_esp else self.menu
        with Dir.open(self.physical) as root:
            Repository.create(root, secure=False).close()

    @contextlib.contextmanager
    def open(
        self, booted: BootedState, *, boot: bool = True, repository: bool = True
    ) -> Iterator[PartialHostView]:
        """Open the system for reading, as if all of it had been mounted."""
        with contextlib.ExitStack() as stack:

            def enter(path: Path) -> Dir:
                return stack.enter_context(Dir.open(path))

            physical = enter(self.physical)
            yield PartialHostView(
                booted=booted,
                physical=physical,
                repository=stack.enter_context(Repository.open(physical, require_verity=False))
                if repository
                else None,
                boot=BootDirs(self.scheme, enter(self.menu), enter(self.binaries))
                if boot
                else None,
                run=enter(self.run),
            )

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
                boot_type=self.scheme.boot_type,
                boot_digest=BOOT_DIGEST,
                manifest_digest=self.add_image(),
            )
        state = self.state_dir(deployment)
        state.mkdir(parents=True)
        data = origin if isinstance(origin, bytes) else serialise_origin(origin)
        (state / layout.origin_name(deployment.hex)).write_bytes(data)

    def set_menu(
        self, *deployments: Digest, staged: bool = False, options: str = "rw composefs={}"
    ) -> None:
        """Write a menu that boots these, the first by default; ``{}`` stands for the image."""
        uki = self.scheme.boot_type is BootType.UKI
        items = [
            new_item(
                self.scheme,
                deployment,
                OsRelease({"ID": "fedora", "VERSION_ID": "43"}),
                options=None if uki else options.format(deployment),
            )
            for deployment in deployments
        ]
        for name, data in compose_menu(self.scheme, items):
            self.add_entry_file(name, data, staged=staged)

    def add_entry_file(self, name: str, data: bytes, *, staged: bool = False) -> None:
        """Put any bytes where an entry belongs, or where GRUB's menu does."""
        path = self.menu / (self.scheme.staged if staged else self.scheme.entries)
        if not self.scheme.menu_is_file:
            path /= name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def announce(self, deployment: Digest, *, locked: bool = False) -> None:
        """Announce a deployment for the next boot."""
        marker = {"depl_id": deployment.hex, "finalization_locked": locked}
        (self.run / STAGED_MARKER_NAME).write_text(json.dumps(marker))

    def state_dir(self, deployment: Digest) -> Path:
        """Return where a deployment has its state."""
        return self.physical / layout.state_dir(deployment.hex)
