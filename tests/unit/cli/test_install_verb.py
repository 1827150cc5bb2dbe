"""The command line of ``bootc install``."""

from __future__ import annotations

from typing import Any

import pytest

from bootc.cli import main as cli
from bootc.deploy.install import config, running_image, to_disk, to_filesystem
from bootc.deploy.install.request import DiskRequest, FilesystemRequest, Replace
from bootc.deploy.install.running_image import RunningImage
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import BootType

STORED = ImageReference("containers-storage", "0123456789abcdef" * 4)
DISK = ("install", "to-disk", "/dev/x")


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[DiskRequest]:
    """Run in a container, and only collect the requests."""
    found: list[DiskRequest] = []

    def install(request: DiskRequest, sink: Any) -> None:
        found.append(request)

    monkeypatch.setattr(to_disk, "install_to_disk", install)
    run_in_container(monkeypatch, "quay.io/os:43")
    return found


def run_in_container(monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    running = RunningImage(STORED, name)
    monkeypatch.setattr(running_image, "find_running_image", lambda root: running)


@pytest.mark.parametrize("backend", [(), ("--composefs-backend",)])
def test_the_running_image_is_installed(
    requests: list[DiskRequest], backend: tuple[str, ...]
) -> None:
    assert cli.main([*DISK, *backend]) == 0
    (request,) = requests
    assert (request.source, request.from_container) == (STORED, True)
    assert request.target == ImageReference("registry", "quay.io/os:43")


@pytest.mark.parametrize(
    ("options", "target"),
    [
        (("--target-imgref", "quay.io/other:1"), ImageReference("registry", "quay.io/other:1")),
        (("--target-transport", "oci"), ImageReference("oci", "quay.io/os:43")),
    ],
)
def test_updates_come_from_the_target(
    requests: list[DiskRequest], options: tuple[str, ...], target: ImageReference
) -> None:
    assert cli.main([*DISK, *options]) == 0
    assert [(request.source, request.target) for request in requests] == [(STORED, target)]


def test_another_image_is_installed(requests: list[DiskRequest]) -> None:
    assert cli.main([*DISK, "--source-imgref", "docker://quay.io/other:1"]) == 0
    (request,) = requests
    assert request.source == request.target == ImageReference("registry", "quay.io/other:1")
    assert not request.from_container


def test_an_image_without_a_name_needs_a_target(
    requests: list[DiskRequest],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_in_container(monkeypatch, None)
    assert cli.main([*DISK]) == 1
    assert "(hint: name one with --target-imgref)" in capsys.readouterr().err
    assert cli.main([*DISK, "--target-imgref", "quay.io/os:1"]) == 0
    assert [str(request.target) for request in requests] == ["docker://quay.io/os:1"]


def test_everything_that_can_be_asked_for(requests: list[DiskRequest]) -> None:
    assert (
        cli.main(
            [
                *DISK,
                *("--karg", "a", "--karg", "b c", "--karg-delete", "quiet"),
                *("--root-ssh-authorized-keys", "/keys", "--stateroot", "default"),
                *("--disable-selinux", "--enforce-container-sigpolicy", "--run-fetch-check"),
                *("--skip-fetch-check", "--target-no-signature-verification"),
                "--bootupd-skip-boot-uuid",
            ]
        )
        == 0
    )
    (request,) = requests
    assert request.kargs == ("a", "b c")
    assert request.karg_deletes == ("quiet",)
    assert (request.root_keys_file, request.stateroot) == ("/keys", "default")
    assert (request.disable_selinux, request.enforce_sigpolicy, request.fetch_check) == (True,) * 3
    assert request.bootupd_skip_boot_uuid
    assert request.source_name == "quay.io/os:43"


def test_the_configuration_is_printed_as_canonical_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    merged = {"kargs": ["quiet"], "block": ["direct"], "bootupd": {"skip-boot-uuid": None}}
    monkeypatch.setattr(config, "read_merged", lambda machine: merged)
    assert cli.main(["install", "print-configuration"]) == 0
    assert capsys.readouterr().out == '{"block":["direct"],"bootupd":{"skip-boot-uuid":null}}'
    assert cli.main(["install", "print-configuration", "--all"]) == 0
    assert '"kargs":["quiet"]' in capsys.readouterr().out


@pytest.fixture
def on_file_systems(monkeypatch: pytest.MonkeyPatch) -> list[FilesystemRequest]:
    """Run in a container, and only collect the requests."""
    found: list[FilesystemRequest] = []

    def install(request: FilesystemRequest, sink: Any) -> None:
        found.append(request)

    monkeypatch.setattr(to_filesystem, "install_to_filesystem", install)
    monkeypatch.setattr(to_filesystem, "install_to_existing_root", install)
    run_in_container(monkeypatch, "quay.io/os:43")
    return found


@pytest.mark.parametrize(
    ("options", "replace", "skips"),
    [
        ((), None, False),
        (("--replace", "wipe"), Replace.WIPE, False),
        (("--replace", "alongside"), Replace.ALONGSIDE, True),
        (("--skip-finalize",), None, True),
    ],
)
def test_mounted_file_systems(
    on_file_systems: list[FilesystemRequest],
    options: tuple[str, ...],
    replace: Replace | None,
    skips: bool,
) -> None:
    specs = ("--root-mount-spec", "LABEL=a", "--boot-mount-spec", "")
    assert cli.main(["install", "to-filesystem", "/mnt", *specs, *options]) == 0
    (request,) = on_file_systems
    assert (request.root, request.replace, request.skip_finalize) == ("/mnt", replace, skips)
    assert (request.root_mount_spec, request.boot_mount_spec) == ("LABEL=a", "")
    assert not request.existing_root


@pytest.mark.parametrize(
    ("options", "root", "replace"),
    [
        ((), "/target", Replace.ALONGSIDE),
        (("/host", "--replace", "wipe"), "/host", Replace.WIPE),
    ],
)
def test_the_running_system(
    on_file_systems: list[FilesystemRequest],
    options: tuple[str, ...],
    root: str,
    replace: Replace,
) -> None:
    assert cli.main(["install", "to-existing-root", "--acknowledge-destructive", *options]) == 0
    (request,) = on_file_systems
    assert (request.root, request.replace) == (root, replace)
    assert (request.existing_root, request.skip_finalize) == (True, True)
    assert request.acknowledge_destructive


def test_a_seal_is_given_up_only_with_the_boot_type(
    requests: list[DiskRequest], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*DISK, "--disable-sealing", "--boot-type", "uki"]) == 2
    assert capsys.readouterr().err == "error: --disable-sealing needs --boot-type bls\n"
    assert cli.main([*DISK, "--disable-sealing", "--boot-type", "bls"]) == 0
    assert [(r.boot_type, r.disable_sealing) for r in requests] == [(BootType.BLS, True)]


def test_installations_of_ostree_are_not_completed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["install", "ensure-completion"]) == 1
    assert "completes an installation of ostree" in capsys.readouterr().err
