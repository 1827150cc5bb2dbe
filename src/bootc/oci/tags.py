"""Tags of the container images in a repository: ``streams/refs/oci/``.

A tag is a link to the stream of a manifest. It keeps the image from being garbage. The
manifests that refer to an image (signatures and the like) have links of their own, in
``streams/refs/oci-referrers/``.
"""

from __future__ import annotations

import logging
import os

from bootc.errors import Error, doing
from bootc.formats.digest import DigestError, OciDigest
from bootc.oci.names import manifest_id, manifest_of, tag_ref
from bootc.printable import shown
from bootc.repository import layout
from bootc.repository.links import (
    MAX_NAME_BYTES,
    MAX_REFERENCES,
    BadName,
    decode_tag,
    encode_tag,
    is_ref_name,
    new_ref_name,
)
from bootc.repository.repository import Repository

_log = logging.getLogger(__name__)

#: Where a message sends users who named an image that does not exist.
LIST_HINT = "bootc internals cfs oci images lists the images"

_REFS = f"{layout.STREAMS}/{layout.REFS}"
_TAGS = f"{_REFS}/oci"
_REFERRERS = f"{_REFS}/oci-referrers"


class NotStored(Error):
    """The repository has no such image."""


class BadTag(Error):
    """A tag that no image can have."""


def tag_names(repository: Repository) -> list[str]:
    """Return the names of all tags, sorted, no matter what they refer to."""
    try:
        with repository.dir.open_dir(_TAGS) as tags:
            return sorted(decode_tag(name) for name in tags.names(MAX_REFERENCES))
    except (FileNotFoundError, NotADirectoryError):
        # The check of the repository reports a file in the place of this directory.
        return []


def tag_target(repository: Repository, tag: str) -> str:
    """Return the target of the link that is a tag, unchanged.

    Raises:
        OSError: there is no such tag, or it is not a link.
        ValueError: the tag cannot be a name of a file.
    """
    return repository.dir.readlink(f"{_TAGS}/{encode_tag(tag)}")


def tagged(repository: Repository, tag: str) -> OciDigest:
    """Return the digest of the manifest that a tag refers to; the manifest may be missing.

    Raises:
        BadTag: no image can have this tag.
        NotStored: there is no such tag, or it does not refer to a manifest.
    """
    require_tag(tag)
    try:
        with doing(f"Looking up the tag {tag!r}"):
            target = tag_target(repository, tag)
    except FileNotFoundError as exc:
        raise NotStored(f"no image is tagged {tag!r}", hint=LIST_HINT) from exc
    digest = manifest_of(target.rpartition("/")[2])
    if digest is None:
        raise NotStored(f"the tag {tag!r} refers to {target[:200]!r}, which is not a manifest")
    return digest


def require_tag(tag: str) -> None:
    """Refuse a name that cannot be a tag.

    Raises:
        BadTag: the name starts with ``@``, or is not a valid file name even when encoded.
    """
    if tag.startswith("@"):
        raise BadTag(f"bad tag {tag!r:.300}: a leading '@' is reserved for digests")
    if not is_ref_name(tag_ref(tag)) or len(os.fsencode(encode_tag(tag))) > MAX_NAME_BYTES:
        raise BadTag(f"bad tag {tag!r:.300}")


def require_new_tag(tag: str) -> None:
    """Refuse a name that no image gets as a tag.

    An image may have it already: other programs are less strict.

    Raises:
        BadTag: as :func:`require_tag`, or the name has characters that are not printable.
    """
    require_tag(tag)
    try:
        new_ref_name(tag_ref(tag), "an image")
    except BadName:
        raise BadTag(f"bad tag {shown(tag)}: it has unprintable characters") from None


def require_stored(repository: Repository, digest: OciDigest) -> None:
    """Make sure that the repository has the manifest of an image.

    Raises:
        NotStored: it has no such manifest.
    """
    if not repository.streams.exists(manifest_id(digest)):
        raise NotStored(f"there is no image {digest}", hint=LIST_HINT)


def tag_image(repository: Repository, digest: OciDigest, tag: str) -> None:
    """Give an image a tag. If another image has this tag, it loses it.

    Raises:
        BadTag: as :func:`require_new_tag`.
        NotStored: there is no such image.
    """
    require_new_tag(tag)
    require_stored(repository, digest)
    repository.streams.set_ref(tag_ref(tag), manifest_id(digest))


def untag_image(repository: Repository, tag: str) -> None:
    """Remove a tag. The next garbage collection removes the image if nothing else keeps it.

    Raises:
        BadTag: no image can have this tag.
        NotStored: no image has this tag.
    """
    require_tag(tag)
    try:
        repository.streams.remove_ref(tag_ref(tag))
    except FileNotFoundError as exc:
        raise NotStored(f"no image is tagged {tag!r}", hint=LIST_HINT) from exc


def referrers(repository: Repository, digest: OciDigest) -> tuple[OciDigest, ...]:
    """Return the manifests of signatures and the like that refer to an image."""
    found = []
    try:
        with repository.dir.open_dir(f"{_REFERRERS}/{encode_tag(str(digest))}") as below:
            names = below.names(MAX_REFERENCES)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    for name in names:
        try:
            found.append(OciDigest.parse(decode_tag(name)))
        except DigestError:
            _log.warning("ignoring %s/%s/%r: the name is not a digest", _REFERRERS, digest, name)
    return tuple(found)
