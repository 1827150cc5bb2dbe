"""docs/howto/signatures.md, followed by a builder and by machines."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bootc.cli.options import build_parser
from bootc.cli.table import commands_for
from bootc.cli.verbs import switch as switch_verb
from bootc.deploy import upgrade as updates
from bootc.deploy.upgrade import UpdateOptions
from support import howto, installer, osimages, require, signing
from support.bench import Bench
from support.commands import Commands
from support.images import bootable, directory, file, single
from support.machine import Command
from support.osimages import Images
from testbed import registry

pytestmark = pytest.mark.interop

ANYTHING = [{"type": "insecureAcceptAnything"}]


def blocks(beginning: str) -> list[str]:
    """Return the files that the how-to prints, by their beginning."""
    text = howto.text("signatures")
    found = map(textwrap.dedent, re.findall(r"(?:^ {4,}.*\n)+", text, re.MULTILINE))
    return [block for block in found if block.startswith(beginning)]


def rules_of_page() -> dict[str, Any]:
    """Return the policy of the how-to, with a rule for the builder, which is the same machine."""
    (text,) = blocks("{")
    rules: dict[str, Any] = json.loads(text)
    rules["transports"]["oci"] = {"": ANYTHING}
    return rules


@dataclass(frozen=True)
class Follow:
    """Runs commands of the how-to, and puts the test's own names into its files."""

    run: Callable[..., subprocess.CompletedProcess[str]]
    replaced: Callable[[str], str]
    policy: Path

    def configure(self, policy: str, registries_d: str) -> None:
        """Write the configuration of skopeo."""
        (self.policy.parent / "registries.d").mkdir(exist_ok=True)
        (self.policy.parent / "registries.d/test.yaml").write_text(self.replaced(registries_d))
        self.policy.write_text(self.replaced(policy))


@pytest.fixture
def follow(
    signatures: registry.Registry,
    os_images: Images,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Follow]:
    """Have a function run the commands of the how-to in the directory of a builder."""
    builder = tmp_path / "builder"
    builder.mkdir()
    (builder / "passphrase").write_text("not a secret")
    ours = {
        "https://registry.example.com/signatures": f"file://{builder}/signatures",
        "/srv/signatures": f"{builder}/signatures",
        "registry.example.com": signatures.host,
        "/etc/containers/": f"{builder}/",
        "oci:out/oci:v1": f"oci:{os_images.path}/all:new",
    }

    def run(command: str, image: str = "") -> subprocess.CompletedProcess[str]:
        known = {**ours, "oci:out/oci:v1": image} if image else ours
        return subprocess.run(
            ["sh", "-c", howto.replaced(command, known)],
            cwd=builder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    policy = signatures.directory / "home/.config/containers/policy.json"
    yield Follow(run, lambda text: howto.replaced(text, ours), policy)
    policy.unlink(missing_ok=True)


def switch_to(command: str) -> Command:
    (words,) = howto.bootc_arguments(command)
    target = switch_verb._target(build_parser("bootc", commands_for(), "0").parse_args(words))
    return lambda system, journal: updates.switch(system, target, UpdateOptions(), journal)


def test_the_how_to_with_a_sigstore_key(follow: Follow, bench: Bench) -> None:
    follow.configure(json.dumps(rules_of_page()), blocks("docker:")[0])
    for command in (
        howto.command("signatures", "skopeo generate-sigstore-key"),
        howto.command("signatures", "skopeo copy --sign-by-sigstore-private-key"),
    ):
        done = follow.run(command)
        assert done.returncode == 0, done.stderr
    command = howto.command("signatures", "bootc switch")
    bench.machine.command(switch_to(follow.replaced(command)))
    assert bench.machine.reboot() is None
    assert bench.machine.booted_id == bench.id(osimages.NEW)


def test_the_how_to_with_a_gpg_key(
    follow: Follow, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    require.tool("gpg")
    page = howto.text("signatures")
    (requirement,) = re.findall(r'`(\{"type": "signedBy".*\})`', page)
    rules = rules_of_page()
    rules["transports"]["docker"]["registry.example.com/os"] = [json.loads(requirement)]
    follow.configure(json.dumps(rules), blocks("docker:")[1])
    with signing.gnupg_home() as home:
        monkeypatch.setenv("GNUPGHOME", str(home))
        for command in (
            *howto.commands("signatures", "gpg"),
            howto.command("signatures", "skopeo copy --sign-by "),
        ):
            done = follow.run(command)
            assert done.returncode == 0, done.stderr
        command = howto.command("signatures", "bootc switch")
        bench.machine.command(switch_to(follow.replaced(command)))
    assert bench.machine.reboot() is None
    assert bench.machine.booted_id == bench.id(osimages.NEW)


def test_the_how_to_installs_a_signed_image(
    follow: Follow, signatures: registry.Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require.root()
    require.tool("sfdisk")
    policy = json.dumps(rules_of_page())
    follow.configure(policy, blocks("docker:")[0])
    layer = bootable(
        *(directory(name) for name in ("etc", "etc/containers", "var", "tmp")),
        file("etc/containers/policy.json", follow.replaced(policy).encode()),
        file("usr/lib/os-release", b"ID=demo\nVERSION_ID=1\n"),
        *(directory(f"usr/lib/systemd{below}") for below in ("", "/boot", "/boot/efi")),
        *(file(f"usr/lib/systemd/boot/efi/systemd-boot{s}.efi") for s in ("x64", "aa64")),
        kernel=b"kernel" * 1000,
        initramfs=b"initramfs" * 1000,
    )
    layout = single(tmp_path / "layout", layer, tag="v1").reference("v1")
    commands = Commands(tmp_path / "commands", monkeypatch)
    commands.mock("bootctl", installer.BOOTCTL)
    commands.mock("bootc", f'exec {sys.executable} -m support.installer "$@"')
    monkeypatch.setenv("PYTHONPATH", installer.PYTHONPATH)
    disk = tmp_path / "disk.img"
    disk.touch()
    os.truncate(disk, 2 << 30)
    # The disk is a file, and not every kernel has fs-verity.
    install = (
        f"{howto.installer('signatures', 'bootc install to-disk')} --via-loopback"
        f" --allow-missing-verity --source-imgref {howto.IMAGE} {disk}"
    )
    done = follow.run(howto.command("signatures", "skopeo generate-sigstore-key"))
    assert done.returncode == 0, done.stderr
    signatures.push(layout, "os:v1")
    refused = follow.run(install)
    assert refused.returncode == 1
    assert "A signature was required, but no signature exists" in refused.stderr
    assert disk.stat().st_blocks == 0
    done = follow.run(howto.command("signatures", "skopeo copy --sign-by-sigstore"), layout)
    assert done.returncode == 0, done.stderr
    done = follow.run(install)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert f"notice: skopeo checks the signature of the image by {follow.policy}: " in done.stdout
    assert "will refuse updates" not in done.stdout
    assert said[-1] == "Installation complete!"
