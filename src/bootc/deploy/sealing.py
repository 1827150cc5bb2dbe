"""Unified kernel images (UKIs) of new deployments, and the demands of sealed images.

Installations and updates accept the UKI of a pulled image only through :func:`check_uki`. A UKI
names its image by one digest or by several: the tree of its container in several versions of the
image format. The initramfs boots the first that the repository has. Therefore bootc makes each of
them. If a digest belongs to no image that can be made of the container, the UKI would boot
something else. bootc refuses it and explains the difference.

A UKI without ``?`` in its digests is sealed. It may boot in parts only if the user gave up the seal
(:func:`take_uki_apart`), and whole only if every object has fs-verity (:func:`require_verity`).
``docs/reference/sealed-images.md`` is the specification.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from bootc.boot.image_kernel import UkiFile
from bootc.boot.uki import UkiFacts, WrongUki, check_names
from bootc.boot.uki_parts import UkiParts, take_apart
from bootc.errors import doing
from bootc.formats.cmdline import ComposefsArgument
from bootc.formats.digest import Digest
from bootc.formats.origin import TakesApart
from bootc.formats.tree import External, Leaf
from bootc.oci.boot_image import match_boot_image
from bootc.oci.mismatch import explain_mismatch
from bootc.oci.pull import Pulled
from bootc.oci.stored import StoredImage, read_image
from bootc.repository.adoption import find_without_verity
from bootc.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class CheckedUki:
    """A UKI whose digests all belong to its container.

    Attributes:
        uki: The UKI with the add-ons to use.
        facts: Its facts.
        pulled: The container, with the id of the deployment.
    """

    uki: UkiFile
    facts: UkiFacts
    pulled: Pulled

    @property
    def sealed(self) -> bool:
        """Whether the image is sealed."""
        return self.facts.sealed


def check_uki(repository: Repository, pulled: Pulled, uki: UkiFile, facts: UkiFacts) -> CheckedUki:
    """Make every image that a UKI names, and return the container with the deployment's id.

    The modes of extended attributes and the format versions are tried until the digest fits.

    Args:
        repository: The repository; writable.
        pulled: The container of the UKI.
        uki: The UKI with the add-ons to use.
        facts: The result of :func:`~bootc.boot.uki.inspect_uki`.

    Raises:
        WrongUki: a digest belongs to no image of the container. The hint says why, as far as that
            can be found out.
        Error, OSError: the stored image is damaged, or writing failed.
    """
    with doing(f"Reading {uki.path} of the image"):
        for argument in facts.images.arguments:
            expected = Digest.from_hex(argument.hex)
            if expected == pulled.image_id:
                continue
            stored = read_image(repository, pulled.manifest_digest)
            if match_boot_image(repository, stored, expected, plain=pulled.root) is None:
                _refuse(repository, pulled, stored, uki, facts, argument)
    image_id = Digest.from_hex(facts.images.deployment)
    return CheckedUki(uki, facts, dataclasses.replace(pulled, image_id=image_id))


def take_uki_apart(repository: Repository, checked: CheckedUki, which: TakesApart) -> UkiParts:
    """Take a checked UKI apart, for a boot entry of its parts.

    Raises:
        CannotTakeApart: it is sealed and the user did not give up the seal, or an entry cannot do
            what it does.
        PeError, CmdlineError: it is malformed.
        OSError: reading failed.
    """
    return take_apart(checked.uki, repository.objects, which, sealed=checked.sealed)


def require_verity(repository: Repository, checked: CheckedUki) -> None:
    """Refuse a sealed image that would not boot whole, because an object has no fs-verity.

    Every object of a secure repository has it. Objects of another repository have it if the file
    system can.

    Raises:
        WrongUki: an object has no fs-verity.
        Error, OSError: an object is missing or damaged.
    """
    if repository.secure or not checked.sealed:
        return
    lacking = find_without_verity(repository, _objects_of(checked))
    if lacking is not None:
        raise WrongUki(
            "the image's UKI demands fs-verity, and this system stores objects without, "
            f"{lacking} for one",
            hint="install again on a file system with fs-verity, "
            "or build the image with composefs=? in the UKI's command line",
        )


def _objects_of(checked: CheckedUki) -> Iterator[Digest]:
    yield from map(Digest.from_hex, checked.facts.images.hexes)
    for _, node in checked.pulled.root.walk():
        if isinstance(node, Leaf) and isinstance(node.content, External):
            yield node.content.digest


def _refuse(
    repository: Repository,
    pulled: Pulled,
    stored: StoredImage,
    uki: UkiFile,
    facts: UkiFacts,
    argument: ComposefsArgument,
) -> NoReturn:
    found = explain_mismatch(
        repository,
        pulled.root,
        Digest.from_hex(argument.hex),
        uki_path=uki.path,
        diff_ids=stored.documents.diff_ids,
    )
    if argument.hex == facts.images.deployment:
        check_names(facts.images, pulled.image_id, hint=found.text)
    raise WrongUki(
        f"The UKI has the wrong parameter {argument.karg}: "
        "no image of its container has this digest",
        hint=found.text,
    )
