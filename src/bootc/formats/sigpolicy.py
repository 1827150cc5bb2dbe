"""Reads the signature policy of a host: ``policy.json`` of containers-policy.json(5).

skopeo enforces the policy. This module reads only the rules for images that no narrower
rule names, to see whether the policy demands any signature.

>>> policy = parse_policy(b'{"default": [{"type": "insecureAcceptAnything"}]}')
>>> policy.unsafe_rule("docker")
'the default'
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bootc.errors import Error

MAX_POLICY_BYTES = 1 << 20

_ACCEPTS_ANYTHING = "insecureAcceptAnything"


class PolicyError(Error):
    """A signature policy is malformed."""


@dataclass(frozen=True, slots=True)
class SignaturePolicy:
    """The broad rules of a policy: the types of the requirements an image must meet, all of them.

    Attributes:
        default: The requirements for images without another rule.
        transports: By transport, the requirements for its images without a narrower rule.
    """

    default: tuple[str, ...]
    transports: Mapping[str, tuple[str, ...]]

    def unsafe_rule(self, transport: str) -> str | None:
        """Name the broad rule by which images need no signature, or return None.

        Args:
            transport: The transport in the spelling of the policy: ``docker`` is a registry.
        """
        if _accepts_anything(self.default):
            return "the default"
        if _accepts_anything(self.transports.get(transport, ())):
            return f"the rule for all images of the transport {transport}"
        return None


def parse_policy(data: bytes) -> SignaturePolicy:
    """Parse a signature policy.

    Raises:
        PolicyError: the bytes are not a policy.
    """
    try:
        value = json.loads(data)
        default = _types(value["default"])
        scopes = value.get("transports", {}).items()
        transports = {name: _types(rules[""]) for name, rules in scopes if "" in rules}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
        raise PolicyError(f"it is no signature policy: {exc!r:.200}") from None
    return SignaturePolicy(default, transports)


def _types(requirements: Any) -> tuple[str, ...]:
    types = tuple(requirement["type"] for requirement in requirements)
    if not types or not all(isinstance(kind, str) for kind in types):
        raise ValueError("a rule without requirements")
    return types


def _accepts_anything(types: tuple[str, ...]) -> bool:
    return bool(types) and all(kind == _ACCEPTS_ANYTHING for kind in types)
