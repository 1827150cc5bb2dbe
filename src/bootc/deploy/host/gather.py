"""Reading the facts of a running system into :class:`Facts`.

Promises: a damaged, foreign, repeated, half-written or unreadable thing is left out and becomes
a finding; :func:`gather` does not raise. It reads nothing large: of an image only its manifest
and its configuration.

The version of an image is the manifest's annotation, and failing that, which is usual, the
label of the same name in its configuration.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Iterable
from typing import TYPE_CHECKING, Protocol, TypeVar

from bootc.boot.findings import Finding, FindingKind
from bootc.boot.menu import read_menu
from bootc.boot.menu_read import Item, Menu, program_of
from bootc.boot.scheme import BootDirs, Scheme
from bootc.boot.secure_boot import BootPrograms
from bootc.deploy.host import notes, statedir
from bootc.deploy.host.boot_state import (
    STAGED_MARKER_NAME,
    BootedState,
    MarkerError,
    Staged,
    read_cached_update,
    read_staged,
)
from bootc.deploy.host.facts import Facts, ImageFacts, StateFacts
from bootc.deploy.host.model import ImageSpec, ImageStatus, Timestamp
from bootc.deploy.host.notes import CleanupFailure, MalformedNote
from bootc.deploy.host.statedir import StateDir
from bootc.deploy.host.view import find_scheme, unreadable
from bootc.errors import Error, one_line
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.ocispec import ImageConfig, ImageSpecError, Manifest
from bootc.formats.origin import Origin, OriginError
from bootc.fs.dir import Dir
from bootc.fs.mounts import filesystem_of
from bootc.oci.documents import read_documents
from bootc.oci.names import manifest_id
from bootc.repository import layout
from bootc.repository.repository import Repository

if TYPE_CHECKING:
    from bootc.boot.uki import InstalledUki

_VERSION = "org.opencontainers.image.version"

_T = TypeVar("_T")


class Opened(Protocol):
    """An open system, at least for reading."""

    @property
    def booted(self) -> BootedState:
        """How it was booted. :func:`gather` reads the staged deployment again."""

    @property
    def physical(self) -> Dir:
        """The physical root."""

    @property
    def repository(self) -> Repository | None:
        """Its repository, if that can be read."""

    @property
    def boot(self) -> BootDirs | None:
        """The directories of the boot menu, if they can be read."""

    @property
    def run(self) -> Dir | None:
        """The directory in which a staged deployment is announced, if it exists."""


def gather(system: Opened) -> Facts:
    """Read the facts of a system. Faults of the system become findings, not exceptions."""
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
    found, leftovers = _read_states(system.physical, findings)
    states = {deployment: state for deployment, state in found.items() if state is not None}
    if booted.image_id not in states:
        subject = statedir.state_path(system.physical, booted.image_id)
        text = "the booted deployment has no state directory"
        findings.append(Finding(FindingKind.MALFORMED, subject, text))
    active, staged = (_by_state(menu, found) for menu in (active, staged))
    findings += [_stateless(item) for item in active.items if item.deployment not in states]
    return Facts(
        booted=booted,
        scheme=scheme,
        active=active,
        staged=staged,
        states=states,
        images=_read_images(system.repository, states, findings),
        ukis={deployment: uki.images for deployment, uki in ukis.items()},
        versions={deployment: uki.version for deployment, uki in ukis.items()},
        counter=_read_counter(booted, scheme, findings),
        programs=_read_programs(
            system.boot, booted.image_id, (*active.items, *staged.items), findings
        ),
        filesystem=_filesystem(system.physical),
        cached_update=_read_cached_update(system.run, findings),
        leftovers=leftovers,
        illegible_states=frozenset(found.keys() - states.keys()),
        cleanup_failures=_read_cleanup_failures(system.physical, findings),
        mirrors=_compare_mirrors(system.boot),
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
    """Return the status of an image."""
    return ImageStatus(image, digest, facts.architecture, facts.version, facts.timestamp)


def _read_marker(run: Dir | None, findings: list[Finding]) -> Staged | None:
    if run is None:
        return None
    return _tried(lambda: read_staged(run), f"{run.path}/{STAGED_MARKER_NAME}", findings)


def _compare_mirrors(boot: BootDirs | None) -> tuple[Finding, ...]:
    if boot is None or not boot.mirrors:
        return ()
    # Imported here: few machines have several ESPs.
    from bootc.boot.mirrors import compare

    return compare(boot)


def _read_ukis(
    boot: BootDirs | None, items: Iterable[Item], findings: list[Finding]
) -> dict[Digest, InstalledUki]:
    """Check the UKIs of menu entries; return the facts of each deployment's UKI."""
    programs = {program_of(item.entry): item.deployment for item in items}
    programs.pop(None, None)
    found: dict[Digest, InstalledUki] = {}
    if boot is None or not programs:
        return found
    # Imported here: machines without UKIs do not need it.
    from bootc.boot.uki import WrongUki, check_installed_uki
    from bootc.formats.pe import PeError

    for path, deployment in programs.items():
        subject = f"{boot.binaries.path}{path}"
        try:
            found[deployment] = check_installed_uki(boot, deployment, path or "")
        except FileNotFoundError:
            continue  # An entry whose program is missing boots nothing.
        except (WrongUki, PeError) as exc:
            findings.append(Finding(FindingKind.MALFORMED, subject, one_line(exc)))
        except OSError as exc:
            findings.append(unreadable(subject, exc))
    return found


def _read_programs(
    boot: BootDirs | None, booted: Digest, items: Iterable[Item], findings: list[Finding]
) -> BootPrograms | None:
    if boot is None:
        return None
    # Imported here: a machine whose boot partition cannot be opened does not need it.
    from bootc.boot.boot_programs import read_programs

    own = (item for item in items if item.deployment == booted)
    path = next(filter(None, (program_of(item.entry) for item in own)), None)
    try:
        return read_programs(boot, path)
    except OSError as exc:
        findings.append(unreadable(boot.binaries.path, exc))
        return None


def _read_counter(booted: BootedState, scheme: Scheme, findings: list[Finding]) -> int | None:
    """Return the value of the counter in the TPM, if a sealed image was booted."""
    if booted.missing_verity_allowed or not scheme.boot_type.is_unified:
        return None
    # Imported here: other machines do not need it.
    from bootc.deploy.host.security_counter import read_counter

    try:
        return read_counter()
    except (Error, OSError) as exc:
        findings.append(Finding(FindingKind.UNREADABLE, "security counter", one_line(exc)))
        return None


def _filesystem(physical: Dir) -> str:
    try:
        return filesystem_of(physical)
    except (Error, OSError):
        return ""


def _by_state(menu: Menu, states: Container[Digest]) -> Menu:
    """Return a menu whose items have the deployment id that the state has, as the initramfs does.

    An entry can name images of which only the second is the id of a state directory.
    """
    found: dict[Digest, Item] = {}
    for item in menu.items:
        ids = (item.deployment, *item.also)
        own = next((image for image in ids if image in states), item.deployment)
        also = tuple(image for image in ids if image != own)
        found.setdefault(own, dataclasses.replace(item, deployment=own, also=also))
    return dataclasses.replace(menu, items=tuple(found.values()))


def _read_cached_update(run: Dir | None, findings: list[Finding]) -> ImageStatus | None:
    if run is None:
        return None
    subject = f"{run.path}/{notes.CACHED_UPDATE}"
    return _tried(lambda: read_cached_update(run), subject, findings)


def _read_cleanup_failures(physical: Dir, findings: list[Finding]) -> tuple[CleanupFailure, ...]:
    subject = statedir.cleanup_failures_path(physical)
    return _tried(lambda: statedir.read_cleanup_failures(physical), subject, findings) or ()


def _read_states(
    physical: Dir, findings: list[Finding]
) -> tuple[dict[Digest, StateFacts | None], tuple[str, ...]]:
    """Return the states of deployments, None for an unreadable one, and the leftovers."""
    subject = statedir.deployments_path(physical)
    try:
        entries = statedir.list_states(physical)
    except OSError as exc:
        findings.append(unreadable(subject, exc))
        return {}, ()
    states = {}
    for entry in entries:
        if entry.deployment is not None:
            states[entry.deployment] = _read_state(physical, entry.deployment, findings)
        elif not entry.is_leftover:
            text = "it is no deployment: its name is no image id"
            findings.append(Finding(FindingKind.FOREIGN, f"{subject}/{entry.name}", text))
    return states, tuple(entry.name for entry in entries if entry.is_leftover)


def _read_state(physical: Dir, deployment: Digest, findings: list[Finding]) -> StateFacts | None:
    try:
        state = StateDir.open(physical, deployment)
    except OSError as exc:
        findings.append(unreadable(statedir.state_path(physical, deployment), exc))
        return None

    def note(name: str, read: Callable[[], _T]) -> _T | None:
        return _tried(read, f"{state.path}/{name}", findings)

    with state:
        origin = _read_origin(state, findings)
        legacy = None
        if origin is not None and origin.image is not None and origin.manifest_digest is None:
            spec = ImageSpec(origin.image, origin.signature)
            legacy = note(state.imginfo_name, lambda: _read_imginfo(state, spec))
        return StateFacts(
            image_id=deployment,
            origin=origin,
            pinned=note(statedir.PINNED, state.is_pinned) or False,
            failure=note(notes.FINALIZE_FAILURE, state.read_failure),
            legacy_image=legacy,
        )


def _read_origin(state: StateDir, findings: list[Finding]) -> Origin | None:
    try:
        return state.read_origin()
    except FileNotFoundError:
        text = "No origin file for this deployment; it is damaged, or left by an interruption"
        findings.append(Finding(FindingKind.MALFORMED, state.path, text))
    except OriginError as exc:
        findings.append(Finding(FindingKind.MALFORMED, state.path, exc.message))
    except OSError as exc:
        findings.append(unreadable(state.path, exc))
    return None


def _read_imginfo(state: StateDir, image: ImageSpec) -> ImageStatus | None:
    documents = state.read_imginfo()
    if documents is None:
        return None
    manifest = Manifest.parse(documents.manifest_raw)
    facts = image_facts(manifest, ImageConfig.parse(documents.config_raw))
    return image_status(image, documents.manifest_digest, facts)


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
    except (MalformedNote, MarkerError, ImageSpecError) as exc:
        findings.append(Finding(FindingKind.MALFORMED, subject, exc.message))
    except OSError as exc:
        findings.append(unreadable(subject, exc))
    return None
