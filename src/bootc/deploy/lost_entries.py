"""Finding the kernel of a deployment whose boot entry was lost.

A lost entry no longer tells which kernel it booted. The kernel is identified by its content,
because a deployment may share a kernel that another deployment brought, and of which nothing
else is left.
"""

from __future__ import annotations

from collections.abc import Sequence

from bootc.boot import scheme as schemes
from bootc.boot.artifacts import Artifact
from bootc.boot.kernels import find_shared_kernel
from bootc.boot.scheme import BootDirs
from bootc.deploy.host.facts import Facts
from bootc.formats.digest import Digest
from bootc.formats.origin import BootType


def lost_kernels(dirs: BootDirs, facts: Facts, artifacts: Sequence[Artifact]) -> frozenset[str]:
    """Return the names of the kernels that must be kept although no entry names them.

    Kernels are read and hashed, but only if an entry is lost.
    """
    running = facts.booted.image_id
    kept = {running, *(i for i, state in facts.states.items() if state.pinned)}
    lost = [deployment for deployment in kept if facts.active_item(deployment) is None]
    found = {find_lost_kernel(dirs, facts, deployment, artifacts) for deployment in lost}
    # Their own kernels in any case: one may have an old name or a changed content.
    return frozenset({*(name for name in found if name), *(i.hex for i in lost)})


def find_lost_kernel(
    dirs: BootDirs, facts: Facts, deployment: Digest, artifacts: Sequence[Artifact]
) -> str | None:
    """Return the name of the kernel for a new entry of a deployment that lost its own."""
    origin, own = facts.origin(deployment), deployment.hex
    if origin is None:
        return None
    if origin.boot_type is BootType.ABOOT:
        return None  # It was in its partition only.
    if origin.boot_type is BootType.UKI:
        return own if _is_there(f"{schemes.UKIS}/{schemes.uki_file(own)}", artifacts) else None
    if origin.boot_digest is None:
        path = dirs.scheme.kernel_path(schemes.kernel_dir(own))
        return own if _is_there(path, artifacts) else None
    names = sorted((artifact.name for artifact in artifacts), key=lambda name: name != own)
    return find_shared_kernel(dirs, origin.boot_digest, names)


def _is_there(path: str, artifacts: Sequence[Artifact]) -> bool:
    return any(artifact.path == path for artifact in artifacts)
