"""The protection that a machine would lose by an update or a rollback, in words.

Three properties of a deployment count (``docs/explanation/trust.md``). Its kernel arguments are
in a unified kernel image, which a signature can cover, or in a menu entry, which no signature
covers. They require fs-verity, or tolerate that it is missing (``composefs=?``). And a sealed one
has a security version, which can be below the minimum of the booted one (ADR 19). If the booted
deployment requires fs-verity, an update that loses a property is refused, unless the user asked
for it by name. Otherwise commands report the loss.

What the counter in the TPM refuses does not boot. So nobody can ask for it (:func:`check_counter`).
All functions are pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bootc.deploy.host.facts import Facts
from bootc.errors import Error
from bootc.formats import bls, cmdline
from bootc.formats.cmdline import CmdlineError
from bootc.formats.digest import Digest

if TYPE_CHECKING:
    from bootc.formats.security_version import SecurityVersion


class ProtectsLess(Error):
    """An image protects less than the booted deployment, which requires fs-verity."""


class WouldNotBoot(Error):
    """The counter in the TPM requires a higher security version than that of an image."""


@dataclass(frozen=True, slots=True)
class Protection:
    """How a deployment is protected.

    Attributes:
        unified: It boots a unified kernel image.
        strict: It requires fs-verity; None if that cannot be read.
        version: The security version that its unified kernel image states, if that can be read.
    """

    unified: bool
    strict: bool | None
    version: SecurityVersion | None = None


def booted_protection(facts: Facts) -> Protection:
    """Return the protection of the booted deployment."""
    return Protection(
        unified=facts.scheme.boot_type.is_unified,
        strict=not facts.booted.missing_verity_allowed,
        version=facts.version(facts.booted.image_id),
    )


def protection_of(facts: Facts, deployment: Digest) -> Protection | None:
    """Return the protection of a deployment, or None if its origin is not known."""
    origin = facts.origin(deployment)
    if origin is None:
        return None
    optional = missing_verity_allowed(facts, deployment)
    return Protection(
        unified=origin.boot_type.is_unified,
        strict=None if optional is None else not optional,
        version=facts.version(deployment),
    )


def staged_losses(facts: Facts) -> list[str]:
    """Return what the staged deployment would lose of the booted one's protection, as phrases."""
    staged = facts.staged_id()
    then = None if staged is None else protection_of(facts, staged)
    return [] if then is None else losses(facts, then)


def window_losses(facts: Facts, deployment: Digest) -> list[str]:
    """Return why a deployment is older than the booted one allows, as phrases: none or one."""
    then = protection_of(facts, deployment)
    return [] if then is None else list(_version_losses(booted_protection(facts), then))


def counter_refuses(facts: Facts, then: Protection) -> bool:
    """Tell whether a boot would be refused, because the counter in the TPM is higher."""
    version, counter = then.version, facts.counter
    if counter is None or (version is None and then.unified):
        return False  # There is no counter, or the version cannot be read.
    if version is None or not version.stated:
        # The initramfs asks the counter only about an image that must be verified.
        return counter > 0 and then.strict is not False
    return version.version < counter


def refused_at(facts: Facts, counter: int) -> list[Digest]:
    """Return the deployments of the menu that do not boot with this value of the counter."""
    then = dataclasses.replace(facts, counter=counter)
    found = ((deployment, protection_of(facts, deployment)) for deployment in facts.bootable())
    return [deployment for deployment, p in found if p is not None and counter_refuses(then, p)]


def check_counter(facts: Facts, then: Protection, *, what: str = "the new image") -> None:
    """Refuse an image that would not boot, because the counter in the TPM is higher.

    Args:
        facts: The facts of the system.
        then: How the image is protected.
        what: Names the image in the message.

    Raises:
        WouldNotBoot: the counter is higher.
    """
    if counter_refuses(facts, then):
        version = 0 if then.version is None else then.version.version
        raise WouldNotBoot(
            f"{what} would not boot: its security version is {version}, and the counter in the TPM "
            f"requires {facts.counter}",
            hint=f"use an image with a security version of at least {facts.counter}",
        )


def losses(facts: Facts, then: Protection) -> list[str]:
    """Return what a deployment would lose of the booted one's protection, as phrases."""
    return list(_losses(booted_protection(facts), then))


def check_losses(
    facts: Facts, lost: Sequence[str], *, allowed: bool, what: str = "the new image"
) -> bool:
    """Refuse to lose protection if the booted deployment requires fs-verity.

    Args:
        facts: The facts of the system.
        lost: What the next deployment would lose, as phrases.
        allowed: The user asked for less protection by name.
        what: Names the image in the message.

    Returns:
        Whether the loss needed the consent of the user.

    Raises:
        ProtectsLess: the user did not ask for it.
    """
    if not (lost and booted_protection(facts).strict):
        return False
    if not allowed:
        raise ProtectsLess(
            f"{what} protects less than the booted one: {'; '.join(lost)}",
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
    yield from _version_losses(now, then)


def _version_losses(now: Protection, then: Protection) -> Iterator[str]:
    """Yield a phrase if ``then`` is older than ``now`` allows. Only a sealed ``now`` demands it."""
    if not (now.unified and now.strict) or now.version is None or then.version is None:
        return
    if then.version.version < now.version.minimum:
        yield (
            f"its security version {then.version.version} is below {now.version.minimum}, "
            "the minimum of the booted deployment"
        )
