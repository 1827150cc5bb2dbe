"""The host as values and as JSON, in upstream's schema ``org.containers.bootc/v1``.

The vocabulary and the JSON of ``bootc status``. The keys, their spelling and which of them may
be missing are an interface that other programs read. A key without a value is ``null``, except
``signature`` and ``otherDeployments``, which are left out. bootc's own keys are ``findings``,
``protection``, ``rollbackWindow``, ``composefs.waived`` and ``composefs.securityVersion``. They are
missing if there is nothing to say.

``to_json`` stays beside the values and not in :mod:`bootc.cli.render`: this JSON is a format,
which the cached update on disk has, too. Nothing here reads anything.
"""

from __future__ import annotations

import datetime
import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bootc.boot.findings import Finding
from bootc.boot.loader import Bootloader
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import BootType, Signature
from bootc.printable import printable

if TYPE_CHECKING:
    from bootc.formats.security_version import SecurityVersion

API_VERSION = "org.containers.bootc/v1"
KIND = "BootcHost"
#: Of a machine that was booted through composefs.
HOST_TYPE = "bootcHost"

Json = dict[str, Any]
BootOrder = Literal["default", "rollback"]
AccessMode = Literal["readOnly", "readWrite"]

_BOOT_TYPE_NAMES = {BootType.BLS: "Bls", BootType.UKI: "Uki", BootType.ABOOT: "Aboot"}
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)\Z", re.ASCII
)


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """An image as the user names it, and how its signature is verified."""

    reference: ImageReference
    signature: Signature | None = None

    def to_json(self) -> Json:
        """Return the schema's ``ImageReference``."""
        value: Json = {"image": self.reference.name, "transport": self.reference.transport}
        if self.signature is not None:
            remote = self.signature.ostree_remote
            value["signature"] = "containerPolicy" if remote is None else {"ostreeRemote": remote}
        return value


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A moment in UTC, to the nanosecond, as in the documents of images."""

    seconds: datetime.datetime
    nanoseconds: int = 0

    @classmethod
    def now(cls) -> Timestamp:
        """Return this moment, to the second."""
        return cls(datetime.datetime.now(datetime.UTC).replace(microsecond=0))

    @classmethod
    def parse(cls, text: str) -> Timestamp | None:
        """Parse RFC 3339, or return None if the text is not a valid time."""
        match = _RFC3339.match(text)
        if match is None:
            return None
        date, time, fraction, zone = match.groups(default="")
        zone = "+00:00" if zone in "Zz" else zone
        try:
            moment = datetime.datetime.fromisoformat(f"{date}T{time}{zone}")
            return cls(moment.astimezone(datetime.UTC), int(fraction.ljust(9, "0")))
        except (ValueError, OverflowError):
            return None

    def to_json(self) -> str:
        """Return RFC 3339 with as many groups of three decimals as are needed."""
        fraction = f"{self.nanoseconds:09d}"
        while fraction.endswith("000"):
            fraction = fraction[:-3]
        return self._seconds_text() + (f".{fraction}Z" if fraction else "Z")

    def __str__(self) -> str:
        return f"{self._seconds_text()}Z"

    def _seconds_text(self) -> str:
        # Not strftime: its %Y does not pad years on every platform.
        return self.seconds.replace(tzinfo=None).isoformat()


@dataclass(frozen=True, slots=True)
class ImageStatus:
    """The image a deployment was made from."""

    image: ImageSpec
    digest: OciDigest
    architecture: str
    version: str | None = None
    timestamp: Timestamp | None = None

    def to_json(self) -> Json:
        """Return the schema's ``ImageStatus``."""
        return {
            "image": self.image.to_json(),
            "version": self.version,
            "timestamp": None if self.timestamp is None else self.timestamp.to_json(),
            "imageDigest": str(self.digest),
            "architecture": self.architecture,
        }


@dataclass(frozen=True, slots=True)
class ComposefsStatus:
    """How a deployment is stored and started. ``verity`` is its image id."""

    verity: Digest
    boot_type: BootType
    bootloader: Bootloader
    boot_digest: str | None
    missing_verity_allowed: bool

    def to_json(self) -> Json:
        """Return the schema's ``BootEntryComposefs``."""
        return {
            "verity": self.verity.hex,
            "bootType": _BOOT_TYPE_NAMES[self.boot_type],
            "bootloader": self.bootloader.value,
            "bootDigest": self.boot_digest,
            "missingVerityAllowed": self.missing_verity_allowed,
        }


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """The security version of a deployment.

    Attributes:
        stated: What its unified kernel image states.
        below_minimum: The minimum of the booted deployment excludes it.
        refused: The counter in the TPM is higher, so it would not boot.
    """

    stated: SecurityVersion
    below_minimum: bool = False
    refused: bool = False

    def to_json(self) -> Json:
        """Return the value of ``securityVersion``."""
        return {
            "version": self.stated.version,
            "minimum": self.stated.minimum,
            "belowMinimum": self.below_minimum,
            "refused": self.refused,
        }


@dataclass(frozen=True, slots=True)
class RollbackWindow:
    """What a sealed machine goes back to.

    Attributes:
        minimum: The lowest security version that the booted deployment allows.
        counter: The lowest security version that boots; None without a counter.
    """

    minimum: int
    counter: int | None

    def to_json(self) -> Json:
        """Return the value of ``rollbackWindow``."""
        return {"minimum": self.minimum, "counter": self.counter}


@dataclass(frozen=True, slots=True)
class BootEntry:
    """A deployment that can be booted.

    Attributes:
        composefs: How it is stored and started.
        image: The image that it was made from, if known.
        cached_update: The newer image that the last check for updates found, if any.
        pinned: The user wants it kept.
        soft_reboot_capable: Its kernel and command line are already running.
        download_only: It is staged, and does not boot before the user releases it.
        in_parts: It boots a unified kernel image in parts, so no signature covers its arguments.
        waived: The options by which the user gave up a demand of sealed images.
        version: Its security version, if there is something to say about it.
    """

    composefs: ComposefsStatus
    image: ImageStatus | None = None
    cached_update: ImageStatus | None = None
    pinned: bool = False
    soft_reboot_capable: bool = False
    download_only: bool = False
    in_parts: bool = False
    waived: tuple[str, ...] = ()
    version: VersionStatus | None = None

    def to_json(self) -> Json:
        """Return the schema's ``BootEntry``; what only ostree has is empty."""
        more: Json = {}
        if self.waived:
            more["waived"] = [printable(name) for name in self.waived]
        if self.version is not None:
            more["securityVersion"] = self.version.to_json()
        return {
            "image": None if self.image is None else self.image.to_json(),
            "cachedUpdate": None if self.cached_update is None else self.cached_update.to_json(),
            "incompatible": False,
            "pinned": self.pinned,
            "softRebootCapable": self.soft_reboot_capable,
            "downloadOnly": self.download_only,
            "store": None,
            "ostree": None,
            "composefs": self.composefs.to_json() | more,
        }


class LinkState(enum.StrEnum):
    """How strong a link of the chain of trust is."""

    OK = "ok"
    WEAK = "weak"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class TrustLink:
    """A link of the chain of trust.

    Attributes:
        name: ``firmware``, ``loader``, ``uki``, ``image`` or ``files``.
        state: How strong it is.
        text: Why, in one line.
        details: The facts that decide.
    """

    name: str
    state: LinkState
    text: str
    details: Json

    def to_json(self) -> Json:
        """Return the link as JSON."""
        return {
            "link": self.name,
            "state": self.state.value,
            "text": printable(self.text),
            "details": self.details,
        }


@dataclass(frozen=True, slots=True)
class TrustChain:
    """What verifies the booted system, from the firmware to the files.

    Attributes:
        links: All links in their order. Each one trusts those before it.
    """

    links: tuple[TrustLink, ...]

    @property
    def weakest(self) -> TrustLink | None:
        """The first link that is weak, or else not known; None if the system is protected."""
        for state in (LinkState.WEAK, LinkState.UNKNOWN):
            for link in self.links:
                if link.state is state:
                    return link
        return None

    @property
    def protected(self) -> bool | None:
        """Whether every link is verified; None if a link is not known and no link is weak."""
        weakest = self.weakest
        if weakest is None:
            return True
        return None if weakest.state is LinkState.UNKNOWN else False

    def to_json(self) -> Json:
        """Return the chain as JSON."""
        weakest = self.weakest
        return {
            "protected": self.protected,
            "weakest": None if weakest is None else weakest.name,
            "links": [link.to_json() for link in self.links],
        }


@dataclass(frozen=True, slots=True)
class UsrOverlay:
    """Something mounted over ``/usr``. It never survives a reboot."""

    access_mode: AccessMode

    def to_json(self) -> Json:
        """Return the schema's ``FilesystemOverlay``."""
        return {"accessMode": self.access_mode, "persistence": "transient"}


@dataclass(frozen=True, slots=True)
class HostSpec:
    """What the user wants booted."""

    image: ImageSpec | None = None
    boot_order: BootOrder = "default"

    def to_json(self) -> Json:
        """Return the schema's ``HostSpec``."""
        return {
            "image": None if self.image is None else self.image.to_json(),
            "bootOrder": self.boot_order,
        }


@dataclass(frozen=True, slots=True)
class HostStatus:
    """The deployments of a host, by the part they play.

    Attributes:
        staged: Boots next, after it is finalized.
        booted: The running deployment.
        rollback: The deployment that ``bootc rollback`` makes the default.
        other_deployments: All other deployments of the menu, in its order.
        rollback_queued: The menu starts another deployment than the running one.
        usr_overlay: The overlay that is mounted over ``/usr``.
        read_only: The disk refuses writes.
        is_bootc: The machine was booted through composefs.
        protection: What verifies the booted deployment.
        window: What a sealed machine goes back to, if anything limits it.
        findings: Problems of the host.
    """

    staged: BootEntry | None = None
    booted: BootEntry | None = None
    rollback: BootEntry | None = None
    other_deployments: tuple[BootEntry, ...] = ()
    rollback_queued: bool = False
    usr_overlay: UsrOverlay | None = None
    read_only: bool = False
    is_bootc: bool = False
    protection: TrustChain | None = None
    window: RollbackWindow | None = None
    findings: tuple[Finding, ...] = ()

    def to_json(self) -> Json:
        """Return the schema's ``HostStatus``."""
        value: Json = {
            "staged": _json_or_none(self.staged),
            "booted": _json_or_none(self.booted),
            "rollback": _json_or_none(self.rollback),
        }
        if self.other_deployments:
            value["otherDeployments"] = [entry.to_json() for entry in self.other_deployments]
        value |= {
            "rollbackQueued": self.rollback_queued,
            "type": HOST_TYPE if self.is_bootc else None,
            "usrOverlay": None if self.usr_overlay is None else self.usr_overlay.to_json(),
            "readOnly": self.read_only,
        }
        if self.protection is not None:
            value["protection"] = self.protection.to_json()
        if self.window is not None:
            value["rollbackWindow"] = self.window.to_json()
        if self.findings:
            value["findings"] = [_finding_to_json(finding) for finding in self.findings]
        return value


@dataclass(frozen=True, slots=True)
class Host:
    """The wanted and the actual state of a host."""

    spec: HostSpec
    status: HostStatus

    @classmethod
    def empty(cls) -> Host:
        """Return the host of a machine that was not booted through composefs."""
        return cls(HostSpec(), HostStatus())

    def to_json(self) -> Json:
        """Return the schema's ``Host``, its keys in the order of the schema."""
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": "host"},
            "spec": self.spec.to_json(),
            "status": self.status.to_json(),
        }


def _json_or_none(entry: BootEntry | None) -> Json | None:
    return None if entry is None else entry.to_json()


def _finding_to_json(finding: Finding) -> Json:
    return {
        "kind": finding.kind.value,
        "subject": printable(finding.subject),
        "text": printable(finding.text),
    }
