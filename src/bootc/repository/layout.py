"""Names on disk, as constants and pure functions.

A physical root has two trees side by side: the composefs repository
(composefs, "Repository layout") and bootc's deployment state. Paths of repository
things are relative to the repository, paths of state to the physical root.
The initramfs reads this file too: it imports nothing.
"""

from __future__ import annotations

#: The repository, below the physical root.
REPOSITORY = "composefs"
REPOSITORY_MODE = 0o700

META = "meta.json"
OBJECTS = "objects"
IMAGES = "images"
STREAMS = "streams"
REFS = "refs"
#: Marks of streams whose content was compared with their name: links to the compared object,
#: like those of streams. composefs-rs does not know them. They keep nothing from collection.
VERIFIED = "verified"
#: Damaged files that a repair moved out of the way. No program reads them.
QUARANTINE = "quarantine"

#: bootc's own state, and in it one directory for each deployment, named by its image id.
STATE = "state"
STATE_DEPLOY = f"{STATE}/deploy"
#: Prefix of directories that were the state of a deployment and are being removed.
REMOVED_PREFIX = ".removed-"
#: The ``/var`` every deployment shares, and the link to it in a deployment's state.
OS_VAR = "state/os/default/var"
VAR_LINK = "../../os/default/var"


def object_path(hex_digest: str) -> str:
    """Return the path of an object. The first byte of its digest is a directory."""
    return f"{OBJECTS}/{hex_digest[:2]}/{hex_digest[2:]}"


def image_path(hex_digest: str) -> str:
    """Return the path of an EROFS image's link."""
    return f"{IMAGES}/{hex_digest}"


def stream_path(content_id: str) -> str:
    """Return the path of a splitstream's link."""
    return f"{STREAMS}/{content_id}"


def link_to_object(hex_digest: str) -> str:
    """Return the target of an image's or stream's link."""
    return f"../{object_path(hex_digest)}"


def state_dir(image_id: str) -> str:
    """Return the directory of a deployment's ``/etc``, its link to ``/var`` and its origin."""
    return f"{STATE_DEPLOY}/{image_id}"


def origin_name(image_id: str) -> str:
    """Return the name of the origin file within :func:`state_dir`."""
    return f"{image_id}.origin"
