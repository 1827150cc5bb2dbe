from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bootc.errors import Error, one_line
from bootc.formats.imgref import TRANSPORTS, ImageReference
from bootc.formats.origin import Signature
from bootc.formats.sigpolicy import PolicyError
from bootc.oci import sigpolicy
from bootc.oci.sigpolicy import (
    EnforcedPolicy,
    PolicyNotEnforced,
    RejectedByPolicy,
    enforced_policy,
    require_accepted,
    require_checkable,
)
from bootc.oci.source import open_source
from support import images

DEMANDED = Signature()
REGISTRY = ImageReference("registry", "127.0.0.1:1/os:1")
ENFORCEABLE = ("registry", "containers-storage")
_WAY_OUT = "or do without enforcement: bootc switch without --enforce-container-sigpolicy"


def policy_of(default: str, **transports: dict[str, str]) -> str:
    """Return a policy whose rules have one requirement of these types."""
    rules = {
        transport: {scope: [{"type": kind}] for scope, kind in scopes.items()}
        for transport, scopes in transports.items()
    }
    return json.dumps({"default": [{"type": default}], "transports": rules})


ANYTHING, REJECT, SIGNED = map(policy_of, ("insecureAcceptAnything", "reject", "signedBy"))


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Return where the policies of the user and of the host would be."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    user, host = "~/.config/containers/policy.json", str(tmp_path / "policy.json")
    monkeypatch.setattr(sigpolicy, "POLICY_FILES", (user, host))
    (tmp_path / "home/.config/containers").mkdir(parents=True)
    return tmp_path / "home/.config/containers/policy.json", tmp_path / "policy.json"


def refused(
    reference: ImageReference,
    signature: Signature = DEMANDED,
    error: type[Error] = PolicyNotEnforced,
) -> str:
    with pytest.raises(error) as caught:
        enforced_policy(reference, signature)
    with pytest.raises(error), open_source(reference, signature):
        pytest.fail("it was opened")
    return one_line(caught.value)


def enforced(reference: ImageReference) -> EnforcedPolicy:
    found = enforced_policy(reference, DEMANDED)
    assert found is not None
    return found


def test_nothing_is_demanded_where_nobody_asked(policies: tuple[Path, Path]) -> None:
    policies[1].write_text(REJECT)
    for transport in TRANSPORTS:
        assert enforced_policy(ImageReference(transport, "/x"), None) is None


def test_the_first_policy_counts(policies: tuple[Path, Path]) -> None:
    user, host = policies
    assert refused(REGISTRY).startswith("there is no signature policy to enforce for docker://")
    host.write_text(SIGNED)
    assert enforced(REGISTRY).notice == (
        f"notice: skopeo checks the signature of the image by {host}: the default is signedBy"
    )
    user.write_text(ANYTHING)
    assert str(user) in refused(REGISTRY)
    host.write_text(ANYTHING)
    user.write_text(SIGNED)
    found = enforced(REGISTRY)
    assert (found.path, found.raw) == (str(user), SIGNED.encode())
    user.write_text(ANYTHING)
    with found.opened() as copy, open(f"/proc/self/fd/{copy}", "rb") as file:
        assert file.read() == SIGNED.encode()


@pytest.mark.parametrize(
    ("policy", "error", "words"),
    [
        (ANYTHING, PolicyNotEnforced, "does not protect {}: the default is insecureAcceptAnything"),
        (REJECT, RejectedByPolicy, "rejects {}: the default is reject"),
        (
            policy_of("signedBy", docker={"": "insecureAcceptAnything"}),
            PolicyNotEnforced,
            "does not protect {}: the default for docker is insecureAcceptAnything",
        ),
        (
            policy_of("reject", docker={"127.0.0.1:1/os": "insecureAcceptAnything"}),
            PolicyNotEnforced,
            "does not protect {}: the rule for docker:127.0.0.1:1/os is insecureAcceptAnything",
        ),
        (
            policy_of("signedBy", docker={"127.0.0.1:1": "signedBy", "127.0.0.1:1/os:1": "new"}),
            PolicyNotEnforced,
            "cannot be enforced for {}: the rule for docker:127.0.0.1:1/os:1 is new, "
            "and the requirement 'new' is unknown",
        ),
    ],
)
def test_a_rule_that_verifies_no_signature(
    policies: tuple[Path, Path], policy: str, error: type[Error], words: str
) -> None:
    policies[1].write_text(policy)
    line = refused(REGISTRY, error=error)
    assert line.startswith(f"the signature policy {policies[1]} {words.format(REGISTRY)} (hint: ")
    assert "say there who signs the image, see containers-policy.json(5)" in line
    assert (_WAY_OUT in line) == (error is PolicyNotEnforced)


def test_rules_for_other_images_do_not_count(policies: tuple[Path, Path]) -> None:
    other = {"127.0.0.1:1/other": "insecureAcceptAnything", "127.0.0.1": "reject"}
    policies[1].write_text(policy_of("insecureAcceptAnything", docker={**other, "": "signedBy"}))
    assert [str(rule) for rule in enforced(REGISTRY).rules] == [
        "the default for docker is signedBy"
    ]


def test_no_rule_for_local_storage_may_be_weaker(policies: tuple[Path, Path]) -> None:
    stored = ImageReference("containers-storage", "localhost/os:1")
    rules = {"[overlay@/var/lib/containers/storage]": "sigstoreSigned", "": "signedBy"}
    policies[1].write_text(policy_of("reject", **{stored.transport: rules}))
    assert len(enforced(stored).rules) == 2
    rules["[/elsewhere]"] = "insecureAcceptAnything"
    policies[1].write_text(policy_of("reject", **{stored.transport: rules}))
    assert "the rule for containers-storage:[/elsewhere] is insecure" in refused(stored)
    policies[1].write_text(ANYTHING)
    assert "the default is insecureAcceptAnything" in refused(stored)


@pytest.mark.parametrize("transport", sorted(set(TRANSPORTS) - set(ENFORCEABLE)))
def test_transports_without_signatures(policies: tuple[Path, Path], transport: str) -> None:
    policies[1].write_text(SIGNED)
    reference = ImageReference(transport, "/os:1")
    why = "the directory can change" if transport == "dir" else "images of this transport have no"
    line = refused(reference)
    assert line.startswith(f"the signature policy cannot be enforced for {reference}: {why} ")
    assert f"(hint: use a registry, {_WAY_OUT}" in line


def test_the_keys_of_an_ostree_remote(policies: tuple[Path, Path]) -> None:
    policies[1].write_text(SIGNED)
    assert "it is by the keys of the ostree remote 'fedora'" in refused(
        REGISTRY, Signature("fedora")
    )
    with pytest.raises(PolicyNotEnforced, match="cannot be"):
        require_checkable(REGISTRY, Signature("fedora"))


@pytest.mark.parametrize("data", [b"junk", b" " * (2 << 20)])
def test_a_policy_that_cannot_be_read(policies: tuple[Path, Path], data: bytes) -> None:
    policies[1].write_bytes(data)
    for check in (lambda: enforced(REGISTRY), lambda: require_accepted(ImageReference("oci", "/"))):
        with pytest.raises((Error, OSError)) as caught:
            check()
        assert isinstance(caught.value, PolicyError | OSError)
        assert f"Reading {policies[1]}" in one_line(caught.value)


@pytest.mark.parametrize(
    ("default", "scope", "kind", "accepted"),
    [
        ("insecureAcceptAnything", "/nowhere", "reject", True),
        ("reject", "{}", "insecureAcceptAnything", True),
        ("reject", "", "insecureAcceptAnything", True),
        ("insecureAcceptAnything", "{}", "reject", False),
        ("signedBy", "/nowhere", "insecureAcceptAnything", False),
    ],
)
def test_the_policy_applies_to_directories_too(
    policies: tuple[Path, Path],
    tmp_path: Path,
    default: str,
    scope: str,
    kind: str,
    accepted: bool,
) -> None:
    layout = images.single(tmp_path / "layout", images.bootable(), tag="os")
    (tmp_path / "link").symlink_to("layout")
    real = os.path.realpath(tmp_path / "layout")
    reference = ImageReference("oci", f"{tmp_path}/link:os")
    with open_source(reference):
        pass  # There is no policy, so nothing is demanded.
    policies[1].write_text(policy_of(default, oci={scope.format(real): kind}))
    if accepted:
        with open_source(reference) as source:
            assert source.layers
        return
    with pytest.raises(RejectedByPolicy) as caught, open_source(reference):
        pytest.fail("it was opened")
    line = one_line(caught.value)
    assert line.startswith(f"the signature policy {policies[1]} rejects {reference}: the ")
    assert line.endswith(f"or add a rule for oci:{real})")
    assert layout.path.is_dir()
