"""Things that others leave where a repository, a menu or deployments are kept."""

from __future__ import annotations

import os
from pathlib import Path

from support.machine import FakeMachine

#: Links that are none of a repository's, by name.
_LINKS = {
    "elsewhere": "../../../elsewhere/x",
    "dangling": "/nowhere/at/all",
    "loop": ".",
    "not-utf8-\udcff": "\udcff",
}
#: What :func:`plant_in_refs` makes, by its name.
FOREIGN_REFS = ("elsewhere", "dangling", "file", "loop", "pipe", "not-utf8-\udcff")


def plant_in_refs(directory: Path, *, pipe: bool = True) -> None:
    """Make things in a directory of references that are no references."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, target in _LINKS.items():
        if not os.path.lexists(directory / name):
            (directory / name).symlink_to(target)
    (directory / "file").write_text("no link")
    if pipe and not (directory / "pipe").exists():
        os.mkfifo(directory / "pipe")


#: Where others may leave things, below the directory of a simulated machine.
PLACES = ("refs", "streams", "images", "objects", "deployments", "state", "kernels", "ukis")


def plant(machine: FakeMachine, place: str) -> None:
    """Leave some things in one of :data:`PLACES`."""
    repository, deployments = machine.physical / "composefs", machine.physical / "state/deploy"
    match place:
        case "refs":
            for kind in ("streams", "images"):
                plant_in_refs(repository / kind / "refs/oci", pipe=False)
                plant_in_refs(repository / kind / "refs", pipe=False)
        case "streams" | "images":
            plant_in_refs(repository / place, pipe=False)
        case "objects":
            (repository / "objects/ab").mkdir(exist_ok=True)
            (repository / "objects/ab/notes").write_text("")
            (repository / "objects/lost+found").mkdir(exist_ok=True)
        case "deployments":
            plant_in_refs(deployments, pipe=False)
            (deployments / "lost+found").mkdir(exist_ok=True)
        case "state":
            plant_in_refs(deployments.parent, pipe=False)
        case "kernels" | "ukis":
            root, scheme = machine.binaries_root, machine.scheme
            below = root / (scheme.kernels if place == "kernels" else "EFI/Linux/bootc")
            (below / "other/deep").mkdir(parents=True, exist_ok=True)
            (below / "other.efi").write_text("another system's")
            (below / "other/deep/vmlinuz").write_text("another system's")
