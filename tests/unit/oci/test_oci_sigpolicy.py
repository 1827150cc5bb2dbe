from __future__ import annotations

from pathlib import Path

import pytest

from bootc.errors import Error, one_line
from bootc.formats.imgref import TRANSPORTS, ImageReference
from bootc.formats.origin import Signature
from bootc.formats.sigpolicy import PolicyError
from bootc.oci import sigpolicy
from bootc.oci.sigpolicy import PolicyNotEnforced, require_checkable, require_enforceable
from bootc.oci.source import open_source

ANYTHING = '{"default": [{"type": "insecureAcceptAnything"}]}'
REJECT = '{"default": [{"type": "reject"}]}'
REGISTRY = ImageReference("registry", "127.0.0.1:1/os:1")
CHECKED = sorted(set(TRANSPORTS) - {"oci"})


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Return where the policies of the user and of the host would be."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    user, host = "~/.config/containers/policy.json", str(tmp_path / "policy.json")
    monkeypatch.setattr(sigpolicy, "POLICY_FILES", (user, host))
    (tmp_path / "home/.config/containers").mkdir(parents=True)
    return tmp_path / "home/.config/containers/policy.json", tmp_path / "policy.json"


def refused(reference: ImageReference, signature: Signature | None = Signature()) -> str:  # noqa: B008
    with pytest.raises(PolicyNotEnforced) as caught:
        require_enforceable(reference, signature)
    return one_line(caught.value)


def test_nothing_is_demanded_where_nobody_asked(policies: tuple[Path, Path]) -> None:
    for transport in TRANSPORTS:
        require_enforceable(ImageReference(transport, "/x"), None)


def test_the_first_policy_counts(policies: tuple[Path, Path]) -> None:
    user, host = policies
    assert refused(REGISTRY).startswith("there is no signature policy to enforce for docker://")
    host.write_text(ANYTHING)
    said = refused(REGISTRY)
    assert said.startswith(
        f"the signature policy {host} does not protect docker://127.0.0.1:1/os:1"
    )
    assert "the default is insecureAcceptAnything" in said
    user.write_text(REJECT)
    require_enforceable(REGISTRY, Signature())
    assert sigpolicy.notice().startswith(f"notice: skopeo checks the image against {user}; ")
    host.write_text(REJECT)
    user.write_text(ANYTHING)
    assert str(user) in refused(REGISTRY)


def test_the_transports_are_called_as_in_the_policy(policies: tuple[Path, Path]) -> None:
    rules = '{"default": [{"type": "reject"}], "transports": {"%s": {"": [{"type": "%s"}]}}}'
    for transport in CHECKED:
        name = {"registry": "docker"}.get(transport, transport)
        policies[1].write_text(rules % (name, "insecureAcceptAnything"))
        assert f"the rule for all images of the transport {name}" in refused(
            ImageReference(transport, "/x")
        )
        policies[1].write_text(rules % (name, "signedBy"))
        require_enforceable(ImageReference(transport, "/x"), Signature())


@pytest.mark.parametrize(
    ("reference", "signature", "words"),
    [
        (ImageReference("oci", "/os:1"), Signature(), "it is read without skopeo"),
        (REGISTRY, Signature("fedora"), "it is by the keys of the ostree remote 'fedora'"),
    ],
)
def test_what_nobody_checks_is_refused_before_it_is_opened(
    policies: tuple[Path, Path], reference: ImageReference, signature: Signature, words: str
) -> None:
    policies[1].write_text(REJECT)
    assert words in refused(reference, signature)
    with pytest.raises(PolicyNotEnforced, match="cannot be"):
        require_checkable(reference, signature)
    with pytest.raises(PolicyNotEnforced), open_source(reference, signature):
        pytest.fail("it was opened")


@pytest.mark.parametrize("data", [b"junk", b" " * (2 << 20)])
def test_a_policy_that_cannot_be_read(policies: tuple[Path, Path], data: bytes) -> None:
    policies[1].write_bytes(data)
    with pytest.raises((Error, OSError)) as caught:
        require_enforceable(REGISTRY, Signature())
    assert isinstance(caught.value, PolicyError | OSError)
    assert f"Reading {policies[1]}" in one_line(caught.value)
