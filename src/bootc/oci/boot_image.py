"""The boot image of a stored container image, made to match an expected digest."""

from __future__ import annotations

from dataclasses import dataclass

from bootc.errors import Error
from bootc.formats.digest import Digest
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.tree import Directory
from bootc.formats.verity import verity_digest
from bootc.oci.documents import write_documents
from bootc.oci.names import FORMAT_VERSIONS, XattrMode, image_name
from bootc.oci.stored import StoredImage
from bootc.oci.trees import boot_tree, stored_tree
from bootc.repository.content import objects_of
from bootc.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class BootImage:
    """A boot image, and how it was made."""

    image_id: Digest
    xattrs: XattrMode
    version: int


def match_boot_image(
    repository: Repository,
    image: StoredImage,
    expected: Digest,
    *,
    plain: Directory | None = None,
) -> BootImage | None:
    """Make the boot image that has the expected digest, and return how it was made.

    The function tries every mode of extended attributes with every format version. A digest that
    the repository has on record for another image rules nothing out: an older program may have
    made that image by other rules.

    Args:
        repository: The repository; writable.
        image: The stored image.
        expected: The digest.
        plain: The plain tree of the image in the default mode, if the caller has it. Otherwise
            the function puts the layers together.

    Raises:
        Error, OSError: the stored image is damaged, or it is not bootable.
    """
    for xattrs in XattrMode:
        for version in FORMAT_VERSIONS:
            name = image_name(version, bootable=True, xattrs=xattrs)
            if image.images.get(name) == expected and _is_whole(repository, expected):
                return BootImage(expected, xattrs, version)
    for xattrs in XattrMode:
        root = plain if xattrs is XattrMode.ALLOWLIST_ONLY else None
        if root is None:
            root = stored_tree(repository, image.documents.diff_ids, xattrs)
        booted = boot_tree(repository, root)
        for version in FORMAT_VERSIONS:
            data = mkfs_erofs(booted, version=version)
            if verity_digest(data, repository.algorithm) == expected:
                name = image_name(version, bootable=True, xattrs=xattrs)
                made = {name: repository.images.add(data)}
                write_documents(repository, image.documents, made)
                return BootImage(expected, xattrs, version)
    return None


def _is_whole(repository: Repository, image: Digest) -> bool:
    """Tell whether an image can be mounted: it has a link, and no object is missing."""
    if not repository.images.exists(image):
        return False
    try:
        return not repository.objects.missing(objects_of(repository.objects, image))
    except (Error, FileNotFoundError):
        return False
