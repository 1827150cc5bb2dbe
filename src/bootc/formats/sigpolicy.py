"""Reads a signature policy (``policy.json`` of containers-policy.json(5)), and finds its rules.

skopeo enforces the policy. bootc reads it to know whether the rule that skopeo will apply to an
image demands a signature. A rule is a list of requirements, and an image must meet all of them.
The rule of the most specific scope counts: an image, then its repository, the namespaces above
it, the registry, wildcards of its domain, the default of the transport, the default of the policy.

>>> policy = parse_policy(
...     b'{"default": [{"type": "reject"}], "transports": {"docker": {'
...     b'"quay.io/os": [{"type": "signedBy"}], "quay.io": [{"type": "insecureAcceptAnything"}]}}}'
... )
>>> policy.rule("docker", registry_scopes("quay.io/os/server:42")).name
'the rule for docker:quay.io/os'
>>> policy.rule("docker", registry_scopes("quay.io/other")).accepts_anything
True

Source: containers-policy.json(5); containers/image, ``requirementsForImageRef`` and
``policyconfiguration``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bootc.errors import Error
from bootc.printable import listed, printable

MAX_POLICY_BYTES = 1 << 20

_ACCEPTS_ANYTHING = "insecureAcceptAnything"
_REJECTS = "reject"
_VERIFY = ("signedBy", "sigstoreSigned")
_KEYS = ("default", "transports")
_DEFAULT_DOMAIN = "docker.io"
_OLD_DOMAIN = "index.docker.io"
#: How much of a word of the policy a message shows.
_MAX_WORD = 300


class PolicyError(Error):
    """A signature policy is malformed."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of a policy.

    Attributes:
        name: The rule in a message, for example ``the rule for docker:quay.io``.
        types: The types of its requirements, at least one.
    """

    name: str
    types: tuple[str, ...]

    @property
    def accepts_anything(self) -> bool:
        """Whether the rule accepts every image."""
        return all(kind == _ACCEPTS_ANYTHING for kind in self.types)

    @property
    def rejects(self) -> bool:
        """Whether the rule rejects every image."""
        return _REJECTS in self.types

    @property
    def unknown_type(self) -> str | None:
        """The type of a requirement that is not known here to verify a signature, or None."""
        known = (_ACCEPTS_ANYTHING, _REJECTS, *_VERIFY)
        return next((kind for kind in self.types if kind not in known), None)

    def __str__(self) -> str:
        return f"{self.name} is {listed(dict.fromkeys(self.types))}"


@dataclass(frozen=True, slots=True)
class SignaturePolicy:
    """The rules of a policy.

    Attributes:
        default: The rule for images without another rule.
        transports: The rules by transport and scope. The scope ``""`` is the rule for images of
            the transport without another rule.
    """

    default: Rule
    transports: Mapping[str, Mapping[str, Rule]]

    def rule(self, transport: str, scopes: Iterable[str]) -> Rule:
        """Return the rule for an image.

        Args:
            transport: The transport in the spelling of the policy: ``docker`` is a registry.
            scopes: The scopes that the image is in, the most specific first.
        """
        rules = self.transports.get(transport, {})
        found = (rules[scope] for scope in (*scopes, "") if scope in rules)
        return next(found, self.default)

    def rules(self, transport: str) -> Iterator[Rule]:
        """Yield each rule that can apply to an image of a transport."""
        rules = self.transports.get(transport, {})
        yield from rules.values()
        if "" not in rules:
            yield self.default


def parse_policy(data: bytes) -> SignaturePolicy:
    """Parse a signature policy.

    As skopeo does, this refuses unknown and repeated keys. skopeo alone checks the parameters of
    the requirements.

    Raises:
        PolicyError: the bytes are not a policy.
    """
    try:
        value = json.loads(data.decode(), object_pairs_hook=_object)
        unknown = [key for key in value if key not in _KEYS]
        if unknown:
            raise ValueError(f"unknown key {unknown[0]!r}")
        transports = {
            transport: {
                scope: _rule(_rule_name(transport, scope), requirements)
                for scope, requirements in rules.items()
            }
            for transport, rules in value.get("transports", {}).items()
        }
        return SignaturePolicy(_rule("the default", value["default"]), transports)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
        raise PolicyError(f"it is not a signature policy: {exc!r:.200}") from None


def registry_scopes(name: str) -> tuple[str, ...]:
    """Return the scopes that an image of a registry is in, the most specific first.

    >>> registry_scopes("registry.example.com:5000/os/server")
    ... # doctest: +NORMALIZE_WHITESPACE
    ('registry.example.com:5000/os/server:latest', 'registry.example.com:5000/os/server',
     'registry.example.com:5000/os', 'registry.example.com:5000', '*.example.com', '*.com')
    >>> registry_scopes("debian:13")[:2]
    ('docker.io/library/debian:13', 'docker.io/library/debian')
    """
    tagged, at, digest = name.partition("@")
    stem, colon, tag = tagged.rpartition(":")
    if not colon or "/" in tag:
        stem, tag = tagged, "latest"
    repository = _with_domain(stem)
    scopes = [f"{repository}@{digest}" if at else f"{repository}:{tag}"]
    while repository:
        scopes.append(repository)
        repository = repository.rpartition("/")[0]
    host = scopes[-1].partition(":")[0]
    while "." in host:
        host = host.partition(".")[2]
        scopes.append(f"*.{host}")
    return tuple(scopes)


def directory_scopes(path: str) -> tuple[str, ...]:
    """Return the scopes that an image in a directory is in, the most specific first.

    Args:
        path: The absolute path, without symlinks.

    >>> directory_scopes("/srv/images/os")
    ('/srv/images/os', '/srv/images', '/srv')
    """
    scopes = []
    while path.strip("/"):
        scopes.append(path)
        path = path.rpartition("/")[0]
    return tuple(scopes)


def _with_domain(repository: str) -> str:
    """Return the full name of a repository; short names are those of Docker's registry."""
    domain, slash, path = repository.partition("/")
    is_domain = domain == "localhost" or domain != domain.lower() or bool({*domain} & {*".:"})
    if not slash or not is_domain:
        domain, path = _DEFAULT_DOMAIN, repository
    if domain == _OLD_DOMAIN:
        domain = _DEFAULT_DOMAIN
    if domain == _DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    return f"{domain}/{path}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a repeated key")
    return value


def _rule_name(transport: str, scope: str) -> str:
    if not scope:
        return f"the default for {printable(transport, _MAX_WORD)}"
    return f"the rule for {printable(f'{transport}:{scope}', _MAX_WORD)}"


def _rule(name: str, requirements: Any) -> Rule:
    types = tuple(requirement["type"] for requirement in requirements)
    if not types or not all(isinstance(kind, str) for kind in types):
        raise ValueError("a rule without requirements")
    return Rule(name, types)
