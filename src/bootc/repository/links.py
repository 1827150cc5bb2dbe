"""Links and names inside a repository: pure functions, no IO.

Images and streams are symlinks ``../objects/XX/REST``; a reference, which keeps
its target from garbage collection, is a symlink below ``refs/`` that climbs back
with one ``../`` for each component of its name (composefs, "Layout and locations").
Links are read and parsed here, never followed by the kernel.
"""

from __future__ import annotations

import os

from bootc.errors import Error
from bootc.formats.digest import Digest, DigestError
from bootc.printable import shown
from bootc.repository import layout

#: Streams, and images, that a repository can have. Memory is kept for the name of each.
MAX_ENTRIES = 1 << 18
#: References to either.
MAX_REFERENCES = 1 << 16

#: A file name has at most so many bytes.
MAX_NAME_BYTES = 255
#: A reference is a path in the repository. The kernel takes longer ones only in parts.
_MAX_PATH = 2048

_LINK_PREFIX = f"../{layout.OBJECTS}/"


class BadName(Error):
    """A user gives something in the repository a name that it cannot have."""


class BrokenReference(Error):
    """A link in the repository has a target of the wrong form."""


def parse_object_link(target: str, where: str) -> Digest:
    """Return the object an image's or stream's link names.

    Args:
        target: The target of the link.
        where: Its path, for the message.

    Raises:
        BrokenReference: it names no object.
    """
    bucket, slash, rest = target.removeprefix(_LINK_PREFIX).partition("/")
    if target.startswith(_LINK_PREFIX) and slash and len(bucket) == 2:
        try:
            return Digest.from_hex(bucket + rest)
        except DigestError:
            pass
    raise BrokenReference(f"{where} links to {target[:200]!r}, which is no object")


def ref_target(name: str, entry: str) -> str:
    """Return the target of the link ``refs/<name>`` that refers to ``entry``."""
    return "../" * (name.count("/") + 1) + entry


def parse_ref_target(name: str, target: str, where: str) -> str:
    """Return the entry that the link ``refs/<name>`` refers to.

    Raises:
        BrokenReference: it refers to something that is not an entry.
    """
    entry = target.rpartition("/")[2]
    if target != ref_target(name, entry) or not is_entry_name(entry):
        raise BrokenReference(f"{where} links to {target[:200]!r}, which is no entry")
    return entry


def is_entry_name(name: str) -> bool:
    """Tell whether ``name`` can be an image or a stream: one component, and not ``refs``."""
    return name not in ("", ".", "..", layout.REFS) and "/" not in name and "\0" not in name


def is_ref_name(name: str) -> bool:
    """Tell whether ``name`` can be a reference: components, none of them empty or dots."""
    return "\0" not in name and all(part not in ("", ".", "..") for part in name.split("/"))


def new_ref_name(text: str, what: str) -> str:
    """Return the name of a new reference. Every name that a user gives passes this function.

    A reference that exists may have a stranger name: other programs write them, too.

    Args:
        text: The name as the user wrote it, which may begin with ``refs/``.
        what: What gets the name, for the message.

    Raises:
        BadName: a part of it is empty, only dots or longer than a file name can be, it has
            characters that are not printable, or it begins with ``refs`` twice.
    """
    name = text.removeprefix(f"{layout.REFS}/")
    if not is_ref_name(name) or name.partition("/")[0] == layout.REFS:
        raise BadName(f"{shown(text)} cannot name {what}")
    if not name.isprintable():
        raise BadName(f"{shown(text)} cannot name {what}: it has unprintable characters")
    if len(os.fsencode(name)) > _MAX_PATH or any(
        len(os.fsencode(part)) > MAX_NAME_BYTES for part in name.split("/")
    ):
        raise BadName(f"{shown(text)} cannot name {what}: it is too long")
    return name


def encode_tag(tag: str) -> str:
    """Make a tag or image reference one component.

    >>> encode_tag("docker://example.com/os:1")
    'docker:%2F%2Fexample.com%2Fos:1'
    """
    return tag.replace("%", "%25").replace("/", "%2F")


def decode_tag(name: str) -> str:
    """Undo :func:`encode_tag`."""
    return name.replace("%2F", "/").replace("%25", "%")
