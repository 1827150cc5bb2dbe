"""The images that a unified kernel image names, in the repository.

A UKI names its image by one digest or by several: the tree of its container in several versions
of the image format. The initramfs boots the first that the repository has. Therefore bootc makes
each of them. If a digest belongs to no image that can be made of the container, the UKI would
boot something else, and bootc refuses it.
"""

from __future__ import annotations

import dataclasses
from typing import NoReturn

from bootc.boot.image_kernel import UkiFile
from bootc.boot.uki import WrongUki, check_names
from bootc.errors import doing
from bootc.formats.cmdline import ComposefsArgument, ComposefsImages
from bootc.formats.digest import Digest
from bootc.oci.boot_image import match_boot_image
from bootc.oci.pull import Pulled
from bootc.oci.stored import read_image
from bootc.repository.repository import Repository


def make_named_images(
    repository: Repository, pulled: Pulled, uki: UkiFile, images: ComposefsImages
) -> Pulled:
    """Make every image that a UKI names, and return the pulled image with the deployment's id.

    The modes of extended attributes and the format versions are tried until the digest fits.

    Args:
        repository: The repository; writable.
        pulled: The container of the UKI.
        uki: The UKI.
        images: The images that the UKI names.

    Raises:
        WrongUki: a digest belongs to no image of the container.
        Error, OSError: the stored image is damaged, or writing failed.
    """
    with doing(f"Reading {uki.path} of the image"):
        for argument in images.arguments:
            expected = Digest.from_hex(argument.hex)
            if expected == pulled.image_id:
                continue
            stored = read_image(repository, pulled.manifest_digest)
            if match_boot_image(repository, stored, expected, plain=pulled.root) is None:
                _refuse(argument, images, pulled.image_id)
    return dataclasses.replace(pulled, image_id=Digest.from_hex(images.deployment))


def _refuse(argument: ComposefsArgument, images: ComposefsImages, image_id: Digest) -> NoReturn:
    if argument.hex == images.deployment:
        check_names(images, image_id)
    raise WrongUki(
        f"The UKI has the wrong parameter {argument.karg}: "
        "no image of its container has this digest",
        hint="build the image again: it was changed after its kernel image was made",
    )
