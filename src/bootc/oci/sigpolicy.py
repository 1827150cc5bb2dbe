"""The check whether a demanded signature policy is enforced.

The policy is the host's ``policy.json`` (containers-policy.json(5)). skopeo reads it and refuses
an image that it rejects. skopeo does this for everything that it fetches, whether bootc asks for
it or not, from version 0.2.6 of its image proxy's protocol on. No other program checks
signatures: bootc does not know the keys of an ostree remote.

If a user demands enforcement, :func:`enforced_policy` finds the rule that skopeo will apply to the
image, and refuses the image if the rule verifies no signature. It also refuses transports for
which no signature protects the bytes that bootc deploys. skopeo gets a copy of the policy that
bootc judged, so both see the same rule.

bootc reads ``oci:`` directories itself. They have no signatures. If nobody demands enforcement,
:func:`require_accepted` applies the policy to them as skopeo would.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from bootc.errors import Error, doing
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import Signature
from bootc.formats.sigpolicy import (
    MAX_POLICY_BYTES,
    Rule,
    SignaturePolicy,
    directory_scopes,
    parse_policy,
    registry_scopes,
)
from bootc.fs.dir import open_regular, read_all
from bootc.printable import listed, shown

#: The files in which skopeo looks for a policy; it reads the first that exists.
POLICY_FILES = ("~/.config/containers/policy.json", "/etc/containers/policy.json")
_NO_SIGNATURES = "images of this transport have no signatures"
#: Transports for which enforcement is refused, and why.
_NOT_ENFORCEABLE = {
    "oci": _NO_SIGNATURES,
    "oci-archive": _NO_SIGNATURES,
    "docker-archive": _NO_SIGNATURES,
    "docker-daemon": _NO_SIGNATURES,
    "dir": "the directory can change between the check of the signature and the pull",
}
_WITHOUT = (
    "or do without enforcement: bootc switch without --enforce-container-sigpolicy, "
    "at installation enforce-container-sigpolicy = false"
)
_SAY_WHO_SIGNS = "say there who signs the image, see containers-policy.json(5)"


class PolicyNotEnforced(Error):
    """A signature policy is demanded, and no program would enforce it."""


class RejectedByPolicy(Error):
    """The signature policy rejects an image, with any signature."""


@dataclass(frozen=True, slots=True)
class EnforcedPolicy:
    """A policy that demands a signature of an image.

    Attributes:
        path: The file of the host.
        raw: Its content.
        rules: The rules for the image. skopeo applies one of them.
    """

    path: str
    raw: bytes
    rules: tuple[Rule, ...]

    @property
    def notice(self) -> str:
        """One line for users who demand enforcement."""
        rules = listed(map(str, self.rules))
        return f"notice: skopeo checks the signature of the image by {self.path}: {rules}"

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """Open a copy of the policy for skopeo, as a descriptor that ends with the block.

        Another process may change the file of the host, but not the copy.
        """
        with open(os.memfd_create("policy.json"), "wb") as copy:
            copy.write(self.raw)
            copy.flush()
            yield copy.fileno()


def require_checkable(imgref: ImageReference, signature: Signature | None) -> None:
    """Refuse an image if its signature is demanded and no program could check it.

    Raises:
        PolicyNotEnforced: no program could check the signature.
    """
    if signature is None:
        return
    if signature.ostree_remote is not None:
        raise PolicyNotEnforced(
            f"the signature of {imgref} cannot be checked: it is by the keys of "
            f"the ostree remote {signature.ostree_remote!r}",
            hint="have policy.json checked: bootc switch --enforce-container-sigpolicy, "
            "or switch without that option",
        )
    if imgref.transport in _NOT_ENFORCEABLE:
        raise PolicyNotEnforced(
            f"the signature policy cannot be enforced for {imgref}: "
            f"{_NOT_ENFORCEABLE[imgref.transport]}",
            hint=f"use a registry, {_WITHOUT}",
        )


def enforced_policy(imgref: ImageReference, signature: Signature | None) -> EnforcedPolicy | None:
    """Return the policy that skopeo has to enforce for an image; None if nobody demands it.

    Raises:
        PolicyNotEnforced: there is no policy, no program could check it, or its rule for the image
            verifies no signature.
        RejectedByPolicy: its rule for the image rejects every image.
        PolicyError, OSError: the policy cannot be read.
    """
    require_checkable(imgref, signature)
    if signature is None:
        return None
    path = policy_path()
    if path is None:
        raise PolicyNotEnforced(
            f"there is no signature policy to enforce for {imgref}: "
            f"neither {' nor '.join(POLICY_FILES)} exists",
            hint=f"write one, see containers-policy.json(5), {_WITHOUT}",
        )
    return judged(path, _read(path), imgref)


def judged(path: str, raw: bytes, imgref: ImageReference) -> EnforcedPolicy:
    """Return a policy if it demands a signature of an image.

    Args:
        path: The name of the policy in messages.
        raw: Its content.
        imgref: The image.

    Raises:
        PolicyNotEnforced, RejectedByPolicy, PolicyError: as :func:`enforced_policy`.
    """
    rules = _rules(_parse(path, raw), imgref)
    for rule in rules:
        _require_verifying(rule, path, imgref)
    return EnforcedPolicy(path, raw, rules)


def require_accepted(imgref: ImageReference) -> None:
    """Refuse an image in an ``oci:`` directory if the policy of this host does not accept it.

    skopeo does the same. A policy that demands a signature rejects the image, because it has none.

    Raises:
        RejectedByPolicy: the policy rejects it.
        PolicyError, OSError: the policy cannot be read.
    """
    path = policy_path()
    if path is None:
        return
    directory = os.path.realpath(imgref.layout[0])
    rule = _parse(path, _read(path)).rule("oci", directory_scopes(directory))
    if not rule.accepts_anything:
        raise RejectedByPolicy(
            f"the signature policy {path} rejects {imgref}: {rule}, and {_NO_SIGNATURES}",
            hint=f"copy the image to a registry and sign it, or add a rule for oci:{directory}",
        )


def policy_path() -> str | None:
    """Return the path of the policy that skopeo will apply, or None if there is none."""
    paths = map(os.path.expanduser, POLICY_FILES)
    return next((path for path in paths if os.path.exists(path)), None)


def _rules(policy: SignaturePolicy, imgref: ImageReference) -> tuple[Rule, ...]:
    """Return the rules that skopeo may apply to an image."""
    if imgref.transport == "containers-storage":
        # Scopes there begin with the driver and the directory of the storage, which only skopeo
        # knows. No rule may be weaker than what the user demands.
        return tuple(policy.rules(imgref.transport))
    return (policy.rule("docker", registry_scopes(imgref.name)),)


def _require_verifying(rule: Rule, path: str, imgref: ImageReference) -> None:
    way_out = _SAY_WHO_SIGNS
    if imgref.transport == "containers-storage":
        way_out += ", or use the image of a registry (bootc install to-disk --source-imgref docker://IMAGE)"
    hint = f"{way_out}, {_WITHOUT}"
    if rule.rejects:
        raise RejectedByPolicy(
            f"the signature policy {path} rejects {imgref}: {rule}", hint=way_out
        )
    if rule.unknown_type is not None:
        raise PolicyNotEnforced(
            f"the signature policy {path} cannot be enforced for {imgref}: {rule}, "
            f"and the requirement {shown(rule.unknown_type)} is unknown",
            hint=hint,
        )
    if rule.accepts_anything:
        raise PolicyNotEnforced(
            f"the signature policy {path} does not protect {imgref}: {rule}", hint=hint
        )


def _read(path: str) -> bytes:
    with doing(f"Reading {path}"), open(open_regular(path), "rb", buffering=0) as file:
        return read_all(file.fileno(), path, MAX_POLICY_BYTES)


def _parse(path: str, raw: bytes) -> SignaturePolicy:
    with doing(f"Reading {path}"):
        return parse_policy(raw)
