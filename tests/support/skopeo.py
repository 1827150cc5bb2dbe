"""Which skopeo there is."""

from __future__ import annotations

from bootc.fs import process

#: The first that serves images of local storage.
LOCAL_STORAGE = (1, 11)


def version() -> tuple[int, ...]:
    """Return the version's first two numbers."""
    text = process.run(["skopeo", "--version"]).stdout.decode().split()[2]
    return tuple(int(part) for part in text.split("-")[0].split(".")[:2])
