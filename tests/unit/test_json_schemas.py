"""The schemas of the package hold for what the commands print, and only for that.

``tests/property/test_status_total.py`` does the same for the status of any machine.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from bootc.boot.addons import AddonContent, InstalledAddon
from bootc.boot.findings import Finding, FindingKind
from bootc.boot.loader import Bootloader
from bootc.cli import main as cli
from bootc.cli.options import Command
from bootc.cli.progressfd import ProgressLines
from bootc.cli.render.addon import addons_json
from bootc.cli.render.etc import review_json
from bootc.cli.render.explain import comparison_json
from bootc.cli.render.hostimages import images_json
from bootc.cli.render.structured import render_json
from bootc.cli.table import commands_for
from bootc.deploy.addons import Addon, AddonList
from bootc.deploy.etc.diff import Change, ChangeKind
from bootc.deploy.etc.merge import Choice, Conflict, ConflictPolicy
from bootc.deploy.etc.review import MergeReview, Review
from bootc.deploy.host.model import (
    BootEntry,
    ComposefsStatus,
    Host,
    HostSpec,
    HostStatus,
    ImageSpec,
    ImageStatus,
    Timestamp,
    UsrOverlay,
)
from bootc.deploy.host.selection import PARTS
from bootc.deploy.images import HostImage
from bootc.deploy.installed_addons import Owner
from bootc.events import LAYER_TASK, Start, null_sink
from bootc.formats.dialect import Dialect
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import BootType, Signature
from bootc.formats.treediff import Aspect, Difference, DifferenceGroup
from bootc.oci.canonical import Applied, known_canonicalisations
from bootc.oci.explain import Comparison, Side, SideKind
from bootc.oci.unpack import split_layer
from support import images
from support.cfs import Cfs
from support.roots import bootable
from support.schemas import SCHEMA_OF, SCHEMAS, check, is_valid, problems, schema
from support.upstreamjson import HOST

TOP = Path(__file__).parents[2]
PAGE = TOP / "docs/reference/json.md"
A, B = Digest.from_hex("aa" * 64), Digest.from_hex("bb" * 32)
MANIFEST = OciDigest("sha256", "11" * 32)
BIG = b"big" * 1000
LAYER = images.layer(images.file("usr/big", BIG), images.file("usr/small", b"small"))

#: Keys that a document may lack. ``needed_by`` has digests for keys.
OPTIONAL = {
    *("signature", "otherDeployments", "findings"),
    *("pathHex", "nameHex", "xattrHex", "relinked", "repair"),
    A.hex,
}


def host() -> Host:
    """Return a host with everything that a host can have."""
    references = [
        ImageSpec(ImageReference("registry", "quay.io/example/os:43")),
        ImageSpec(ImageReference("oci", "/srv/os"), Signature()),
        ImageSpec(ImageReference("registry", "quay.io/example/os"), Signature("fedora")),
    ]
    created = Timestamp.parse("2026-08-01T00:00:00.123456Z")
    found = [
        ImageStatus(reference, MANIFEST, "amd64", version, created)
        for reference, version in zip(references, (None, "43", "44"), strict=True)
    ]
    stored = [
        ComposefsStatus(digest, boot_type, loader, boot_digest, tolerated)
        for digest, boot_type, loader, boot_digest, tolerated in (
            (A, BootType.BLS, Bootloader.SYSTEMD, "00" * 32, False),
            (B, BootType.UKI, Bootloader.GRUB, None, True),
            (A, BootType.BLS, Bootloader.GRUB_CC, None, False),
        )
    ]
    booted, rollback, staged = (
        BootEntry(composefs, image) for composefs, image in zip(stored, found, strict=True)
    )
    status = HostStatus(
        staged=dataclasses.replace(staged, download_only=True),
        booted=dataclasses.replace(booted, pinned=True, cached_update=found[2]),
        rollback=dataclasses.replace(rollback, soft_reboot_capable=True),
        other_deployments=(BootEntry(stored[0]),),
        rollback_queued=True,
        usr_overlay=UsrOverlay("readWrite"),
        is_bootc=True,
        findings=tuple(Finding(kind, "a\nb", "text") for kind in FindingKind),
    )
    return Host(HostSpec(references[1], "rollback"), status)


def review() -> Review:
    conflicts = (Conflict(b"x", "reason", None), Conflict(b"\xff", "reason", Choice.TAKE))
    merge = MergeReview(A, ConflictPolicy.KEEP_LOCAL, conflicts, (b"shadowed", b"\xfe"))
    changes = tuple(Change(b"caf\xe9", kind) for kind in ChangeKind)
    return Review(changes, {b"a": Choice.KEEP, b"\xff": Choice.TAKE}, merge)


def report() -> Comparison:
    sides = (Side("a", SideKind.DIRECTORY, 3, A, 1), Side("b", SideKind.IMAGE, 4, B, None))
    findings = tuple(
        DifferenceGroup(
            aspect,
            b"user.\xff" if aspect is Aspect.XATTR else b"",
            *(3, 1, 1, 0),
            (Difference(b"/caf\xe9", aspect, "1", None, False),),
        )
        for aspect in Aspect
    )
    change = known_canonicalisations(A.algorithm, None)[0]
    return Comparison(*sides, findings, (Applied(change, True, False),), (Dialect.RUST, None))


def progress_lines() -> list[str]:
    """Return the lines of a pull with a layer in progress."""
    reader, writer = os.pipe()
    with open(reader, encoding="utf-8") as lines:
        with ProgressLines(writer, null_sink) as sink:
            sink(Start(f"{LAYER_TASK}sha256:{'0' * 64}", "Layer", 10))
        os.close(writer)
        return lines.read().splitlines()


def addons() -> AddonList:
    """Return an add-on of each kind."""
    content = AddonContent("quiet", None, 0x8664, (".cmdline",), signed=True)
    good = InstalledAddon("a.addon.efi", "x/a.addon.efi", 3, b"abc", content)
    bad = InstalledAddon("b.addon.efi", "x/b.addon.efi", 0, b"", None, "it is no EFI program")
    return AddonList(
        (
            Addon(good, None, Owner.ADMINISTRATOR),
            Addon(good, A, Owner.IMAGE),
            Addon(bad, B, None),
        ),
        {A: "booted"},
    )


def host_images() -> tuple[HostImage, ...]:
    """Return an image with and one without the parts that can be missing."""
    image = ImageReference("oci", "/os:1")
    return (
        HostImage(A, ("booted", "rollback"), image, OciDigest.of(b"")),
        HostImage(B, (), image, None),
        HostImage(B, (), None, None),
    )


DOCUMENTS = {
    "image-list": lambda: images_json(host_images()),
    "addon-list": lambda: render_json(addons_json(addons())),
    "host": lambda: render_json(host().to_json()),
    "etc-diff": lambda: render_json(review_json(review())),
    "digest-explanation": lambda: comparison_json(report()),
}


# -- documents made of values


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        *((name, make) for name, make in DOCUMENTS.items()),
        ("host", lambda: render_json(Host.empty().to_json())),
        ("etc-diff", lambda: render_json(review_json(Review((), {}, None)))),
        ("addon-list", lambda: render_json(addons_json(AddonList((), {})))),
        ("image-list", lambda: images_json(())),
        ("digest-explanation", lambda: comparison_json(equal(()))),
        ("digest-explanation", lambda: comparison_json(equal(None))),
    ],
)
def test_values(name: str, printed: Callable[[], str]) -> None:
    check(name, printed())


def equal(explanation: tuple[Applied, ...] | None) -> Comparison:
    sides = (Side("a", SideKind.DUMPFILE, 3, A, 1), Side("b", SideKind.CONTAINER, 4, A, 2))
    return Comparison(*sides, findings=(), explanation=explanation)


def test_the_words_of_a_schema_are_those_of_the_code() -> None:
    definitions = schema("host")["$defs"]
    assert set(definitions["finding"]["properties"]["kind"]["enum"]) == set(FindingKind)
    loaders = definitions["composefs"]["properties"]["bootloader"]["enum"]
    assert set(loaders) == set(Bootloader)
    types = definitions["composefs"]["properties"]["bootType"]["enum"]
    assert [name.lower() for name in types] == [boot_type.value for boot_type in BootType]
    explained = schema("digest-explanation")
    aspects = explained["$defs"]["difference"]["properties"]["class"]["enum"]
    assert aspects == [aspect.value for aspect in Aspect]
    assert explained["$defs"]["side"]["properties"]["kind"]["enum"] == [k.value for k in SideKind]
    writers = explained["properties"]["writers"]["anyOf"][0]["items"]["enum"]
    assert writers == [*(dialect.value for dialect in Dialect), None]
    addon = schema("addon-list")["properties"]["addons"]["items"]["properties"]
    assert addon["from"]["enum"] == [*(owner.value for owner in Owner), None]
    assert addon["role"]["enum"] == [*PARTS, None]
    image = schema("image-list")["items"]["properties"]
    assert image["roles"]["items"]["enum"] == [*PARTS]
    staged = schema("etc-diff")["properties"]["staged"]["anyOf"][0]["properties"]
    assert staged["policy"]["enum"] == [policy.value for policy in ConflictPolicy]


# -- upstream's documents


@pytest.mark.parametrize("make", [host, Host.empty], ids=["everything", "nothing"])
def test_a_host_is_one_that_programs_for_upstream_know(make: Callable[[], Host]) -> None:
    document = json.loads(render_json(make().to_json()))
    errors = Draft202012Validator(HOST).iter_errors(document)
    assert [f"{error.json_path}: {error.message}" for error in errors] == []


# -- what commands print


def test_features(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["internals", "features", "--json"]) == 0
    check("features", capsys.readouterr().out)


def test_container_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = bootable(tmp_path / "root")
    root.file("usr/lib/bootc/kargs.d/10-a.toml", 'kargs = ["quiet"]')
    for path in (str(root.path), os.fspath(tmp_path)):
        assert cli.main(["container", "inspect", "--json", "--rootfs", path]) == 0
        check("container-inspect", capsys.readouterr().out)


def test_an_explanation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").write_text("/ 0 40755 2 0 0 0 0.0 - - -\n")
    (tmp_path / "b").write_text("/ 0 40700 2 0 0 0 0.5 - - - user.x=1\n")
    verb = ["container", "compute-composefs-digest", "--json", "--explain", str(tmp_path / "a")]
    assert cli.main([*verb, str(tmp_path / "b")]) == 1
    found = check("digest-explanation", capsys.readouterr().out)
    assert {difference["class"] for difference in found["differences"]} >= {"mode", "xattr"}


@pytest.fixture
def layout(tmp_path: Path) -> images.Layout:
    config = {"created": "2026-01-02T03:04:05Z"}
    return images.single(tmp_path / "layout", images.bootable(), LAYER, config=config)


@pytest.fixture
def cfs(
    tmp_path: Path,
    layout: images.Layout,
    capsysbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> Cfs:
    cfs = Cfs(tmp_path / "repo", capsysbinary, monkeypatch)
    cfs("init", "--insecure")
    cfs("oci", "pull", "--bootable", layout.reference(), "os")
    return cfs


def test_a_whole_repository(cfs: Cfs, tmp_path: Path) -> None:
    (tmp_path / "tree/usr").mkdir(parents=True)
    cfs("create-image", tmp_path / "tree", "name")
    name = next((cfs.repo / "images/refs").iterdir())
    name.rename(name.with_name(os.fsdecode(b"\xff")))
    images_of = check("cfs-images", cfs("images", "--json"))["images"]
    assert [image["nameHex"] for image in images_of] == ["ff"]
    assert check("cfs-oci-images", cfs("oci", "images", "--json"))["images"][0]["name"] == "os"
    assert check("cfs-oci-inspect", cfs("oci", "inspect", "os"))["composefs_boot_erofs"]
    diff_id = images.sha256(LAYER)
    found = check("cfs-oci-layer", cfs("oci", "layer", diff_id, "--json"))
    assert found["splitstream"]["externalSize"] == len(BIG)
    for repair in ((), ("--repair",)):
        assert check("cfs-fsck", cfs("fsck", "--json", *repair))["ok"] is True
        assert check("cfs-oci-fsck", cfs("oci", "fsck", "--json", *repair))["ok"] is True


def test_an_empty_repository(tmp_path: Path, cfs: Cfs) -> None:
    cfs.repo = tmp_path / "empty"
    cfs("init", "--insecure")
    check("cfs-images", cfs("images", "--json"))
    check("cfs-oci-images", cfs("oci", "images", "--json"))


def test_a_damaged_repository(cfs: Cfs) -> None:
    with cfs.repository() as repository:
        wrong = LAYER.replace(b"bigbig", b"bigbag", 1)
        stream = split_layer(io.BytesIO(wrong), OciDigest.of(wrong), repository.objects)
        repository.streams.write(f"oci-layer-{images.sha256(LAYER)}", stream)
    found = check("cfs-oci-fsck", cfs("oci", "fsck", "--repair", "--json"))
    assert found["repair"]["set_aside"]
    found = check("cfs-oci-fsck", cfs("oci", "fsck", "--repair", "--json"))
    assert found["repair"]["pull_again"] == ["os"]
    object_path = max((cfs.repo / "objects").glob("*/*"), key=lambda path: path.stat().st_size)
    object_path.write_bytes(b"damaged")
    found = check("cfs-fsck", cfs("fsck", "--repair", "--json"))
    assert found["errors"]
    assert found["repair"]["quarantined"]


# -- every command, and the page


def with_json(commands: tuple[Command, ...], above: str = "") -> Iterator[str]:
    """Yield the words of each command that has ``--json``."""
    for command in commands:
        words = f"{above} {command.name}".strip()
        if any("--json" in option.flags for option in command.options):
            yield words
        yield from with_json(command.commands, words)


@pytest.mark.parametrize("name", ["host", "progress"])
def test_a_schema_is_printed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["internals", "print-json-schema", "--of", name]) == 0
    assert json.loads(capsys.readouterr().out) == schema(name)


def test_every_command_that_prints_json_has_a_schema() -> None:
    aliases = {words for words in with_json(commands_for()) if " cfsctl" in words}
    # These print JSON only, or by another option.
    others = {"image list", "internals cfs oci inspect", "upgrade --progress-fd"}
    found = {*with_json(commands_for()), *others} - aliases
    assert found == set(SCHEMA_OF)
    assert {f"{name}.json" for name in SCHEMA_OF.values()} == set(os.listdir(SCHEMAS))


def test_the_page_has_every_schema_and_command() -> None:
    text = PAGE.read_text("utf-8")
    for words, name in SCHEMA_OF.items():
        assert f"`bootc {words}" in text
        assert f"(../../src/bootc/cli/schemas/{name}.json)" in text


# -- strictness


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a document; of a list, of its first and last item."""
    yield path
    if isinstance(value, dict | list):
        keys = value if isinstance(value, dict) else sorted({0, len(value) - 1}) if value else ()
        for key in keys:
            yield from places(value[key], (*path, key))


def mutants(document: Any) -> Iterator[tuple[str, Any]]:
    """Yield copies of a document with one error each."""
    for path in places(document):
        for what in ("other type", "more", "less"):
            mutant = copy.deepcopy(document)
            above, place = None, mutant
            for key in path:
                above, place = place, place[key]
            if what == "other type" and above is not None:
                above[path[-1]] = 0.5
            elif what == "more" and isinstance(place, dict):
                place["unexpected"] = None
            elif what == "less" and isinstance(above, dict) and path[-1] not in OPTIONAL:
                del above[path[-1]]
            else:
                continue
            yield f"{what}: {path}", mutant


def documents(cfs: Cfs) -> Iterator[tuple[str, Any]]:
    for line in progress_lines():
        yield "progress", json.loads(line)
    for name, make in DOCUMENTS.items():
        yield name, json.loads(make())
    yield "container-inspect", {"kargs": ["quiet"], "kernel": {"version": "6", "unified": True}}
    digest = {"digest": A.hex}
    named = [{"name": "a", **digest}, {"name": "b", "nameHex": "ff", **digest}]
    yield "cfs-images", {"images": named}
    yield "cfs-oci-images", json.loads(cfs("oci", "images", "--json"))
    yield "cfs-oci-inspect", json.loads(cfs("oci", "inspect", "os"))
    layer = cfs("oci", "layer", images.sha256(LAYER), "--json")
    yield "cfs-oci-layer", json.loads(layer)
    lists = ("quarantined", "resealed", "set_aside", "left", "relinked")
    repair = {**{key: [A.hex] for key in lists}, "needed_by": {A.hex: ["images/x"]}}
    yield "cfs-fsck", json.loads(cfs("fsck", "--json")) | {"repair": repair}
    more = {"repair": {**repair, "pull_again": ["os"]}}
    yield "cfs-oci-fsck", json.loads(cfs("oci", "fsck", "--json")) | more
    libraries = dict.fromkeys(("extension", "zstandard", "rich"), "built")
    names = ("bootc", "python", "hashing", "hashing-reason")
    yield "features", libraries | dict.fromkeys(names, "x") | {"storing": "python"}


def test_a_schema_refuses_other_documents(cfs: Cfs) -> None:
    seen = set()
    for name, document in documents(cfs):
        assert problems(name, document) == [], name
        seen.add(name)
        passed = [what for what, mutant in mutants(document) if is_valid(name, mutant)]
        assert passed == [], name
    assert seen == set(SCHEMA_OF.values())
