"""The reports of ``cfsctl fsck`` and ``cfsctl oci fsck``, in upstream's words.

A finding is one line, whatever bytes the name of a file holds. The lines follow the order of
the report.

Source: composefs, "fsck" and "OCI fsck kinds".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bootc.oci.fsck import OciFsckReport
    from bootc.repository.fsck_report import Count, FsckReport


def report_text(report: FsckReport) -> str:
    """Return the text of ``cfsctl fsck``."""
    lines = [
        f"meta.json: {report.metadata}",
        f"objects: {_ok(report.objects)}",
        f"streams: {_ok(report.streams)}",
        f"images: {_ok(report.images)}",
    ]
    if report.broken_links:
        lines.append(f"broken symlinks: {report.broken_links}")
    if report.missing_objects:
        lines.append(f"missing objects: {report.missing_objects}")
    if report.ok:
        lines.append("status: ok")
    else:
        lines.append(f"status: {len(report.findings)} error(s)")
        lines += [f"  - {finding}" for finding in report.findings]
    return "".join(f"{line}\n" for line in lines)


def report_json(report: FsckReport) -> dict[str, object]:
    """Return the JSON of ``cfsctl fsck --json``, a FsckReply."""
    return {
        "ok": report.ok,
        "has_metadata": report.has_metadata,
        "objects_checked": report.objects.checked,
        "objects_corrupted": report.objects.corrupted,
        "streams_checked": report.streams.checked,
        "streams_corrupted": report.streams.corrupted,
        "images_checked": report.images.checked,
        "images_corrupted": report.images.corrupted,
        "broken_links": report.broken_links,
        "missing_objects": report.missing_objects,
        "errors": [str(finding) for finding in report.findings],
    }


def oci_report_text(report: OciFsckReport) -> str:
    """Return the text of ``cfsctl oci fsck``."""
    lines = [f"oci images: {_ok(report.images)}"]
    if report.findings:
        lines.append(f"oci errors: {len(report.findings)}")
        lines += [f"  - {finding}" for finding in report.findings]
    return report_text(report.repository) + "".join(f"{line}\n" for line in lines)


def oci_report_json(report: OciFsckReport) -> dict[str, object]:
    """Return the JSON of ``cfsctl oci fsck --json``, an OciFsckReply."""
    return {
        "ok": report.ok,
        "images_checked": report.images.checked,
        "images_corrupted": report.images.corrupted,
        "errors": [str(finding) for finding in report.findings],
        "repo": report_json(report.repository),
    }


def _ok(count: Count) -> str:
    return f"{count.checked - count.corrupted}/{count.checked} ok"
