"""Names on disk, as constants and pure functions.

Two trees lie side by side in a physical root: the composefs repository
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
#: Which object a stream was when its content was compared with its name: links like those of
#: streams. Unknown to composefs-rs; they keep nothing.
VERIFIED = "verified"
#: What is moved out of the way; unknown to composefs-rs, and looked at by nobody.
QUARANTINE = "quarantine"

#: bootc's own state, and in it one directory for each deployment, named by its image id.
STATE = "state"
STATE_DEPLOY = f"{STATE}/deploy"
#: How the names begin of state that is being removed, beside that of deployments.
REMOVED_PREFIX = ".removed-"
#: The ``/var`` every deployment shares, and the link to it in a deployment's state.
OS_VAR = "state/os/default/var"
VAR_LINK = "../../os/default/var"


def object_path(hex_digest: str) -> str:
    """Where an object lies: its first byte is a directory."""
    return f"{OBJECTS}/{hex_digest[:2]}/{hex_digest[2:]}"


def image_path(hex_digest: str) -> str:
    """Where an EROFS image is registered."""
    return f"{IMAGES}/{hex_digest}"


def stream_path(content_id: str) -> str:
    """Where a splitstream is registered."""
    return f"{STREAMS}/{content_id}"


def link_to_object(hex_digest: str) -> str:
    """Return the target of an image's or stream's link."""
    return f"../{object_path(hex_digest)}"


def state_dir(image_id: str) -> str:
    """Where a deployment keeps its ``/etc``, its link to ``/var`` and its origin."""
    return f"{STATE_DEPLOY}/{image_id}"


def origin_name(image_id: str) -> str:
    """Name of the origin file within :func:`state_dir`."""
    return f"{image_id}.origin"
