"""Which global add-ons of unified kernel images a clean-up keeps.

A global add-on changes the boot of all deployments. It is garbage when no deployment's image has
it any more. The layers of the images tell, since a deployed tree has no ``/boot``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from bootc.boot.artifacts import Artifact
from bootc.boot.image_kernel import UkiFile, find_ukis
from bootc.deploy.host.facts import Facts
from bootc.deploy.plan.cleanup import live_deployments
from bootc.errors import Error, one_line
from bootc.formats.digest import Digest
from bootc.formats.origin import BootType
from bootc.oci.stored import read_image
from bootc.oci.trees import config_tree
from bootc.repository.repository import Repository

_log = logging.getLogger(__name__)


def needed_addons(
    repository: Repository, facts: Facts, addons: Sequence[Artifact]
) -> frozenset[str]:
    """Return the names of the global add-ons that must be kept.

    This reads the layers of all deployments, but only if there is such an add-on. If an image
    cannot be read, all add-ons are kept.
    """
    if not addons:
        return frozenset()
    deployments = live_deployments(facts) | {item.deployment for item in facts.staged.items}
    found: set[str] = set()
    for deployment in deployments:
        try:
            found |= _addons_of(repository, facts, deployment)
        except (Error, OSError) as exc:
            _log.debug("all global add-ons are kept: %s", one_line(exc))
            return frozenset(addon.name for addon in addons)
    return frozenset(found)


def _addons_of(repository: Repository, facts: Facts, deployment: Digest) -> set[str]:
    return {name for uki in ukis_of(repository, facts, deployment) for name in uki.global_addons}


def ukis_of(repository: Repository, facts: Facts, deployment: Digest) -> list[UkiFile]:
    """Return the unified kernel images in the image of a deployment, each with all add-ons.

    This reads the layers of the image.

    Raises:
        Error, OSError: the image is unknown or cannot be read.
    """
    origin = facts.origin(deployment)
    if origin is not None and origin.boot_type is BootType.BLS:
        return []
    if origin is None or origin.manifest_digest is None:
        raise Error(f"the image of deployment {deployment} is unknown")
    image = read_image(repository, origin.manifest_digest)
    tree = config_tree(repository, image.stored_config, bootable=False, trusted=True)
    return find_ukis(tree)
