from __future__ import annotations

import json
from typing import Any

import pytest

from bootc.formats.sigpolicy import PolicyError, parse_policy

ANYTHING = [{"type": "insecureAcceptAnything"}]
REJECT = [{"type": "reject"}]
SIGNED: list[dict[str, Any]] = [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/key"}]


@pytest.mark.parametrize(
    ("policy", "unsafe"),
    [
        ({"default": ANYTHING}, "the default"),
        ({"default": ANYTHING * 2}, "the default"),
        ({"default": ANYTHING, "transports": {"docker": {"": SIGNED}}}, "the default"),
        ({"default": REJECT}, None),
        ({"default": SIGNED}, None),
        # All requirements have to be met.
        ({"default": [*ANYTHING, *SIGNED]}, None),
        ({"default": REJECT, "transports": {}}, None),
        (
            {"default": REJECT, "transports": {"docker": {"": ANYTHING}}},
            "the rule for all images of the transport docker",
        ),
        ({"default": REJECT, "transports": {"docker": {"": SIGNED}}}, None),
        ({"default": REJECT, "transports": {"dir": {"": ANYTHING}}}, None),
        # Narrower rules are skopeo's to judge.
        ({"default": REJECT, "transports": {"docker": {"quay.io": ANYTHING}}}, None),
    ],
    ids=json.dumps,
)
def test_what_accepts_any_image(policy: object, unsafe: str | None) -> None:
    assert parse_policy(json.dumps(policy).encode()).unsafe_rule("docker") == unsafe


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
        b'{"default":' + b"[" * 60_000,
    ],
)
def test_what_is_no_policy(data: bytes) -> None:
    with pytest.raises(PolicyError, match=r"^it is no signature policy: "):
        parse_policy(data)
