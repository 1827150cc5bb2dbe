"""Signed images in a real registry: what skopeo verifies is what bootc deploys."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.deploy import upgrade as updates
from bootc.deploy.host.model import ImageSpec
from bootc.deploy.upgrade import UpdateOptions
from bootc.errors import one_line
from bootc.formats.imgref import ImageReference
from bootc.formats.ocispec import MAX_MANIFEST_BYTES
from bootc.formats.origin import Signature
from bootc.formats.sigpolicy import directory_scopes, parse_policy, registry_scopes
from bootc.oci import skopeo
from bootc.oci.sigpolicy import PolicyNotEnforced, enforced_policy
from bootc.oci.skopeo import SkopeoError
from bootc.oci.source import open_source
from support import osimages, require, signing
from support.bench import Bench, upgrade
from support.images import ARCHITECTURE, sha256
from support.machine import Command
from support.osimages import Images, OsImage
from support.signing import Gnupg, Signer, Sigstore
from testbed import registry

pytestmark = pytest.mark.interop

REJECT = [{"type": "reject"}]
ANYTHING = [{"type": "insecureAcceptAnything"}]


@pytest.fixture(scope="module", params=["gnupg", "sigstore"])
def keys(
    request: pytest.FixtureRequest,
    signatures_registry: registry.Registry,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Signer, Signer]]:
    """Return the keys of two signers."""
    top = tmp_path_factory.mktemp("keys")
    if request.param == "sigstore":
        yield Sigstore(top, "ours"), Sigstore(top, "theirs")
        return
    require.tool("gpg")
    with signing.gnupg_home() as home, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GNUPGHOME", str(home))
        yield Gnupg(home, top, "ours"), Gnupg(home, top, "theirs")


class Signers:
    """Two keys of one kind, and a registry with images that they signed."""

    def __init__(
        self, server: registry.Registry, images: Images, ours: Signer, theirs: Signer
    ) -> None:
        self.server = server
        self.images = images
        self.ours = ours
        self.theirs = theirs
        self.policy = signing.write_configuration(
            server.directory / "home",
            server.host,
            {
                "default": REJECT,
                "transports": {
                    "docker": {server.host: [ours.requirement()]},
                    # The image that a machine is installed with.
                    "oci": {"": ANYTHING},
                },
            },
            ours.registries_d,
        )

    def push(self, image: OsImage, name: str, signer: Signer | None) -> ImageReference:
        """Push an image, signed or not."""
        layout = f"oci:{self.images.path}/all:{image.tag}"
        options = signer.options() if signer is not None else ()
        return ImageReference.parse(self.server.push(layout, name, "--preserve-digests", *options))

    def digest(self, image: OsImage) -> str:
        """Return the digest of the manifest of an image, in hex."""
        return str(self.images.entry(image)["digest"]).removeprefix("sha256:")


@pytest.fixture
def signers(
    signatures: registry.Registry, os_images: Images, keys: tuple[Signer, Signer]
) -> Iterator[Signers]:
    signers = Signers(signatures, os_images, *keys)
    yield signers
    signers.policy.unlink()


def enforcing(target: ImageReference) -> Command:
    spec = ImageSpec(target, Signature())
    return lambda system, journal: updates.switch(system, spec, UpdateOptions(), journal)


def test_a_signed_image_is_deployed_and_so_are_its_updates(signers: Signers, bench: Bench) -> None:
    reference = signers.push(osimages.NEW, "os:1", signers.ours)
    said = bench.machine.command(enforcing(reference))
    kind = signers.ours.requirement()["type"]
    assert said[0] == (
        f"notice: skopeo checks the signature of the image by {signers.policy}: "
        f"the rule for docker:{signers.server.host} is {kind}"
    )
    assert bench.machine.reboot() is None
    assert bench.machine.booted_id == bench.id(osimages.NEW)
    origin = bench.machine.state(bench.machine.booted_id) / f"{bench.machine.booted_id}.origin"
    assert f"container-image-reference = ostree-image-signed:{reference}\n" in origin.read_text()
    signers.push(osimages.TURNED, "os:1", signers.theirs)
    before = bench.machine.contents(repository=True)
    for command in (lambda: bench.machine.command(upgrade()), bench.check):
        with pytest.raises(SkopeoError):
            command()
    assert bench.machine.contents(repository=True) == before
    signers.push(osimages.TURNED, "os:1", signers.ours)
    bench.machine.command(upgrade())
    assert bench.machine.reboot() is None
    assert bench.machine.booted_id == bench.id(osimages.TURNED)


#: What skopeo says, by what is wrong with an image; docs/howto/signatures.md explains it.
SAID = {
    "unsigned": ("A signature was required, but no signature exists",),
    "another key": ("Invalid GPG signature", "cryptographic signature verification failed"),
    "swapped": ("Signature for digest ",),
    "another name": (
        "A signature was required, but no signature exists",
        "Signature for identity ",
    ),
}


@pytest.mark.parametrize("how", SAID)
def test_another_image_is_refused(signers: Signers, bench: Bench, how: str) -> None:
    name = f"{how.replace(' ', '-')}:1"
    if how == "unsigned":
        reference = signers.push(osimages.NEW, name, None)
    elif how == "another key":
        reference = signers.push(osimages.NEW, name, signers.theirs)
    else:
        reference = signers.push(osimages.NEW, name, signers.ours)
    if how == "swapped":
        signers.push(osimages.TURNED, name, None)
        digests = map(signers.digest, (osimages.NEW, osimages.TURNED))
        signers.ours.steal(signers.server.host, name.partition(":")[0], *digests)
    if how == "another name":
        # The signature names the tag, so an older image cannot pass for a newer one.
        reference = signers.push(osimages.NEW, name.replace(":1", ":2"), None)
    before = bench.machine.contents(repository=True)
    with pytest.raises(SkopeoError) as caught:
        bench.machine.command(enforcing(reference))
    line = one_line(caught.value)
    under = f"Opening image {reference} under the signature policy {signers.policy}: skopeo: "
    assert line.startswith(tuple(under + said for said in SAID[how]))
    assert bench.machine.contents(repository=True) == before


def test_a_tag_that_moves_after_the_check(signers: Signers) -> None:
    reference = signers.push(osimages.NEW, "moves:1", signers.ours)
    policy = enforced_policy(reference, Signature())
    with skopeo._proxy(os.environ, policy) as proxy:
        image = skopeo._Image.open(proxy, reference)
        signers.push(osimages.TURNED, "moves:1", None)
        digest, _ = image.document("GetManifest", MAX_MANIFEST_BYTES)
    assert digest == f"sha256:{signers.digest(osimages.NEW)}"


def test_an_image_of_several_architectures(signers: Signers, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    shutil.copytree(signers.images.path / "all", layout)
    platform = {"architecture": ARCHITECTURE, "os": "linux"}
    kind = "application/vnd.oci.image.index.v1+json"
    entries = [{**signers.images.entry(osimages.NEW), "platform": platform}]
    raw = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode()
    digest = sha256(raw)
    (layout / "blobs/sha256" / digest.removeprefix("sha256:")).write_bytes(raw)
    entry = {"mediaType": kind, "digest": digest, "size": len(raw)}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    server, options = signers.server, signers.ours.options()
    reference = ImageReference.parse(server.push(f"oci:{layout}", "list:1", "--all"))
    with pytest.raises(SkopeoError), open_source(reference, Signature()):
        pass
    server.push(f"oci:{layout}", "list:1", "--all", *options)
    with open_source(reference, Signature()) as source:
        assert source.manifest_digest.hex == signers.digest(osimages.NEW)


def test_a_policy_that_changes_after_the_check(signers: Signers) -> None:
    reference = signers.push(osimages.NEW, "policy:1", None)
    policy = enforced_policy(reference, Signature())
    signers.policy.write_text(json.dumps({"default": ANYTHING}))
    with pytest.raises(SkopeoError), skopeo.open_skopeo(reference, policy=policy):
        pass


def test_local_storage(signers: Signers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require.root()
    program = shutil.which("skopeo", path=os.defpath)
    assert program is not None
    storage = tmp_path / "storage.conf"
    storage.write_text(
        f'[storage]\ndriver = "vfs"\nrunroot = "{tmp_path}/run"\ngraphroot = "{tmp_path}/graph"\n'
    )
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(storage))
    policy = json.loads(signers.policy.read_text())
    rules = policy["transports"]["containers-storage"] = {"": [signers.ours.requirement()]}
    signers.policy.write_text(json.dumps(policy))
    signed = signers.push(osimages.NEW, "stored:1", signers.ours)
    unsigned = signers.push(osimages.TURNED, "unsigned:1", None)
    for reference in (signed, unsigned):
        local = ImageReference("containers-storage", reference.name)
        # Not the skopeo of a tree: it starts itself to unpack layers.
        argv = [program, "--insecure-policy", "copy", str(reference), str(local)]
        subprocess.run(argv, check=True, capture_output=True)
    with open_source(ImageReference("containers-storage", signed.name), Signature()) as source:
        assert source.manifest_digest.hex == signers.digest(osimages.NEW)
    local = ImageReference("containers-storage", unsigned.name)
    with pytest.raises(SkopeoError), open_source(local, Signature()):
        pass
    # bootc does not know which rule skopeo will choose, so none may be weaker.
    rules[f"[vfs@{tmp_path}/graph]"] = ANYTHING
    signers.policy.write_text(json.dumps(policy))
    with (
        pytest.raises(PolicyNotEnforced, match="does not protect"),
        open_source(local, Signature()),
    ):
        pass


NAMES = (
    "docker.io/library/os:1",
    "os",
    "team/os:1",
    "index.docker.io/os:1",
    "localhost/os:1",
    "registry.example.com/os:1",
    "registry.example.com:5000/a/b/os",
    "registry.example.com:5000/a/b/os:v1",
    "other.example.com/a/os:2",
    "example.com/a:1",
    "unknown/x/y/z:1",
)
SCOPES = (
    "docker.io/library/os:1",
    "docker.io/library",
    "docker.io/team",
    "localhost",
    "registry.example.com/os",
    "registry.example.com:5000/a/b/os:latest",
    "registry.example.com:5000/a",
    "*.example.com",
    "*.com",
)


def section(policy: Path, reference: str) -> str:
    """Return the rule that skopeo applies to an image."""
    done = subprocess.run(
        ["skopeo", "--debug", "--policy", str(policy), "copy", reference, f"dir:{policy}.none"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    _, found, rest = done.stderr.partition("IsRunningImageAllowed for image ")
    assert found, done.stderr
    line = rest.splitlines()[1]
    if "Using default policy section" in line:
        return "the default"
    _, _, rest = line.partition('Using transport \\"')
    transport, _, rest = rest.partition('\\"')
    scope = rest.rpartition("policy section ")[2].strip('\\"')
    return f"the rule for {transport}:{scope}" if scope else f"the default for {transport}"


def test_rules_are_those_that_skopeo_applies(
    signatures: registry.Registry, os_images: Images, tmp_path: Path
) -> None:
    path, link = tmp_path / "policy.json", tmp_path / "link"
    layout = os_images.path.resolve() / "all"
    link.symlink_to(layout)
    oci = [*("", str(layout.parent)), f"{layout}:new", str(link)]
    rules = {"docker": dict.fromkeys(SCOPES, REJECT), "oci": dict.fromkeys(oci, REJECT)}
    path.write_text(json.dumps({"default": REJECT, "transports": rules}))
    policy = parse_policy(path.read_bytes())
    scopes = {f"docker://{name}": registry_scopes(name) for name in NAMES}
    for tag in ("1", "2", "v1", "latest"):
        signatures.push(f"oci:{layout}:new", f"any:{tag}")
    (Path(os.environ["HOME"]) / ".config/containers/registries.conf").write_text(
        "".join(
            registry.configuration(f"{signatures.host}/any", known_as=repository)
            for repository in {found[1] for found in scopes.values()}
        )
    )
    found = {name: policy.rule("docker", scopes[name]).name for name in scopes}
    assert len(set(found.values())) > 6
    found |= {
        f"oci:{place}:new": policy.rule("oci", directory_scopes(os.path.realpath(place))).name
        for place in (layout, link)
    }
    assert {name: section(path, name) for name in found} == found
