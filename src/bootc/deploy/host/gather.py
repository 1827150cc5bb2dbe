"""Reading all that there is to know of a running system, into :class:`Facts`.

Promises: whatever is damaged, foreign, said twice, half-written or unreadable costs that
thing and becomes a finding; :func:`gather` raises for none of it. Nothing large is read:
of an image only its manifest and its configuration.

A deployment that was installed by an old bootc names no manifest in its origin; what it
was made from is in a file beside that, ``<id>.imginfo``, as JSON. The version of an image
is the manifest's annotation, and failing that, which is usual, the label of the same name
in its configuration.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from bootc.boot.findings import Finding, FindingKind
from bootc.boot.menu_read import Item, Menu, program_of, read_menu
from bootc.boot.scheme import BootDirs
from bootc.deploy import records
from bootc.deploy.host.boot_state import (
    STAGED_MARKER_NAME,
    BootedState,
    MarkerError,
    Staged,
    read_staged,
)
from bootc.deploy.host.facts import CleanupFailure, Facts, ImageFacts, StateFacts
from bootc.deploy.host.model import ImageSpec, ImageStatus, Timestamp
from bootc.deploy.host.view import find_scheme, read_origin, unreadable
from bootc.deploy.records import RecordError
from bootc.errors import Error, one_line
from bootc.formats.digest import Digest, DigestError, OciDigest
from bootc.formats.ocispec import (
    MAX_CONFIG_BYTES,
    MAX_MANIFEST_BYTES,
    ImageConfig,
    ImageSpecError,
    Manifest,
)
from bootc.formats.origin import Origin, OriginError
from bootc.fs.dir import Dir
from bootc.oci.documents import read_documents
from bootc.oci.names import manifest_id
from bootc.repository import layout
from bootc.repository.repository import Repository

_VERSION = "org.opencontainers.image.version"

_T = TypeVar("_T")


class Opened(Protocol):
    """An open system, for reading or for more."""

    @property
    def booted(self) -> BootedState:
        """How it was booted. What is staged is read anew."""

    @property
    def physical(self) -> Dir:
        """The physical root."""

    @property
    def repository(self) -> Repository | None:
        """Its repository, if that can be read."""

    @property
    def boot(self) -> BootDirs | None:
        """Where the boot menu is, if that can be read."""

    @property
    def run(self) -> Dir | None:
        """Where a staged deployment is announced, if there is such a place."""


def gather(system: Opened) -> Facts:
    """Read a system. It raises for nothing that is wrong with one."""
    findings: list[Finding] = []
    booted = dataclasses.replace(system.booted, staged=_read_marker(system.run, findings))
    findings = [*booted.findings, *findings]
    active = staged = Menu()
    if system.boot is None:
        scheme = find_scheme(system.physical, booted)
    else:
        scheme = system.boot.scheme
        active = read_menu(system.boot, staged=False)
        staged = read_menu(system.boot, staged=True)
        findings += [*active.findings, *staged.findings]
    ukis = _read_ukis(system.boot, (*active.items, *staged.items), findings)
    found = _read_states(system.physical, findings)
    states = {deployment: state for deployment, state in found.items() if state is not None}
    if booted.image_id not in states:
        subject = f"{system.physical.path}/{layout.state_dir(booted.image_id.hex)}"
        text = "the booted deployment has no state directory"
        findings.append(Finding(FindingKind.MALFORMED, subject, text))
    findings += [_stateless(item) for item in active.items if item.deployment not in states]
    return Facts(
        booted=booted,
        scheme=scheme,
        active=active,
        staged=staged,
        states=states,
        images=_read_images(system.repository, states, findings),
        ukis=ukis,
        cached_update=_read_cached_update(system.run, findings),
        leftovers=_read_leftovers(system.physical),
        illegible_states=frozenset(found.keys() - states.keys()),
        cleanup_failures=_read_cleanup_failures(system.physical, findings),
        findings=tuple(findings),
    )


def image_facts(manifest: Manifest, config: ImageConfig) -> ImageFacts:
    """Return what the documents of an image say about it."""
    return ImageFacts(
        architecture=config.architecture,
        version=manifest.annotations.get(_VERSION) or config.labels.get(_VERSION),
        timestamp=None if config.created is None else Timestamp.parse(config.created),
    )


def image_status(image: ImageSpec, digest: OciDigest, facts: ImageFacts) -> ImageStatus:
    """Put together what is known of an image."""
    return ImageStatus(image, digest, facts.architecture, facts.version, facts.timestamp)


def _read_marker(run: Dir | None, findings: list[Finding]) -> Staged | None:
    if run is None:
        return None
    return _tried(lambda: read_staged(run), f"{run.path}/{STAGED_MARKER_NAME}", findings)


def _read_ukis(
    boot: BootDirs | None, items: Iterable[Item], findings: list[Finding]
) -> dict[Digest, bool]:
    """Check the UKIs of menu entries; tell which of them tolerate missing fs-verity."""
    programs = {program_of(item.entry): item.deployment for item in items}
    programs.pop(None, None)
    found: dict[Digest, bool] = {}
    if boot is None or not programs:
        return found
    # Imported here: machines without UKIs do not need it.
    from bootc.boot.uki import WrongUki, check_installed_uki
    from bootc.formats.pe import PeError

    for path, deployment in programs.items():
        subject = f"{boot.binaries.path}{path}"
        try:
            found[deployment] = check_installed_uki(boot, deployment, path or "").optional
        except FileNotFoundError:
            continue  # An entry whose program is missing boots nothing.
        except (WrongUki, PeError) as exc:
            findings.append(Finding(FindingKind.MALFORMED, subject, one_line(exc)))
        except OSError as exc:
            findings.append(unreadable(subject, exc))
    return found


def _read_cached_update(run: Dir | None, findings: list[Finding]) -> ImageStatus | None:
    if run is None:
        return None
    subject = f"{run.path}/{records.CACHED_UPDATE}"
    return _tried(lambda: records.read_cached_update(run), subject, findings)


def _read_cleanup_failures(physical: Dir, findings: list[Finding]) -> tuple[CleanupFailure, ...]:
    path = os.path.dirname(layout.STATE_DEPLOY)
    subject = f"{physical.path}/{path}/{records.CLEANUP_FAILURES}"

    def read() -> tuple[CleanupFailure, ...]:
        try:
            directory = physical.open_dir(path)
        except FileNotFoundError:
            return ()  # a finding of the states
        with directory:
            return records.read_cleanup_failures(directory)

    return _tried(read, subject, findings) or ()


def _read_states(physical: Dir, findings: list[Finding]) -> dict[Digest, StateFacts | None]:
    """Return the state of deployments, None where it cannot be read."""
    subject = f"{physical.path}/{layout.STATE_DEPLOY}"
    try:
        names = _names(physical)
    except OSError as exc:
        findings.append(unreadable(subject, exc))
        return {}
    states = {}
    for name in names:
        try:
            deployment = Digest.from_hex(name)
        except DigestError:
            if not name.startswith(layout.REMOVED_PREFIX):
                text = "it is no deployment: its name is no image id"
                findings.append(Finding(FindingKind.FOREIGN, f"{subject}/{name}", text))
            continue
        states[deployment] = _read_state(physical, deployment, findings)
    return states


def _read_leftovers(physical: Dir) -> tuple[str, ...]:
    try:
        return tuple(n for n in _names(physical) if n.startswith(layout.REMOVED_PREFIX))
    except OSError:
        return ()  # a finding of the states


def _names(physical: Dir) -> list[str]:
    with physical.open_dir(layout.STATE_DEPLOY) as directory:
        return directory.names()


def _read_state(physical: Dir, deployment: Digest, findings: list[Finding]) -> StateFacts | None:
    path = layout.state_dir(deployment.hex)
    try:
        state_dir = physical.open_dir(path)
    except OSError as exc:
        findings.append(unreadable(f"{physical.path}/{path}", exc))
        return None
    with state_dir:
        origin = _read_origin(physical, state_dir, deployment, findings)

        def record(name: str, read: Callable[[Dir], _T]) -> _T | None:
            return _tried(lambda: read(state_dir), f"{state_dir.path}/{name}", findings)

        legacy = None
        if origin is not None and origin.image is not None and origin.manifest_digest is None:
            spec = ImageSpec(origin.image, origin.signature)
            name = f"{deployment.hex}.imginfo"
            legacy = record(name, lambda directory: _read_imginfo(directory, name, spec))
        return StateFacts(
            image_id=deployment,
            origin=origin,
            pinned=record(records.PINNED, records.is_pinned) or False,
            failure=record(records.FINALIZE_FAILURE, records.read_failure),
            legacy_image=legacy,
        )


def _read_origin(
    physical: Dir, state_dir: Dir, deployment: Digest, findings: list[Finding]
) -> Origin | None:
    try:
        return read_origin(physical, deployment)
    except FileNotFoundError:
        text = "No origin file for this deployment; it is damaged, or left by an interruption"
        findings.append(Finding(FindingKind.MALFORMED, state_dir.path, text))
    except OriginError as exc:
        findings.append(Finding(FindingKind.MALFORMED, state_dir.path, exc.message))
    except OSError as exc:
        findings.append(unreadable(state_dir.path, exc))
    return None


def _read_imginfo(state_dir: Dir, name: str, image: ImageSpec) -> ImageStatus | None:
    try:
        raw = state_dir.read_bytes(name, MAX_MANIFEST_BYTES + MAX_CONFIG_BYTES)
    except FileNotFoundError:
        return None
    try:
        value = json.loads(raw)
        manifest, config = _compact(value["manifest"]), _compact(value["config"])
    except (ValueError, RecursionError, LookupError, TypeError) as exc:
        raise RecordError(f"it holds no manifest and configuration: {exc!r:.200}") from None
    facts = image_facts(Manifest.parse(manifest), ImageConfig.parse(config))
    # Nobody knows the digest it had in its registry; the old bootc names this one.
    return image_status(image, OciDigest.of(manifest), facts)


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _read_images(
    repository: Repository | None, states: dict[Digest, StateFacts], findings: list[Finding]
) -> dict[OciDigest, ImageFacts]:
    images: dict[OciDigest, ImageFacts] = {}
    if repository is None:
        return images
    origins = (state.origin for state in states.values() if state.origin is not None)
    digests = dict.fromkeys(o.manifest_digest for o in origins if o.manifest_digest is not None)
    for digest in digests:
        try:
            images[digest] = image_facts(*read_documents(repository, digest))
        except (Error, OSError) as exc:
            subject = f"{repository.dir.path}/{layout.stream_path(manifest_id(digest))}"
            findings.append(unreadable(subject, exc))
    return images


def _stateless(item: Item) -> Finding:
    text = f"it starts deployment {item.deployment}, which has no state directory"
    return Finding(FindingKind.MALFORMED, item.name, text)


def _tried(read: Callable[[], _T], subject: str, findings: list[Finding]) -> _T | None:
    try:
        return read()
    except (RecordError, MarkerError, ImageSpecError) as exc:
        findings.append(Finding(FindingKind.MALFORMED, subject, exc.message))
    except OSError as exc:
        findings.append(unreadable(subject, exc))
    return None
