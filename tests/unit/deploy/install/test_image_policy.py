from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootc.deploy.install import image_policy
from bootc.formats.digest import Digest
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import Signature
from bootc.formats.sigpolicy import MAX_POLICY_BYTES
from bootc.formats.tree import Content, Directory, External, Inline, Leaf, Stat, Symlink

TARGET = ImageReference("registry", "q.io/os:1")
REFUSES = "notice: the installed machine will refuse updates: "
NAME = "/etc/containers/policy.json of the image"
DIGEST = Digest.from_hex("ab" * 64)
SIGNED = b'{"default": [{"type": "signedBy"}]}'


class Objects:
    """A store whose only object is a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, digest: Digest) -> int:
        assert digest == DIGEST
        return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)


def said(path: Path, content: Content | None, *, demanded: bool = True) -> str | None:
    containers = Directory()
    if content is not None:
        containers.entries[b"policy.json"] = Leaf(Stat(), content)
    etc = Directory(entries={b"containers": containers})
    return image_policy.notice(etc, Objects(path), TARGET, Signature() if demanded else None)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, f"there is no file {NAME}"),
        (Symlink(b"other"), f"there is no file {NAME}"),
        (External(DIGEST, MAX_POLICY_BYTES + 1), f"{NAME} has more than {MAX_POLICY_BYTES} bytes"),
        (Inline(b"[]"), "it is not a signature policy: "),
        (
            Inline(b'{"default": [{"type": "insecureAcceptAnything"}]}'),
            f"the signature policy {NAME} does not protect docker://q.io/os:1: "
            "the default is insecureAcceptAnything",
        ),
        (
            Inline(b'{"default": [{"type": "reject"}]}'),
            f"the signature policy {NAME} rejects docker://q.io/os:1: the default is reject",
        ),
    ],
)
def test_a_policy_that_refuses_all_updates(
    tmp_path: Path, content: Content | None, words: str
) -> None:
    found = said(tmp_path, content)
    assert found is not None
    assert found.startswith(f"{REFUSES}{words}")
    assert said(tmp_path, content, demanded=False) is None


def test_a_policy_that_verifies_updates(tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(SIGNED)
    assert said(path, Inline(SIGNED)) is None
    assert said(path, External(DIGEST, len(SIGNED))) is None
