"""The check whether a demanded signature policy is enforced.

The policy is the host's ``policy.json`` (containers-policy.json(5)). skopeo reads it and refuses
an image that it rejects. skopeo does this for everything that it fetches, whether bootc asks for
it or not, from version 0.2.6 of its image proxy's protocol on. No other program checks
signatures: bootc reads ``oci:`` directories itself, and it does not know the keys of an ostree
remote.

If a user demands enforcement, bootc refuses an image whose signature no program would check
(:func:`require_checkable`), and an image for which the broad rules of the policy accept anything
(:func:`require_enforceable`). bootc does not check the narrow rules, which are for one registry
or repository.
"""

from __future__ import annotations

import os

from bootc.errors import Error, doing
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import Signature
from bootc.formats.sigpolicy import MAX_POLICY_BYTES, SignaturePolicy, parse_policy
from bootc.fs.dir import open_regular, read_all

#: The files in which skopeo looks for a policy; it reads the first that exists.
POLICY_FILES = ("~/.config/containers/policy.json", "/etc/containers/policy.json")
#: Transports that bootc reads without skopeo.
_UNCHECKED = ("oci",)
#: Transports that have another name in a policy.
_POLICY_NAMES = {"registry": "docker"}
_WITHOUT = (
    "or do without enforcement: bootc switch without --enforce-container-sigpolicy, "
    "at installation enforce-container-sigpolicy = false"
)


class PolicyNotEnforced(Error):
    """A signature policy is demanded, and no program would enforce it."""


def require_checkable(imgref: ImageReference, signature: Signature | None) -> None:
    """Refuse an image if its signature is demanded and no program would check it.

    Raises:
        PolicyNotEnforced: no program would check the signature.
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
    if imgref.transport in _UNCHECKED:
        raise PolicyNotEnforced(
            f"the signature policy cannot be enforced for {imgref}: "
            f"it is read without skopeo, which checks signatures",
            hint=f"use a registry or an oci-archive, {_WITHOUT}",
        )


def require_enforceable(imgref: ImageReference, signature: Signature | None) -> None:
    """Refuse an image if its signature is demanded and this host would accept any image.

    Raises:
        PolicyNotEnforced: no program would check the signature, there is no policy, or its
            broad rules accept anything.
        PolicyError, OSError: the policy cannot be read.
    """
    require_checkable(imgref, signature)
    if signature is None:
        return
    path = policy_path()
    if path is None:
        raise PolicyNotEnforced(
            f"there is no signature policy to enforce for {imgref}: "
            f"neither {' nor '.join(POLICY_FILES)} exists",
            hint=f"write one, see containers-policy.json(5), {_WITHOUT}",
        )
    transport = _POLICY_NAMES.get(imgref.transport, imgref.transport)
    rule = _read(path).unsafe_rule(transport)
    if rule is not None:
        raise PolicyNotEnforced(
            f"the signature policy {path} does not protect {imgref}: "
            f"{rule} is insecureAcceptAnything",
            hint=f"make it reject, and say who signs the image, {_WITHOUT}",
        )


def policy_path() -> str | None:
    """Return the path of the policy that skopeo will apply, or None if there is none."""
    paths = map(os.path.expanduser, POLICY_FILES)
    return next((path for path in paths if os.path.exists(path)), None)


def notice() -> str:
    """Return a notice for users who demand enforcement, as one line."""
    return (
        f"notice: skopeo checks the image against {policy_path()}; "
        "a rule there for this registry or repository may still accept anything"
    )


def _read(path: str) -> SignaturePolicy:
    with doing(f"Reading {path}"), open(open_regular(path), "rb", buffering=0) as file:
        return parse_policy(read_all(file.fileno(), path, MAX_POLICY_BYTES))
