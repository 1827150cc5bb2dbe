from __future__ import annotations

import json
from typing import Any

import pytest

from bootc.formats.sigpolicy import (
    PolicyError,
    SignaturePolicy,
    directory_scopes,
    parse_policy,
    registry_scopes,
)

ANYTHING = [{"type": "insecureAcceptAnything"}]
REJECT = [{"type": "reject"}]
SIGNED: list[dict[str, Any]] = [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/key"}]


def parse(value: object) -> SignaturePolicy:
    return parse_policy(json.dumps(value).encode())


@pytest.mark.parametrize(
    ("scopes", "name"),
    [
        ((), "the default"),
        (("",), "the default for docker"),
        (("", "io", "q.io"), "the rule for docker:q.io"),
        (("q.io", "q.io/a", "q.io/a/o"), "the rule for docker:q.io/a"),
        (("q.io", "q.io/a/os"), "the rule for docker:q.io/a/os"),
        (("q.io/a/os", "q.io/a/os:latest", "q.io/a/os:1"), "the rule for docker:q.io/a/os:latest"),
        (("*.io", ""), "the rule for docker:*.io"),
        (("*.q.io", "*"), "the default"),
    ],
)
def test_the_most_specific_rule_counts(scopes: tuple[str, ...], name: str) -> None:
    policy = parse({"default": REJECT, "transports": {"docker": dict.fromkeys(scopes, SIGNED)}})
    rule = policy.rule("docker", registry_scopes("q.io/a/os"))
    assert rule.name == name
    assert policy.rule("dir", ("q.io",)).name == "the default"
    others = {f"the rule for docker:{scope}" for scope in scopes if scope}
    last = {"the default for docker" if "" in scopes else "the default"}
    assert {rule.name for rule in policy.rules("docker")} == others | last


@pytest.mark.parametrize(
    ("name", "scopes"),
    [
        ("os", "docker.io/library/os:latest docker.io/library/os docker.io/library docker.io *.io"),
        ("index.docker.io/a/os:1", "docker.io/a/os:1 docker.io/a/os docker.io/a docker.io *.io"),
        ("localhost/os:1", "localhost/os:1 localhost/os localhost"),
        ("a.b.c:5/os@sha256:0", "a.b.c:5/os@sha256:0 a.b.c:5/os a.b.c:5 *.b.c *.c"),
        ("localhost:5/os", "localhost:5/os:latest localhost:5/os localhost:5"),
    ],
)
def test_scopes_of_a_registry(name: str, scopes: str) -> None:
    assert registry_scopes(name) == tuple(scopes.split())


def test_scopes_of_a_directory() -> None:
    assert directory_scopes("/a/b") == ("/a/b", "/a")
    assert directory_scopes("/") == ()


@pytest.mark.parametrize(
    ("requirements", "anything", "rejects", "unknown"),
    [
        (ANYTHING, True, False, None),
        (ANYTHING * 2, True, False, None),
        (SIGNED, False, False, None),
        # All requirements have to be met.
        ([*ANYTHING, *SIGNED], False, False, None),
        ([*SIGNED, *REJECT], False, True, None),
        ([{"type": "sigstoreSigned"}], False, False, None),
        ([*SIGNED, {"type": "signedBaseLayer"}], False, False, "signedBaseLayer"),
        ([*ANYTHING, {"type": "x"}], False, False, "x"),
    ],
    ids=json.dumps,
)
def test_what_a_rule_demands(
    requirements: list[Any], anything: bool, rejects: bool, unknown: str | None
) -> None:
    rule = parse({"default": requirements}).default
    assert (rule.accepts_anything, rule.rejects, rule.unknown_type) == (anything, rejects, unknown)


def test_a_rule_in_a_message() -> None:
    policy = parse({"default": [*SIGNED, *SIGNED, *REJECT], "transports": {"a\n": {"b": SIGNED}}})
    assert str(policy.default) == "the default is signedBy, reject"
    assert next(policy.rules("a\n")).name == r"the rule for a\n:b"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"junk",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b'{"default": []}',
        b'{"default": null}',
        b'{"default": "reject"}',
        b'{"default": {"type": "reject"}}',
        b'{"default": [{}]}',
        b'{"default": [{"type": 1}]}',
        b'{"default": [{"type": "reject"}], "transports": []}',
        b'{"default": [{"type": "reject"}], "transports": {"docker": null}}',
        b'{"default": [{"type": "reject"}], "transports": {"docker": {"": []}}}',
        b'{"default": [{"type": "reject"}], "transports": {"docker": {"q.io": [{}]}}}',
        b'{"default": [{"type": "reject"}], "defaults": 1}',
        # skopeo refuses repeated keys; other readers take the first or the last.
        b'{"default": [{"type": "reject"}], "default": [{"type": "reject"}]}',
        b'{"default": [{"type": "reject", "type": "signedBy"}]}',
        '{"default": [{"type": "reject"}]}'.encode("utf-16"),
        b'{"default":' + b"[" * 60_000,
    ],
)
def test_what_is_no_policy(data: bytes) -> None:
    with pytest.raises(PolicyError, match=r"^it is not a signature policy: "):
        parse_policy(data)
