"""Links and names inside a repository: pure functions, no IO.

Images and streams are symlinks ``../objects/XX/REST``; a reference, which keeps
its target from garbage collection, is a symlink below ``refs/`` that climbs back
with one ``../`` for each component of its name (composefs, "Layout and locations").
Links are read and parsed here, never followed by the kernel.
"""

from __future__ import annotations

from bootc.errors import Error
from bootc.formats.digest import Digest, DigestError
from bootc.repository import layout

#: Streams, and images, that a repository can have. Memory is kept for the name of each.
MAX_ENTRIES = 1 << 18
#: References to either.
MAX_REFERENCES = 1 << 16

_LINK_PREFIX = f"../{layout.OBJECTS}/"


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


def encode_tag(tag: str) -> str:
    """Make a tag or image reference one component.

    >>> encode_tag("docker://example.com/os:1")
    'docker:%2F%2Fexample.com%2Fos:1'
    """
    return tag.replace("%", "%25").replace("/", "%2F")


def decode_tag(name: str) -> str:
    """Undo :func:`encode_tag`."""
    return name.replace("%2F", "/").replace("%25", "%")
