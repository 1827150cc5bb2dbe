"""What a command imports, for that is most of the time that a short one takes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from bootc.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print("\\n", *sys.modules)
"""
#: What every command has, whatever it does.
FRAME = {
    "bootc",
    "bootc.cli",
    "bootc.cli.main",
    "bootc.cli.options",
    "bootc.cli.progress",
    "bootc.cli.streams",
    "bootc.cli.table",
    "bootc.cli.verbs",
    "bootc.errors",
    "bootc.events",
    "bootc.fs",
    "bootc.fs.interruption",
    "bootc.printable",
    "bootc.sizes",
}
#: More of ours than this take ``bootc status`` too long.
MOST = 81
#: What is nothing to those who only look at a host, with all that is below it.
FOR_CHANGES = (
    "bootc.deploy.etc",
    "bootc.deploy.execute",
    "bootc.deploy.install",
    "bootc.deploy.plan.steps",
    "bootc.deploy.upgrade",
    "bootc.formats.dumpfile",
    "bootc.formats.erofs",
    "bootc.formats.tar",
    "bootc.formats.tree",
    "bootc.oci.fetch",
    "bootc.oci.pull",
    "bootc.oci.skopeo",
    "bootc.oci.trees",
    "bootc.repository.content",
    "bootc.repository.gc",
    "bootc.repository.reachable",
)
#: Libraries that take long and are used for little, or only by those who ask for them.
HEAVY = ("asyncio", "random", "rich", "secrets", "tempfile", "yaml")


def imported(*argv: str) -> set[str]:
    """Run a command where it cannot do anything and return what it has imported."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *argv],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "container": "podman"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    return set(done.stdout.splitlines()[-1].split())


def below(names: set[str], tops: tuple[str, ...]) -> set[str]:
    return {name for name in names for top in tops if name == top or name.startswith(f"{top}.")}


@pytest.mark.parametrize(
    ("argv", "more"),
    [
        (["upgrade", "--help"], {"bootc.cli.session", "bootc.cli.verbs.upgrade"}),
        (["status", "--no-such-option"], {"bootc.cli.verbs.status"}),
        (["unpin"], {"bootc.cli.session", "bootc.cli.verbs.pin"}),
        (["internals", "mkcomposefs"], {"bootc.cli.verbs.mkcomposefs"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_line_is_parsed_with_its_own_verb(argv: list[str], more: set[str]) -> None:
    assert below(imported(*argv), ("bootc",)) == FRAME | more


def test_status_imports_nothing_that_changes_a_host() -> None:
    names = imported("status", "--json")
    ours = below(names, ("bootc",))
    assert {"bootc.deploy.host.status", "bootc.formats.splitstream"} <= ours
    assert below(ours, ("bootc.cli.verbs",)) == {"bootc.cli.verbs", "bootc.cli.verbs.status"}
    assert below(names, (*FOR_CHANGES, *HEAVY)) == set()
    assert len(ours) <= MOST, sorted(ours)


def test_a_host_is_opened_before_what_changes_it_is_imported() -> None:
    names = imported("upgrade", "--apply")
    assert "bootc.deploy.host.session" in names
    assert below(names, (*FOR_CHANGES, *HEAVY)) == set()


def test_the_generator_imports_little() -> None:
    names = imported("internals", "systemd-generator", "/nonexistent")
    assert "bootc.deploy.host.boot_units" in names
    assert below(names, ("bootc.oci.selabel", "bootc.repository", *FOR_CHANGES, *HEAVY)) == set()
