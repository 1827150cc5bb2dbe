"""The text of ``bootc status`` for people.

Tools read this text, too. The labels, their order and the marks in front of the headings are
those of upstream and do not change. Findings follow at the end. Findings about the entries of
other systems appear only in the verbose text.

The JSON of a host is a format of its own, upstream's host v1: :mod:`bootc.deploy.host.model`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from bootc.printable import printable

if TYPE_CHECKING:
    from bootc.boot.findings import Finding
    from bootc.deploy.host.model import (
        BootEntry,
        Host,
        ImageSpec,
        ImageStatus,
        TrustChain,
        UsrOverlay,
    )

#: The labels of the links of the chain of trust.
_LINKS = {
    "firmware": "Firmware",
    "loader": "Loader",
    "uki": "UKI",
    "image": "Image digest",
    "files": "Files",
}
#: The kind of findings about other systems.
_OTHERS = "foreign"


def status_text(host: Host, *, verbose: bool) -> str:
    """Return the text of a host, with a newline at the end.

    Args:
        host: What to show.
        verbose: Show more about each deployment, and findings about other systems.
    """
    status = host.status
    slots = [
        ("  Staged", status.staged),
        ("● Booted", status.booted),
        ("  Rollback", status.rollback),
        *(("   Other", entry) for entry in status.other_deployments if entry.image is not None),
    ]
    sections = []
    for heading, entry in slots:
        if entry is None:
            continue
        rows = list(_rows(entry))
        if entry is status.booted and status.usr_overlay is not None:
            rows.append(("/usr overlay", _overlay(status.usr_overlay)))
        chain = status.protection if entry is status.booted else None
        if chain is not None and chain.weakest and _is_sealed(entry) and not verbose:
            rows += list(_protection_rows(chain))[:1]
        if verbose:
            rows += _verbose_rows(entry, staged=entry is status.staged)
            rows += [] if chain is None else _protection_rows(chain)
            if entry is status.booted and status.window is not None:
                counter = status.window.counter
                rows.append(("Counter", "none" if counter is None else f"{counter}, in the TPM"))
        sections.append(_section(heading, entry.image, rows))
    if not sections:
        return "System is not deployed via bootc.\n"
    shown = [f for f in status.findings if verbose or f.kind != _OTHERS]
    if shown:
        sections.append("".join(f"{_finding(finding)}\n" for finding in shown))
    return "\n".join(sections)


def _finding(finding: Finding) -> str:
    return f"{finding.kind.value}: {printable(finding.subject)}: {printable(finding.text)}"


def _section(heading: str, image: ImageStatus | None, rows: Iterable[tuple[str, str]]) -> str:
    if image is None:
        heading = first_line = f"{heading} composefs"
    else:
        heading = f"{heading} image"
        first_line = f"{heading}: {printable(_short_reference(image.image))}"
    # The values of all rows start in the same column. A value with a newline could forge rows
    # and headings.
    lines = (f"{label:>{len(heading)}}: {printable(value)}" for label, value in rows)
    return "\n".join([first_line, *lines, ""])


def _rows(entry: BootEntry) -> Iterator[tuple[str, str]]:
    verity = entry.composefs.verity.hex
    image = entry.image
    if image is None:
        yield "Commit", verity
        if entry.pinned:
            yield "Pinned", "yes"
        yield from _sealing_rows(entry)
        return
    yield "Digest", f"{image.digest} ({image.architecture})"
    yield "Verity", verity
    if image.version is not None:
        yield "Version", _version(image.version, image)
    elif image.timestamp is not None:
        yield "Timestamp", str(image.timestamp)
    if entry.pinned:
        yield "Pinned", "yes"
    yield from _sealing_rows(entry)
    if entry.cached_update is not None:
        yield from _update_rows(entry.cached_update)


def _sealing_rows(entry: BootEntry) -> Iterator[tuple[str, str]]:
    if entry.in_parts:
        yield "Sealing", "not sealed: its unified kernel image boots in parts"
    if entry.waived:
        yield "Accepted", ", ".join(f"--{name}" for name in entry.waived)
    version = entry.version
    if version is not None and version.refused:
        yield "Outside", "would not boot: the counter in the TPM requires a newer security version"
    elif version is not None and version.below_minimum:
        yield "Outside", "its security version is below the minimum of the booted deployment"


def _update_rows(update: ImageStatus) -> Iterator[tuple[str, str]]:
    if update.version is None:
        yield "Update", "Available"
    else:
        yield "UpdateVersion", _version(update.version, update)
    yield "UpdateDigest", str(update.digest)


def _version(version: str, image: ImageStatus) -> str:
    return version if image.timestamp is None else f"{version} ({image.timestamp})"


def _verbose_rows(entry: BootEntry, *, staged: bool) -> Iterator[tuple[str, str]]:
    if entry.image is not None and entry.image.image.signature is not None:
        remote = entry.image.image.signature.ostree_remote
        yield "Signature", "container-policy" if remote is None else f"ostree-remote:{remote}"
    yield "Soft-reboot", _yes_no(entry.soft_reboot_capable)
    allowed = entry.composefs.missing_verity_allowed
    yield "FsVerity", "Not Enforced" if allowed else "Enforced"
    if entry.version is not None:
        stated = entry.version.stated
        yield "Security version", f"{stated.version}, goes back to {stated.minimum}"
    if staged:
        yield "Download-only", _yes_no(entry.download_only)


def _is_sealed(entry: BootEntry) -> bool:
    unified = entry.composefs.boot_type.is_unified
    return unified and not entry.composefs.missing_verity_allowed


def _protection_rows(chain: TrustChain) -> Iterator[tuple[str, str]]:
    weakest = chain.weakest
    if weakest is None:
        yield "Protection", "every link from the firmware to the files is verified"
    else:
        label = "UKI" if weakest.name == "uki" else _LINKS[weakest.name].lower()
        what = "not known, because of the"
        if chain.protected is False:
            what = "not protected; the weakest link is the"
        yield "Protection", f"{what} {label}: {weakest.text}"
    for link in chain.links:
        yield _LINKS[link.name], f"{link.state.value}: {link.text}"


def _overlay(overlay: UsrOverlay) -> str:
    return f"transient, {'read-only' if overlay.access_mode == 'readOnly' else 'read/write'}"


def _short_reference(image: ImageSpec) -> str:
    reference = image.reference
    if reference.transport == "registry":
        return reference.name
    return f"{reference.transport}:{reference.name}"


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"
