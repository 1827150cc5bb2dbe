"""The outcome of ``fsck --repair``, for people and for programs.

``cfsctl`` has no repair, so text and JSON are bootc's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bootc.printable import printable

if TYPE_CHECKING:
    from bootc.oci.repair import RepairedImages
    from bootc.repository.repair import Repaired

_NOTHING = "nothing to repair\n"


def repaired_text(repaired: Repaired) -> str:
    """Return the repair of a repository for people, one line for each thing."""
    lines = [f"quarantined: {digest}" for digest in repaired.quarantined]
    lines += [f"quarantined: {printable(path)}" for path in repaired.moved]
    lines += [f"relinked: {printable(path)}" for path in repaired.relinked]
    lines += [f"resealed: {digest}" for digest in repaired.resealed]
    lines += [f"set aside: {printable(name)}" for name in repaired.set_aside]
    for digest, paths in repaired.needed_by.items():
        lines.append(f"missing: {digest}")
        lines += [f"  needed by {printable(path)}" for path in paths]
    # The lines above name the missing objects already.
    others = [finding for finding in repaired.left if finding.digest not in repaired.needed_by]
    lines += [f"left: {finding}" for finding in others]
    return "".join(f"{line}\n" for line in lines) or _NOTHING


def repaired_json(repaired: Repaired) -> dict[str, object]:
    """Return the repair of a repository for programs.

    ``quarantined`` has objects, by digest, and other files, by their former path.
    """
    return {
        "quarantined": [*map(str, repaired.quarantined), *repaired.moved],
        **({"relinked": list(repaired.relinked)} if repaired.relinked else {}),
        "resealed": [str(digest) for digest in repaired.resealed],
        "set_aside": list(repaired.set_aside),
        "needed_by": {str(digest): list(paths) for digest, paths in repaired.needed_by.items()},
        "left": [str(finding) for finding in repaired.left],
    }


def repaired_images_text(repaired: RepairedImages) -> str:
    """Return the repair of a repository and its images for people."""
    lines = [f"set aside: {printable(name)}" for name in repaired.set_aside]
    lines += [f"left: {finding}" for finding in repaired.left]
    lines += [f"pull again: {printable(tag)}" for tag in repaired.pull_again]
    text = "".join(f"{line}\n" for line in lines)
    if repaired.repository is not None:
        return repaired_text(repaired.repository) + text
    return text or _NOTHING


def repaired_images_json(repaired: RepairedImages) -> dict[str, object]:
    """Return the repair of a repository and its images for programs.

    The keys are those of :func:`repaired_json`. ``pull_again`` has the tags to pull.
    """
    set_aside, left = list(repaired.set_aside), [str(finding) for finding in repaired.left]
    found: dict[str, object] = {"quarantined": [], "resealed": [], "needed_by": {}}
    found |= {"set_aside": [], "left": []}
    if repaired.repository is not None:
        found |= repaired_json(repaired.repository)
        set_aside = [*repaired.repository.set_aside, *set_aside]
        left = [*map(str, repaired.repository.left), *left]
    return {**found, "set_aside": set_aside, "left": left, "pull_again": [*repaired.pull_again]}
