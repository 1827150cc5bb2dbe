"""The report of a garbage collection, in the words of ``cfsctl gc``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bootc.repository.gc import GcReport


def collection_text(report: GcReport) -> str:
    """Return the report for people, with a newline at the end."""
    text = f"Objects: {report.objects_removed} removed ({report.objects_bytes} bytes)\n"
    if report.images_pruned or report.streams_pruned:
        images, streams = report.images_pruned, report.streams_pruned
        text += f"Pruned symlinks: {images} images, {streams} streams\n"
    return text
