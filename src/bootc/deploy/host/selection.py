"""Finding a deployment by its id, by the first digits of its id, or by the part it plays."""

from __future__ import annotations

import re

from bootc.deploy.host.facts import Facts
from bootc.deploy.plan.reorder import DeploymentNotFound
from bootc.errors import Error
from bootc.formats.digest import Digest

#: Fewer digits would match by accident too easily.
MIN_PREFIX = 6
_PREFIX = re.compile(rf"[0-9a-f]{{{MIN_PREFIX},}}\Z")
#: The parts that a deployment can play.
PARTS = ("booted", "staged", "rollback")
_HINT = "bootc status --verbose shows the ids"


class AmbiguousDeployment(Error):
    """The text matches several deployments."""


def find_deployment(facts: Facts, text: str) -> Digest:
    """Return the deployment that a user names.

    Args:
        facts: The system.
        text: ``booted``, ``staged``, ``rollback``, or at least the first six digits of the id,
            or of another image that the deployment names.

    Raises:
        DeploymentNotFound: no deployment matches.
        AmbiguousDeployment: several deployments match; more digits are needed.
    """
    if text in PARTS:
        found = deployment_as(facts, text)
        if found is None:
            raise DeploymentNotFound(f"there is no {text} deployment")
        return found
    if not _PREFIX.match(text):
        raise DeploymentNotFound(
            f"{text!r} is no deployment ID",
            hint=f"give at least {MIN_PREFIX} of its digits, or one of: {', '.join(PARTS)}",
        )
    known = {*facts.states, *facts.bootable(), facts.booted.image_id}
    matching = sorted(known, key=lambda deployment: deployment.hex)
    matching = [
        deployment
        for deployment in matching
        if any(image.hex.startswith(text) for image in facts.images_of(deployment))
    ]
    if not matching:
        raise DeploymentNotFound(f"Deployment ID not found: {text}", hint=_HINT)
    if len(matching) > 1:
        raise AmbiguousDeployment(
            f"{len(matching)} deployments have an ID that begins with {text}",
            hint="give more of its digits",
        )
    return matching[0]


def deployment_as(facts: Facts, part: str) -> Digest | None:
    """Return the deployment that plays one of :data:`PARTS`, as ``bootc status`` shows it."""
    if part == "booted":
        return facts.booted.image_id
    if part == "staged":
        return facts.staged_id()
    taken = (facts.booted.image_id, facts.staged_id())
    return next((found for found in facts.bootable() if found not in taken), None)
