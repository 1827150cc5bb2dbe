from __future__ import annotations

import dataclasses
import doctest
import json
import os
import subprocess
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bootc.boot.findings import Finding, FindingKind
from bootc.boot.loader import Bootloader
from bootc.cli import output
from bootc.cli.output import render_human, render_json, render_yaml
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
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import BootType, Signature

MANIFEST = OciDigest("sha256", "11" * 32)
NEWER = OciDigest("sha256", "22" * 32)
CREATED = Timestamp.parse("2026-08-01T00:00:00.5Z")


def entry(
    byte: str,
    *,
    name: str | None = "quay.io/example/os:43",
    transport: str = "registry",
    version: str | None = None,
    timestamp: Timestamp | None = None,
    signature: Signature | None = None,
    optional: bool = False,
    locked: bool = False,
) -> BootEntry:
    image = None
    if name is not None:
        spec = ImageSpec(ImageReference(transport, name), signature)
        image = ImageStatus(spec, MANIFEST, "amd64", version, timestamp)
    composefs = ComposefsStatus(
        Digest.from_hex(byte * 64), BootType.BLS, Bootloader.SYSTEMD, None, optional
    )
    return BootEntry(composefs, image, download_only=locked)


FULL = Host(
    HostSpec(),
    HostStatus(
        staged=entry("aa", transport="oci", name="/new", version="44", locked=True),
        booted=entry("bb", version="43", timestamp=CREATED, signature=Signature()),
        rollback=entry("cc", timestamp=CREATED, optional=True, signature=Signature("fedora")),
        other_deployments=(entry("dd"), entry("ee", name=None)),
        usr_overlay=UsrOverlay("readWrite"),
    ),
)


def test_for_people() -> None:
    assert render_human(FULL, verbose=False) == (
        "  Staged image: oci:/new\n"
        f"        Digest: {MANIFEST} (amd64)\n"
        f"        Verity: {'aa' * 64}\n"
        "       Version: 44\n"
        "\n"
        "● Booted image: quay.io/example/os:43\n"
        f"        Digest: {MANIFEST} (amd64)\n"
        f"        Verity: {'bb' * 64}\n"
        "       Version: 43 (2026-08-01T00:00:00Z)\n"
        "  /usr overlay: transient, read/write\n"
        "\n"
        "  Rollback image: quay.io/example/os:43\n"
        f"          Digest: {MANIFEST} (amd64)\n"
        f"          Verity: {'cc' * 64}\n"
        "       Timestamp: 2026-08-01T00:00:00Z\n"
        "\n"
        "   Other image: quay.io/example/os:43\n"
        f"        Digest: {MANIFEST} (amd64)\n"
        f"        Verity: {'dd' * 64}\n"
    )


def test_for_curious_people() -> None:
    lines = [line.split(": ", 1) for line in render_human(FULL, verbose=True).splitlines() if line]
    rows = [(label.strip(), value) for label, value in lines]
    assert [row for row in rows if row[0] in ("Signature", "FsVerity", "Download-only")] == [
        ("FsVerity", "Enforced"),
        ("Download-only", "yes"),
        ("Signature", "container-policy"),
        ("FsVerity", "Enforced"),
        ("Signature", "ostree-remote:fedora"),
        ("FsVerity", "Not Enforced"),
        ("FsVerity", "Enforced"),
    ]
    assert rows.count(("Soft-reboot", "no")) == 4


def test_deployments_that_name_no_image() -> None:
    status = HostStatus(
        booted=entry("aa", name=None),
        rollback=entry("bb", name=None),
        usr_overlay=UsrOverlay("readOnly"),
    )
    assert render_human(Host(HostSpec(), status), verbose=False) == (
        "● Booted composefs\n"
        f"            Commit: {'aa' * 64}\n"
        "      /usr overlay: transient, read-only\n"
        "\n"
        "  Rollback composefs\n"
        f"              Commit: {'bb' * 64}\n"
    )


def test_pins_and_updates() -> None:
    spec = ImageSpec(ImageReference("registry", "quay.io/example/os:43"))
    newer = ImageStatus(spec, NEWER, "amd64", "44", CREATED)
    unnamed = ImageStatus(spec, NEWER, "amd64")
    status = HostStatus(
        booted=dataclasses.replace(entry("aa"), pinned=True, cached_update=newer),
        rollback=dataclasses.replace(entry("bb"), cached_update=unnamed),
        other_deployments=(dataclasses.replace(entry("cc", name="x"), pinned=True),),
    )
    assert render_human(Host(HostSpec(), status), verbose=False) == (
        "● Booted image: quay.io/example/os:43\n"
        f"        Digest: {MANIFEST} (amd64)\n"
        f"        Verity: {'aa' * 64}\n"
        "        Pinned: yes\n"
        " UpdateVersion: 44 (2026-08-01T00:00:00Z)\n"
        f"  UpdateDigest: {NEWER}\n"
        "\n"
        "  Rollback image: quay.io/example/os:43\n"
        f"          Digest: {MANIFEST} (amd64)\n"
        f"          Verity: {'bb' * 64}\n"
        "          Update: Available\n"
        f"    UpdateDigest: {NEWER}\n"
        "\n"
        "   Other image: x\n"
        f"        Digest: {MANIFEST} (amd64)\n"
        f"        Verity: {'cc' * 64}\n"
        "        Pinned: yes\n"
    )


def test_a_pinned_deployment_that_names_no_image() -> None:
    status = HostStatus(booted=dataclasses.replace(entry("aa", name=None), pinned=True))
    assert render_human(Host(HostSpec(), status), verbose=False) == (
        f"● Booted composefs\n            Commit: {'aa' * 64}\n            Pinned: yes\n"
    )


ODD = (
    Finding(FindingKind.FOREIGN, "windows.conf", "it starts an EFI program"),
    Finding(FindingKind.MALFORMED, "bootc_\udcff\x1b[2J.conf", "two\nlines"),
    Finding(FindingKind.FAILED, "deployment aa", "conflicts in /etc"),
)


def test_what_is_odd_comes_last() -> None:
    host = Host(HostSpec(), HostStatus(booted=entry("aa", name=None), findings=ODD))
    shown = (
        "malformed: bootc_\\xff\\x1b[2J.conf: two\\nlines\n"
        "failed: deployment aa: conflicts in /etc\n"
    )
    commit = f"● Booted composefs\n            Commit: {'aa' * 64}\n"
    assert render_human(host, verbose=False) == f"{commit}\n{shown}"
    everything = render_human(host, verbose=True)
    assert everything.endswith(f"\n\nforeign: windows.conf: it starts an EFI program\n{shown}")


def test_what_others_have_there_is_not_odd() -> None:
    host = Host(HostSpec(), HostStatus(booted=entry("aa", name=None), findings=ODD[:1]))
    assert "foreign" not in render_human(host, verbose=False)


def test_json_of_any_file_name_can_be_written() -> None:
    value = Host(HostSpec(), HostStatus(findings=ODD)).to_json()
    assert json.loads(render_json(value).encode()) == value
    assert value["status"]["findings"][1] == {
        "kind": "malformed",
        "subject": "bootc_\\xff\\x1b[2J.conf",
        "text": "two\\nlines",
    }


def test_a_machine_that_is_none_of_ours() -> None:
    assert render_human(Host.empty(), verbose=True) == "System is not deployed via bootc.\n"


def test_json_is_canonical() -> None:
    assert render_json({"b": "é", "a": [1, None]}) == '{"a":[1,null],"b":"é"}'
    assert json.loads(render_json(FULL.to_json())) == FULL.to_json()


def test_yaml_keeps_the_order_of_the_schema() -> None:
    assert render_yaml(Host.empty().to_json()) == (
        "apiVersion: org.containers.bootc/v1\n"
        "kind: BootcHost\n"
        "metadata:\n"
        "  name: host\n"
        "spec:\n"
        "  image: null\n"
        "  bootOrder: default\n"
        "status:\n"
        "  staged: null\n"
        "  booted: null\n"
        "  rollback: null\n"
        "  rollbackQueued: false\n"
        "  type: null\n"
        "  usrOverlay: null\n"
        "  readOnly: false\n"
    )


def test_yaml_of_a_whole_host() -> None:
    value = FULL.to_json()
    assert render_yaml(value).startswith("apiVersion: org.containers.bootc/v1\nkind: BootcHost\n")
    assert "  staged:\n    image:\n      image:\n        image: /new\n" in render_yaml(value)
    assert yaml.safe_load(render_yaml(value)) == value


#: What YAML readers take for something else than a string, or for several things.
SUSPICIOUS = (
    *("no", "Yes", "ON", "y", "N", "true", "False", "null", "~", "", "=", "<<", "-", "?", ":"),
    *("1", "-1", "0x1f", "0o17", "017", "1e3", ".5", "1_000", "1:30", ".inf", "-.INF", ".nan"),
    *("2026-08-01", "2026-08-01T00:00:00Z", "a: b", "a:", "a #b", "#a", " a", "a ", "a\nb", "- a"),
    *("[a]", "{a}", "a, b", "&a", "*a", "!a", "|", ">", "'a'", '"a"', "%a", "@a", "`a", "a:b"),
    *("a\tb", "\x1b", "\x7f", "\x85", "\u2028", "\ufeff", "\U000e0001", "\U0001f600", "é", "---"),
    *("...", "a\\b", "\0", "key: [", "sha256:00", "/a/b", "a/b@sha256:0", "_", "x:", "::", "a::b"),
)
TEXTS = st.sampled_from(SUSPICIOUS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(TEXTS, VALUES, max_size=3))
def test_yaml_means_what_it_is_made_of(value: dict[str, object]) -> None:
    text = render_yaml(value)
    assert yaml.safe_load(text) == value
    assert all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("text", SUSPICIOUS)
def test_yaml_of_suspicious_text(text: str) -> None:
    value = {text: text, "a": [text, {text: [text]}]}
    assert yaml.safe_load(render_yaml(value)) == value
    assert list(yaml.safe_load(render_yaml(value))) == list(value)


def test_other_values_are_a_mistake() -> None:
    with pytest.raises(TypeError):
        render_yaml({"a": 1.5})


def test_status_needs_no_library_for_yaml() -> None:
    program = "import sys; sys.modules['yaml'] = None\nfrom bootc.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "status"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert yaml.safe_load(done.stdout)["kind"] == "BootcHost"


def test_doctests() -> None:
    assert doctest.testmod(output).failed == 0
