"""Signers of images in a registry, and the policy by which a host accepts only their images."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from support import require

_PASSPHRASE = "not a secret"


class Signer(Protocol):
    """A key, and how an image is signed with it."""

    #: The content of a file in ``registries.d`` for a host: where signatures are stored.
    registries_d: dict[str, Any]

    def options(self) -> list[str]:
        """Return the options by which ``skopeo copy`` signs what it copies."""

    def requirement(self) -> dict[str, Any]:
        """Return the requirement of a policy that an image has this signer's signature."""

    def steal(self, registry: str, repository: str, old: str, new: str) -> None:
        """Put the signatures of a manifest where those of another manifest are looked for."""


class Sigstore:
    """Signs by a sigstore key; the signatures are in the registry, beside the image."""

    def __init__(self, directory: Path, name: str) -> None:
        self._prefix = directory / name
        self._passphrase = directory / f"{name}.passphrase"
        self._passphrase.write_text(_PASSPHRASE)
        self.registries_d = {"use-sigstore-attachments": True}
        _run(
            *("skopeo", "generate-sigstore-key", "--output-prefix", str(self._prefix)),
            *("--passphrase-file", str(self._passphrase)),
        )

    def options(self) -> list[str]:
        return [
            *("--sign-by-sigstore-private-key", f"{self._prefix}.private"),
            *("--sign-passphrase-file", str(self._passphrase)),
        ]

    def requirement(self) -> dict[str, Any]:
        return {"type": "sigstoreSigned", "keyPath": f"{self._prefix}.pub"}

    def steal(self, registry: str, repository: str, old: str, new: str) -> None:
        tags = [f"docker://{registry}/{repository}:sha256-{digest}.sig" for digest in (old, new)]
        _run("skopeo", "--insecure-policy", "copy", "--preserve-digests", *tags)


class Gnupg:
    """Signs by a GPG key; the signatures are in a directory, the lookaside store.

    skopeo finds the key in the home that ``GNUPGHOME`` names.
    """

    def __init__(self, home: Path, directory: Path, name: str) -> None:
        require.tool("gpg")
        self._public = directory / f"{name}.gpg"
        self._store = directory / "lookaside"
        self.registries_d = {
            "lookaside": f"file://{self._store}",
            "lookaside-staging": f"file://{self._store}",
        }
        self._name = f"{name}@example.com"
        gpg = ("gpg", "--homedir", str(home), "--batch", "--passphrase", "")
        _run(*gpg, "--quick-gen-key", self._name)
        _run(*gpg, "--output", str(self._public), "--export", self._name)

    def options(self) -> list[str]:
        return ["--sign-by", self._name]

    def requirement(self) -> dict[str, Any]:
        return {"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(self._public)}

    def steal(self, registry: str, repository: str, old: str, new: str) -> None:
        (source,) = self._store.rglob(f"{repository}@sha256={old}")
        shutil.copytree(source, source.with_name(source.name.replace(old, new)))


@contextmanager
def gnupg_home() -> Iterator[Path]:
    """Make a home for keys; the agent that gpg starts in it ends with the block."""
    # A path in the directory of a test is too long for the socket of the agent.
    with tempfile.TemporaryDirectory(prefix="gpg") as path:
        try:
            yield Path(path)
        finally:
            subprocess.run(["gpgconf", "--homedir", path, "--kill", "all"], check=False, timeout=30)


def write_configuration(home: Path, registry: str, policy: object, registries_d: object) -> Path:
    """Configure skopeo for a user, and return the path of the policy."""
    containers = home / ".config/containers"
    (containers / "registries.d").mkdir(parents=True, exist_ok=True)
    # JSON is YAML.
    text = json.dumps({"docker": {registry: registries_d}})
    (containers / "registries.d/test.yaml").write_text(text)
    path = containers / "policy.json"
    path.write_text(json.dumps(policy))
    return path


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=120)
