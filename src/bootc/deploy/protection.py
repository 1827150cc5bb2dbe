"""The protection that a machine would lose by an update, in words.

Two properties of a deployment count (``docs/explanation/trust.md``). Its kernel arguments are
in a unified kernel image, which a signature can cover, or in a menu entry, which no signature
covers. And they require fs-verity, or tolerate that it is missing (``composefs=?``). If the booted
deployment requires fs-verity, an update that loses a property is refused, unless the user asked
for it by name. Otherwise commands report the loss. All functions are pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bootc.deploy.host.facts import Facts
from bootc.errors import Error
from bootc.formats import bls, cmdline
from bootc.formats.cmdline import CmdlineError
from bootc.formats.digest import Digest


class ProtectsLess(Error):
    """An image protects less than the booted deployment, which requires fs-verity."""


@dataclass(frozen=True, slots=True)
class Protection:
    """How a deployment is protected.

    Attributes:
        unified: It boots a unified kernel image.
        strict: It requires fs-verity; None if that cannot be read.
    """

    unified: bool
    strict: bool | None


def booted_protection(facts: Facts) -> Protection:
    """Return the protection of the booted deployment."""
    return Protection(
        unified=facts.scheme.boot_type.is_unified,
        strict=not facts.booted.missing_verity_allowed,
    )


def staged_losses(facts: Facts) -> list[str]:
    """Return what the staged deployment would lose of the booted one's protection, as phrases."""
    staged = facts.staged_id()
    origin = None if staged is None else facts.origin(staged)
    if staged is None or origin is None:
        return []
    unified = origin.boot_type.is_unified
    optional = missing_verity_allowed(facts, staged)
    return losses(facts, Protection(unified, None if optional is None else not optional))


def losses(facts: Facts, then: Protection) -> list[str]:
    """Return what a deployment would lose of the booted one's protection, as phrases."""
    return list(_losses(booted_protection(facts), then))


def check_losses(facts: Facts, lost: Sequence[str], *, allowed: bool) -> bool:
    """Refuse to lose protection if the booted deployment requires fs-verity.

    Args:
        facts: The facts of the system.
        lost: What the next deployment would lose, as phrases.
        allowed: The user asked for less protection by name.

    Returns:
        Whether the loss needed the consent of the user.

    Raises:
        ProtectsLess: the user did not ask for it.
    """
    if not (lost and booted_protection(facts).strict):
        return False
    if not allowed:
        raise ProtectsLess(
            f"the new image protects less than the booted one: {'; '.join(lost)}",
            hint="use a sealed image, or accept less protection by name: --allow-weaker",
        )
    return True


def notice(loss: str) -> str:
    """Return the line that tells of a loss."""
    return f"notice: the new image protects less than the booted one: {loss}"


def missing_verity_allowed(facts: Facts, deployment: Digest) -> bool | None:
    """Tell whether a deployment's own arguments tolerate missing fs-verity, if they can be read."""
    # If the staged deployment has two entries, the one of the staged menu counts.
    item = facts.staged_item(deployment) if deployment == facts.staged_id() else None
    item = item or facts.active_item(deployment) or facts.staged_item(deployment)
    if item is None or not isinstance(item.entry, bls.Entry) or item.entry.linux is None:
        uki = facts.ukis.get(deployment)
        return None if uki is None else uki.optional
    try:
        return cmdline.composefs_images(item.entry.options or "").optional
    except CmdlineError:
        return None


def _losses(now: Protection, then: Protection) -> Iterator[str]:
    """Yield a phrase for each property that ``now`` has and ``then`` does not have."""
    if now.strict and then.strict is False:
        yield (
            "it tolerates missing fs-verity (composefs=?), "
            "so that changed files on the disk go unnoticed"
        )
    if now.unified and not then.unified:
        yield (
            "its kernel arguments are in a file on the boot partition, where no signature covers "
            "them, and with Secure Boot its kernel starts only if it is signed itself"
        )
