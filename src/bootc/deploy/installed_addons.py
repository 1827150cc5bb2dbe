"""Whose the add-ons of a deployment are, and which of them its successor gets.

An add-on beside the unified kernel image (UKI) of a deployment is the image's, if the image has
the same file under this name. Otherwise it is the administrator's. There is no other record: the
file on the boot partition and what it means change in one step. The successor of a deployment gets

* the image's add-ons of the same names, in the version of the new image,
* and the administrator's, as they are. An add-on of the new image with the same name stays out,
  because nobody chose it.

An image without a UKI gets none of them, which is a warning.
"""

from __future__ import annotations

import dataclasses
import enum
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from bootc.boot.addons import (
    InstalledAddon,
    WrongAddon,
    check_content,
    list_addons,
    why_skipped,
)
from bootc.boot.image_content import ObjectSource, open_content, size_of
from bootc.boot.image_kernel import UkiFile
from bootc.boot.menu_read import program_of
from bootc.boot.scheme import UKIS, addons_dir, uki_file
from bootc.deploy.global_addons import ukis_of
from bootc.deploy.host.facts import Facts
from bootc.deploy.host.session import HostAccess
from bootc.errors import Error, doing, one_line
from bootc.formats.digest import Digest
from bootc.formats.pe import Uki
from bootc.formats.tree import Inline, Leaf, Stat
from bootc.printable import printable

_log = logging.getLogger(__name__)


class Owner(enum.StrEnum):
    """Who put an add-on on the boot partition."""

    IMAGE = "image"
    ADMINISTRATOR = "administrator"


@dataclass(frozen=True, slots=True)
class CarriedAddons:
    """The add-ons that a new deployment gets from its predecessor.

    Attributes:
        uki: The UKI of the new image, with those of its own add-ons that the predecessor has.
        own: The add-ons of the administrator.
    """

    uki: UkiFile
    own: tuple[InstalledAddon, ...]

    def with_own(self, objects: ObjectSource, *, sealed: bool) -> UkiFile:
        """Return the UKI with all add-ons. One that the new stub will skip is a warning.

        Args:
            objects: The content of the UKI.
            sealed: The new UKI is sealed.

        Raises:
            Error: one of the administrator must not be there.
            PeError, OSError: the UKI cannot be read.
        """
        addons = dict(self.uki.addons)
        for addon in self.own:
            assert addon.content is not None, "an add-on that cannot be read is not carried over"
            try:
                with doing(f"UKI add-on {printable(addon.name)}"):
                    check_content(addon.content, sealed=sealed)
            except Error as exc:
                exc.hint = _removal(addon)
                raise
            with open_content(self.uki.leaf, objects) as file:
                why = why_skipped(Uki.read(file).first_profile(), addon.content)
            if why is not None:
                _log.warning("the new deployment will skip add-on %s: %s", addon.name, why)
            addons[addon.name] = Leaf(Stat(mode=0o644), Inline(addon.data))
        return dataclasses.replace(self.uki, addons=addons)


def home_of(facts: Facts, deployment: Digest) -> str:
    """Return the directory of the add-ons of a deployment on the boot partition."""
    item = facts.active_item(deployment) or facts.staged_item(deployment)
    program = None if item is None else program_of(item.entry)
    return addons_dir((program or f"{UKIS}/{uki_file(deployment.hex)}").lstrip("/"))


def next_deployment(facts: Facts) -> Digest:
    """Return the staged deployment, or the booted one if none is staged."""
    return facts.staged_id() or facts.booted.image_id


def image_addons(system: HostAccess, facts: Facts, deployment: Digest) -> Mapping[str, Leaf] | None:
    """Return the add-ons in the image of a deployment, by file name; None if it cannot be read."""
    try:
        found = ukis_of(system.repository, facts, deployment)
    except (Error, OSError) as exc:
        _log.debug("the add-ons of the image are unknown: %s", one_line(exc))
        return None
    return {name: leaf for uki in found for name, leaf in uki.addons.items()}


def owner_of(
    addon: InstalledAddon, image: Mapping[str, Leaf] | None, objects: ObjectSource
) -> Owner | None:
    """Return whose an add-on beside a UKI is; None if the image is unknown."""
    if image is None:
        return None
    leaf = image.get(addon.name)
    if leaf is None:
        return Owner.ADMINISTRATOR
    # A damaged file is the image's, so that the next update repairs it.
    if addon.content is None or _is_same(addon, leaf, objects):
        return Owner.IMAGE
    return Owner.ADMINISTRATOR


def carried_addons(system: HostAccess, facts: Facts, uki: UkiFile) -> CarriedAddons:
    """Return the add-ons that the deployment of a new image gets.

    Args:
        system: The host.
        facts: The facts about it.
        uki: The UKI of the new image, with all add-ons.

    Raises:
        WrongAddon: an add-on of the administrator cannot be read.
        OSError: the add-ons cannot be read.
    """
    deployment = next_deployment(facts)
    found = list_addons(system.boot.binaries, home_of(facts, deployment))
    image = image_addons(system, facts, deployment) if found else None
    chosen: set[str] = set()
    own: list[InstalledAddon] = []
    for addon in found:
        owner = owner_of(addon, image, system.repository.objects)
        if owner is Owner.IMAGE or (owner is None and addon.name in uki.addons):
            chosen.add(addon.name)
        elif addon.content is not None:
            own.append(addon)
        elif addon.data:
            # Neither firmware nor stub use it.
            _log.warning("%s is not carried over: %s", addon.path, addon.problem)
        else:
            text = f"UKI add-on {printable(addon.name)} cannot be carried over: {addon.problem}"
            raise WrongAddon(text, hint=_removal(addon))
    taken = {addon.name.lower() for addon in own}
    return CarriedAddons(
        uki.with_addons([name for name in chosen if name.lower() not in taken]), tuple(own)
    )


def warn_of_lost_addons(system: HostAccess, facts: Facts) -> None:
    """Warn of add-ons of the administrator that an image without a UKI cannot have.

    Raises:
        OSError: the add-ons cannot be read.
    """
    deployment = next_deployment(facts)
    found = list_addons(system.boot.binaries, home_of(facts, deployment))
    image = image_addons(system, facts, deployment) if found else None
    for addon in found:
        if owner_of(addon, image, system.repository.objects) is not Owner.IMAGE:
            _log.warning(
                "add-on %s is not carried over: the new image has no unified kernel image",
                printable(addon.name),
            )


def _removal(addon: InstalledAddon) -> str:
    return f"remove it: bootc addon remove {printable(addon.name)}"


def _is_same(addon: InstalledAddon, leaf: Leaf, objects: ObjectSource) -> bool:
    if size_of(leaf) != len(addon.data):
        return False
    with open_content(leaf, objects) as file:
        return file.read(len(addon.data) + 1) == addon.data
