from __future__ import annotations

import dataclasses

from bootc.cli.render.status import status_text
from bootc.deploy.host.model import Host, HostSpec, HostStatus, ImageSpec, ImageStatus, UsrOverlay
from bootc.formats.imgref import ImageReference
from support.hosts import CREATED, FULL, MANIFEST, NEWER, ODD, entry


def test_for_people() -> None:
    assert status_text(FULL, verbose=False) == (
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
    lines = [line.split(": ", 1) for line in status_text(FULL, verbose=True).splitlines() if line]
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
    assert status_text(Host(HostSpec(), status), verbose=False) == (
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
    assert status_text(Host(HostSpec(), status), verbose=False) == (
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


def test_a_unified_kernel_image_in_parts() -> None:
    status = HostStatus(booted=dataclasses.replace(entry("aa"), in_parts=True))
    last = status_text(Host(HostSpec(), status), verbose=False).splitlines()[-1]
    assert last.strip() == "Sealing: not sealed: its unified kernel image boots in parts"


def test_a_pinned_deployment_that_names_no_image() -> None:
    status = HostStatus(booted=dataclasses.replace(entry("aa", name=None), pinned=True))
    assert status_text(Host(HostSpec(), status), verbose=False) == (
        f"● Booted composefs\n            Commit: {'aa' * 64}\n            Pinned: yes\n"
    )


def test_what_is_odd_comes_last() -> None:
    host = Host(HostSpec(), HostStatus(booted=entry("aa", name=None), findings=ODD))
    shown = (
        "malformed: bootc_\\xff\\x1b[2J.conf: two\\nlines\n"
        "failed: deployment aa: conflicts in /etc\n"
    )
    commit = f"● Booted composefs\n            Commit: {'aa' * 64}\n"
    assert status_text(host, verbose=False) == f"{commit}\n{shown}"
    everything = status_text(host, verbose=True)
    assert everything.endswith(f"\n\nforeign: windows.conf: it starts an EFI program\n{shown}")


def test_what_others_have_there_is_not_odd() -> None:
    host = Host(HostSpec(), HostStatus(booted=entry("aa", name=None), findings=ODD[:1]))
    assert "foreign" not in status_text(host, verbose=False)


def test_a_machine_that_is_none_of_ours() -> None:
    assert status_text(Host.empty(), verbose=True) == "System is not deployed via bootc.\n"
