"""What the how-tos print: every command is one of the program's, and a test runs it."""

from __future__ import annotations

import ast
import re
from argparse import ArgumentParser
from collections.abc import Iterator
from functools import cache

import pytest

from bootc.cli.options import build_parser
from bootc.cli.table import commands_for
from support import howto, readme

TOP = readme.TOP
_READERS = ("command", "commands", "installer")
UPDATES = "tests/boot/test_updates.py"
FAILURES = "tests/boot/test_update_failures.py"
OFFLINE = "tests/host/test_command_line.py"
VERSIONS = "tests/unit/cli/test_security_version.py"
DEMO = "examples/debian/demo"

#: Tests that run a command of a page without reading it there: its file, and words in it.
RUN_BY = {
    "RUN apt-get update && apt-get install -y grub-pc-bin grub-common": (
        "tools/grub-tree",
        "grub-pc-bin,",
    ),
    "RUN apt-get update && apt-get install -y grub-efi-amd64-signed shim-signed": (
        "tools/grub-tree",
        "grub-efi-amd64-signed,",
    ),
    "RUN apt-get update && apt-get install -y ukiboot": ("tools/ukiboot-tree", "sid ukiboot,"),
    "bootc container compute-composefs-digest --explain A B": (
        "tests/interop/test_readme_commands.py",
        "_, command = of_containers()",
    ),
    "skopeo copy --preserve-digests oci:os:sealed docker://registry.example.com/os:v1": (
        "tests/boot/journeys.py",
        'registry.push(variant.reference, f"{name}:latest", "--preserve-digests")',
    ),
    "bootc security-version enable-counter": (VERSIONS, '"security-version", "enable-counter"'),
    "bootc security-version show": (VERSIONS, '"security-version", "show"'),
    "bootc security-version remove-counter": (VERSIONS, '"security-version", "remove-counter"'),
    "bootc status": (DEMO, 'STATUS = "bootc status"'),
    "bootc upgrade --check": (UPDATES, '"upgrade --check"'),
    "bootc upgrade": (UPDATES, '"upgrade"'),
    "bootc upgrade --download-only": (UPDATES, '"upgrade --download-only"'),
    "bootc status --verbose | grep Download-only": (
        "tests/unit/cli/render/test_render_status.py",
        '("Download-only", "yes")',
    ),
    "bootc status --verbose | grep Signature": (
        "tests/unit/cli/render/test_render_status.py",
        '("Signature", "container-policy")',
    ),
    "bootc upgrade --from-downloaded": (UPDATES, '"upgrade --from-downloaded"'),
    "bootc upgrade --cancel": (UPDATES, '"upgrade --cancel"'),
    "bootc rollback": (UPDATES, '"rollback"'),
    "bootc pin booted": (DEMO, '"bootc pin booted"'),
    "bootc pin c2d0a1": (OFFLINE, '["pin", b.hex[:6]]'),
    "bootc unpin c2d0a1": (OFFLINE, '["unpin", "rollback"]'),
    "bootc delete-deployment c2d0a1": (OFFLINE, '["delete-deployment", b.hex[:10]]'),
    "bootc delete-deployment rollback": (FAILURES, '"delete-deployment rollback"'),
    "bootc etc diff": (UPDATES, '"etc diff"'),
    "bootc etc take ssh/config": (OFFLINE, '["etc", "take", "ssh/config"]'),
    "journalctl MESSAGE_ID=b9b19ae5abeb4b8c9337b84b8a94e228": (
        "tests/unit/test_docs.py",
        "test_message_ids_that_are_named_exist",
    ),
    "journalctl --boot=-1 --unit=bootc-finalize-staged.service": (
        UPDATES,
        "journalctl --boot=-1 --unit={FINALIZE_UNIT}",
    ),
    "bootc internals composefs-gc --prune-repo --dry-run": (
        OFFLINE,
        '["internals", "composefs-gc", "--prune-repo", "--dry-run"]',
    ),
}
#: Commands that no test runs, and why.
NOT_RUN = {
    "qemu-img convert -O qcow2 disk.img disk.qcow2": "a program that nothing here needs",
    "podman run --rm --privileged --pid=host -v .:/output registry.example.com/os:v1 bootc install"
    " to-disk --via-loopback --filesystem ext4 /output/disk.img": (
        "podman is tested with a disk, and the installation with a file"
    ),
    "bootc container seal --security-version 3 --minimum-security-version 2"
    " --key keys/db.key --cert keys/db.pem oci:os:v3 oci:os:sealed-v3": (
        "tests/boot/test_sealed.py runs it without the numbers, and tests/unit/build with them"
    ),
    "efibootmgr": "it shows what tests/boot/test_no_loader.py reads from the firmware's variables",
}


def test_the_parser_of_pages() -> None:
    assert howto.command("disk-image", "bootc install to-disk --dry-run") == (
        "bootc install to-disk --dry-run --via-loopback --filesystem ext4"
        f" --source-imgref {howto.IMAGE} disk.img"
    )
    assert howto.installer("grub", "bootc install").endswith("--filesystem ext4")
    line = "podman run x bootc upgrade --apply; bootc status -v | grep 'bootc |' && echo x"
    assert howto.bootc_arguments(line) == [["upgrade", "--apply"], ["status", "-v"]]
    assert sum(len(howto.commands(page)) for page in howto.pages()) > 40


@pytest.mark.parametrize("page", ["README", *howto.pages()])
def test_bootc_takes_every_command(page: str) -> None:
    lines = readme.commands() if page == "README" else howto.commands(page)
    taken = [
        parser().parse_args(arguments)
        for line in lines
        for arguments in howto.bootc_arguments(line)
    ]
    assert all(found.run is not None for found in taken)


@pytest.mark.parametrize("page", howto.pages())
def test_every_line_of_bootc_is_a_command(page: str) -> None:
    """A block that begins without a prompt would be taken for output."""
    text = howto.text(page)
    assert re.findall(r"(?<=\n\n) {4,}(?:bootc|podman) .*", text) == []


@pytest.mark.parametrize("page", howto.pages())
def test_a_test_runs_every_command(page: str) -> None:
    """To claim a command, have a test read it with ``howto.command`` and run it."""
    read = [beginning for name, beginning in readings() if name == page]
    left = [line for line in howto.commands(page) if not line.startswith(tuple(read))]
    assert [line for line in left if line not in RUN_BY and line not in NOT_RUN] == []


def test_the_exceptions_are_on_pages() -> None:
    printed = {line for page in howto.pages() for line in howto.commands(page)}
    assert {*RUN_BY, *NOT_RUN} - printed == set()


@pytest.mark.parametrize("command", RUN_BY)
def test_who_runs_it_does(command: str) -> None:
    path, words = RUN_BY[command]
    assert words in (TOP / path).read_text("utf-8")


@cache
def parser() -> ArgumentParser:
    return build_parser("bootc", commands_for(), "0")


@cache
def readings() -> tuple[tuple[str, str], ...]:
    """Return what tests that run commands read: a page, and how the command begins."""
    return tuple(_readings())


def _readings() -> Iterator[tuple[str, str]]:
    for kind in ("boot", "host", "interop"):
        for path in sorted((TOP / "tests" / kind).glob("*.py")):
            text = path.read_text("utf-8")
            for node in ast.walk(ast.parse(text)) if "howto." in text else ():
                if not isinstance(node, ast.Call):
                    continue
                if ast.unparse(node.func) in {f"howto.{name}" for name in _READERS}:
                    page, *beginning = (ast.literal_eval(argument) for argument in node.args)
                    yield page, "".join(beginning)
