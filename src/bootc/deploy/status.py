"""Reading the host: which deployments there are and what part each plays.

:func:`read_host` gathers and :func:`compose_host` decides. A deployment is one that
a boot entry starts and that has an origin file; the booted one needs no entry.
What is damaged is left out with a warning and the rest is shown, since this is
what people turn to when something is damaged.

Where upstream's status is known to be wrong, this one follows the intention: a
rollback is queued exactly when the menu would start another deployment than the
running one, one bad entry does not hide the others, and looking changes nothing.
The version of an image is the manifest's annotation, and failing that, which is
usual, the label of the same name in its configuration.
"""

from __future__ import annotations

import logging

from bootc.boot.findings import FindingKind
from bootc.boot.menu import read_menu
from bootc.boot.scheme import BootDirs, Scheme
from bootc.deploy.booted import BootedState, read_booted_state
from bootc.deploy.model import (
    BootEntry,
    ComposefsStatus,
    Host,
    HostSpec,
    HostStatus,
    ImageSpec,
    ImageStatus,
    Timestamp,
)
from bootc.deploy.sysroot import Sysroot, open_sysroot
from bootc.errors import Error, one_line
from bootc.formats import splitstream
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.ocispec import MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, ImageConfig, Manifest
from bootc.formats.origin import BootType, Origin, OriginError, parse_origin
from bootc.formats.splitstream import StreamReader
from bootc.oci.names import config_id, manifest_id
from bootc.repository import layout
from bootc.repository.repository import Repository

_log = logging.getLogger(__name__)

_VERSION = "org.opencontainers.image.version"
#: In place of the architecture of an image whose documents cannot be read.
_UNKNOWN = "unknown"
_MAX_ORIGIN_BYTES = 1 << 16


def read_host(*, root: str = "/") -> Host:
    """Return the host that runs with its root at ``root``; empty if not booted by composefs.

    Raises:
        Error: the system contradicts itself, or its repository cannot be honoured.
        OSError: something that must be there cannot be read.
    """
    booted = read_booted_state(root=root)
    if booted is None:
        return Host.empty()
    with open_sysroot(root=root) as sysroot:
        return compose_host(sysroot, booted)


def compose_host(sysroot: Sysroot, booted: BootedState) -> Host:
    """Decide which deployment plays which part."""
    active = _menu(sysroot, booted, staged=False)
    staged = booted.staged
    if staged is not None and (
        # After a soft reboot the marker stays and names what runs now.
        staged.image_id == booted.image_id
        # Without an entry nothing would become of it at the next boot.
        or staged.image_id not in (*active, *_menu(sysroot, booted, staged=True))
    ):
        staged = None
    booted_entry = _describe(sysroot, booted, booted.image_id)
    staged_entry = None
    if staged is not None:
        staged_entry = _describe(sysroot, booted, staged.image_id, download_only=staged.locked)
    taken = (booted.image_id, staged and staged.image_id)
    described = (_describe(sysroot, booted, i) for i in active if i not in taken)
    others = [entry for entry in described if entry is not None]
    rollback_queued = bool(active) and active[0] != booted.image_id
    wanted = staged_entry or booted_entry
    return Host(
        HostSpec(
            image=None if wanted is None or wanted.image is None else wanted.image.image,
            boot_order="rollback" if rollback_queued else "default",
        ),
        HostStatus(
            staged=staged_entry,
            booted=booted_entry,
            rollback=others[0] if others else None,
            other_deployments=tuple(others[1:]),
            rollback_queued=rollback_queued,
            usr_overlay=booted.usr_overlay,
            read_only=sysroot.read_only,
        ),
    )


def _menu(sysroot: Sysroot, booted: BootedState, *, staged: bool) -> list[Digest]:
    if sysroot.esp is None:
        return []
    scheme = Scheme(booted.bootloader, BootType.BLS)
    menu = read_menu(BootDirs(scheme, sysroot.esp, sysroot.esp), staged=staged)
    for finding in menu.findings:
        level = logging.DEBUG if finding.kind is FindingKind.FOREIGN else logging.WARNING
        _log.log(level, "ignoring boot entry %s: %s", ascii(finding.subject), finding.text)
    return [item.deployment for item in menu.items]


def _describe(
    sysroot: Sysroot, booted: BootedState, image_id: Digest, *, download_only: bool = False
) -> BootEntry | None:
    origin = _read_origin(sysroot, image_id)
    if origin is None:
        return None
    return BootEntry(
        composefs=ComposefsStatus(
            verity=image_id,
            boot_type=origin.boot_type,
            bootloader=booted.bootloader,
            boot_digest=origin.boot_digest,
            missing_verity_allowed=booted.missing_verity_allowed,
        ),
        image=_describe_image(sysroot.repository, origin),
        download_only=download_only,
    )


def _read_origin(sysroot: Sysroot, image_id: Digest) -> Origin | None:
    path = f"{layout.state_dir(image_id.hex)}/{layout.origin_name(image_id.hex)}"
    try:
        return parse_origin(sysroot.physical.read_bytes(path, _MAX_ORIGIN_BYTES))
    except FileNotFoundError:
        _log.warning("No origin file for deployment %s", image_id)
    except (OriginError, OSError) as exc:
        _log.warning("ignoring deployment %s: %s", image_id, one_line(exc))
    return None


def _describe_image(repository: Repository, origin: Origin) -> ImageStatus | None:
    if origin.image is None or origin.manifest_digest is None:
        return None
    image = ImageSpec(origin.image, origin.signature)
    try:
        manifest, config = _read_documents(repository, origin.manifest_digest)
    except (Error, OSError) as exc:
        _log.warning("the documents of image %s cannot be read: %s", origin.image, one_line(exc))
        return ImageStatus(image, origin.manifest_digest, _UNKNOWN)
    return ImageStatus(
        image=image,
        digest=origin.manifest_digest,
        architecture=config.architecture,
        version=manifest.annotations.get(_VERSION) or config.labels.get(_VERSION),
        timestamp=None if config.created is None else Timestamp.parse(config.created),
    )


def _read_documents(repository: Repository, digest: OciDigest) -> tuple[Manifest, ImageConfig]:
    manifest_raw = _read_document(
        repository, manifest_id(digest), splitstream.OCI_MANIFEST, MAX_MANIFEST_BYTES
    )
    manifest = Manifest.parse(manifest_raw)
    config_raw = _read_document(
        repository, config_id(manifest.config.digest), splitstream.OCI_CONFIG, MAX_CONFIG_BYTES
    )
    return manifest, ImageConfig.parse(config_raw)


def _read_document(
    repository: Repository, content_id: str, content_type: bytes, limit: int
) -> bytes:
    """Return the JSON document that a stream consists of."""
    stream = StreamReader(repository.streams.read(content_id))
    stream.expect(content_type, repository.algorithm)
    return repository.objects.read(stream.external(), limit=limit)
