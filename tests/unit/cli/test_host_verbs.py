"""Verbs that change a running system, where there is none; and their command lines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootc.cli import main as cli
from bootc.cli.session import ETC_CONFLICT, refuse_together
from bootc.deploy.etc.merge import ConflictPolicy
from bootc.deploy.host import boot_state, session
from bootc.errors import UsageError
from bootc.fs.mounts import read_mounts

#: A correct command line of each.
VERBS = (
    ["upgrade"],
    ["update", "--check"],
    ["upgrade", "--quiet", "--apply", "--tag", "2", "--etc-conflict", "keep-local", "--no-wait"],
    ["upgrade", "--download-only", "--dry-run"],
    ["upgrade", "--from-downloaded", "--apply"],
    ["upgrade", "--cancel", "--dry-run"],
    ["switch", "quay.io/example/os:2"],
    ["switch", "--transport=oci", "/srv/os:2", "--retain", "--apply", "--etc-conflict=take-new"],
    ["switch", "x", "--no-signature-verification", "--enforce-container-sigpolicy"],
    ["rollback", "--apply", "--allow-weaker", "--dry-run"],
    ["security-version", "show"],
    ["security-version", "enable-counter"],
    ["security-version", "raise-counter"],
    ["delete-deployment", "aaaaaa", "--dry-run"],
    ["pin", "booted"],
    ["unpin", "rollback"],
    ["addon", "list", "--json"],
    ["addon", "add", "a.addon.efi", "b.addon.efi", "--deployment", "booted", "--dry-run"],
    ["addon", "add", "--global", "a.addon.efi"],
    ["addon", "remove", "a", "--global", "--dry-run"],
    ["etc", "diff", "--json"],
    ["etc", "keep", "motd"],
    ["etc", "take", "/etc/motd"],
    ["etc", "reset", "motd"],
    ["config-diff"],
    ["composefs-finalize-staged"],
    ["internals", "composefs-gc", "--dry-run", "--prune-repo", "--assert-no-op"],
)
each_verb = pytest.mark.parametrize("argv", VERBS, ids=" ".join)


@pytest.fixture
def no_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the machine that runs the tests were no container, as it often is."""
    monkeypatch.delenv("container", raising=False)
    monkeypatch.setattr(boot_state, "_CONTAINER_MARKS", ())


@pytest.fixture
def nothing_at_stake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run commands as root would, but only where they can do no harm."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(session, "_OLD_LOCK", str(tmp_path.relative_to("/") / "lock"))
    monkeypatch.setattr(session, "STAGED_DIRECTORY", str(tmp_path.relative_to("/") / "run"))
    if boot_state.booted_image(read_mounts()) is not None:
        pytest.skip("this machine is one that the commands are for")


def fails(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run a command line and return the exit code, and the one line of the error."""
    code = cli.main(argv)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    return code, err.removeprefix("error: ").removesuffix("\n")


@each_verb
def test_in_a_container(argv, capsys, monkeypatch) -> None:
    monkeypatch.setenv("container", "podman")
    message = "Detected container; this command requires a booted host system."
    assert fails(argv, capsys) == (1, message)


@pytest.mark.usefixtures("no_container")
@each_verb
def test_not_as_root(argv, capsys, monkeypatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert fails(argv, capsys) == (1, "This command must be executed as the root user")


@pytest.mark.usefixtures("no_container", "nothing_at_stake")
@each_verb
def test_not_booted(argv, capsys) -> None:
    code, message = fails(argv, capsys)
    assert code == 1
    assert message.startswith("System not booted via bootc")


def test_ostree_deployments_change_in_place_and_no_others(capsys) -> None:
    code, message = fails(["switch", "--mutate-in-place", "quay.io/example/os"], capsys)
    assert code == 1
    assert message.startswith("--mutate-in-place changes a deployment of ostree")


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["edit"], "Edit is not yet supported for composefs backend"),
        (["edit", "-f", "host.yaml", "--quiet"], "Edit is not yet supported for composefs backend"),
        (
            ["loader-entries", "set-options-for-source", "--source", "x", "--options", "a b"],
            "The composefs backend keeps no kernel arguments by source",
        ),
        (
            ["state", "wipe-ostree"],
            "There is no state of ostree here: this program boots images of a composefs repository",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_verbs_that_upstream_refuses_on_composefs(argv, told: str, capsys) -> None:
    code, message = fails(argv, capsys)
    assert code == 1
    assert message.startswith(f"{told} (hint: ")


def test_one_storage(capsys, monkeypatch) -> None:
    monkeypatch.setenv("container", "podman")
    assert cli.main(["switch", "--experimental-unified-storage", "quay.io/example/os"]) == 1
    assert capsys.readouterr().out == (
        "--experimental-unified-storage has no effect: "
        "images are only in the composefs repository\n"
    )


@pytest.mark.usefixtures("nothing_at_stake")
@pytest.mark.parametrize("name", ["usr-overlay", "usroverlay"])
def test_an_overlay_is_for_booted_hosts(name: str, capsys) -> None:
    message = "usroverlay only applies on booted hosts"
    assert fails([name, "--read-only"], capsys) == (1, message)


@pytest.mark.parametrize(
    "argv",
    [
        ["upgrade", "--check", "--apply"],
        ["upgrade", "--check", "--download-only"],
        ["upgrade", "--check", "--from-downloaded"],
        ["upgrade", "--check", "--cancel"],
        ["upgrade", "--check", "--dry-run"],
        ["upgrade", "--check", "--etc-conflict", "fail"],
        ["upgrade", "--download-only", "--apply"],
        ["upgrade", "--download-only", "--from-downloaded"],
        ["upgrade", "--download-only", "--cancel"],
        ["upgrade", "--from-downloaded", "--cancel"],
        ["upgrade", "--from-downloaded", "--tag", "2"],
        ["upgrade", "--from-downloaded", "--etc-conflict", "fail"],
        ["upgrade", "--cancel", "--apply"],
        ["upgrade", "--cancel", "--tag", "2"],
        ["upgrade", "--cancel", "--etc-conflict", "fail"],
    ],
    ids=" ".join,
)
def test_what_excludes_each_other(argv, capsys) -> None:
    first, second = (word for word in argv if word.startswith("--"))
    assert fails(argv, capsys) == (2, f"{first} cannot be used with {second}")
    # Whichever comes first on the command line.
    assert fails(["upgrade", *argv[2:], first], capsys)[0] == 2


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["upgrade", "--soft-reboot", "auto"], "unrecognized arguments: --soft-reboot"),
        (["switch", "x", "--soft-reboot=required"], "unrecognized arguments: --soft-reboot"),
        (["rollback", "--soft-reboot", "auto"], "unrecognized arguments: --soft-reboot"),
        (["upgrade", "--etc-conflict", "ask"], "argument --etc-conflict: invalid choice: 'ask'"),
        (["upgrade", "--tag"], "argument --tag: expected one argument"),
        (["switch"], "the following arguments are required: TARGET"),
        (["pin"], "the following arguments are required: ID"),
        (["delete-deployment"], "the following arguments are required: ID"),
        (["etc"], "a command is missing (hint: see bootc etc --help)"),
        (["etc", "keep"], "the following arguments are required: PATH"),
        (["etc", "keep", "a", "b"], "unrecognized arguments: b"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(argv, told: str, capsys) -> None:
    code, message = fails(argv, capsys)
    assert code == 2
    assert message.startswith(told)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["status", "--format-version", "2"], "Unsupported format version: 2"),
        (["switch", "x", "--transport", "ftp"], "unknown transport 'ftp'"),
        (["switch", "docker://quay.io/os:1"], "docker://quay.io/os:1 has a transport in front"),
        (["switch", "--transport", "oci", "dir:v1"], "dir:v1 is relative to this directory"),
        (
            [
                *("install", "to-disk", "/dev/x", "--composefs-backend"),
                *("--source-imgref", "oci:/x", "--root-size", "much"),
            ],
            "--root-size: ",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_value_that_the_command_refuses_is_no_wrong_usage(argv, told: str, capsys) -> None:
    # As with upstream: its option parser knows nothing of what these may be.
    code, message = fails(argv, capsys)
    assert code == 1
    assert message.startswith(told)


@pytest.mark.parametrize("path", ["/usr/bin", "../shadow"])
def test_a_path_outside_of_etc(path: str, capsys) -> None:
    code, message = fails(["etc", "reset", path], capsys)
    assert code == 1
    assert message.startswith(f"{path!r} is not a path in /etc (hint: ")


def test_the_modes_are_those_of_a_merge() -> None:
    assert ETC_CONFLICT.choices == tuple(policy.value for policy in ConflictPolicy)


def test_an_option_that_is_not_given_excludes_nothing() -> None:
    import argparse

    args = argparse.Namespace(check=False, dry_run=True)
    refuse_together(args, "--check", "--dry-run")
    args.check = True
    with pytest.raises(UsageError, match=r"^--check cannot be used with --dry-run$"):
        refuse_together(args, "--check", "--dry-run")
