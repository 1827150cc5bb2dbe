"""CI runs every command that README prints, to the letter. Here is where."""

from __future__ import annotations

import re
from importlib.machinery import SourceFileLoader
from types import ModuleType

import matrix
import pytest

from bootc.boot.loader import Bootloader, LoaderTraces
from bootc.boot.menu_read import Item, Menu
from bootc.boot.scheme import Scheme
from bootc.cli.render.status import status_text
from bootc.deploy.host.boot_state import BootedState, Staged
from bootc.deploy.host.facts import Facts, ImageFacts, StateFacts
from bootc.deploy.host.model import Timestamp
from bootc.deploy.host.status import compose_host
from bootc.formats import bls
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import BootType, Origin
from support.readme import (
    TOP,
    boot_matrix,
    commands,
    of_containers,
    screen,
    with_boot_matrix,
)

#: Version, deployment id and manifest of the images of the demo.
VERSION_1 = (
    "1",
    Digest.from_hex(
        "ee3c13ca457e49e45017ca4eeac52331bce10c78ff0572e22e9f482bdb735339"
        "49aa18c70dffa1b232c96615831ab74cc622f67dd45e800057948ed0bb7b650f"
    ),
    OciDigest("sha256", "a0830ecd5007b72fb0eb696f91c3239d95a06f6e9e91265dbfab535366cf4acc"),
)
VERSION_2 = (
    "2",
    Digest.from_hex(
        "bcba639d75de5e10fa8a9c80e5d97d7d70e6a2da86960fbb05273a52464b5d07"
        "10c144ca1b163d63989b4bb05668f9aca12f188a19529fcc747fb92ca0df86c5"
    ),
    OciDigest("sha256", "a2f92cdf844c1ac63dd2c1dd93c82ed0c081ea589b2db32bbaad11b92da9e321"),
)

#: Who runs those that are not for a machine with an image.
RUN_BY = {
    # CI works in a clone, and check-as-user makes another copy of what git has.
    "git clone … pybootc && cd pybootc": ("tools/check-as-user", '"git", "ls-files"'),
    "make demo": ("tests/boot/stations.py", '"make", "demo"'),
    "make test": (".ci/run", "\nmake test\n"),
    "make check": ("tools/check-as-user", "exec make check"),
    "RUN bootc container lint": (
        "tests/host/test_lint_build.py",
        'main(["container", "lint", *arguments])',
    ),
    "make install": ("tests/unit/initramfs/test_data.py", '"make", "--silent", "install"'),
    "make install DESTDIR=/path/to/root": (
        "tests/unit/initramfs/test_data.py",
        '"make", "--silent", "install"',
    ),
    "pip install .": ("tests/interop/test_readme_commands.py", '"pip install ."'),
    "podman run --rm --privileged --pid=host registry.example.com/os:v1"
    " bootc install to-disk --filesystem ext4 /dev/vda": (
        "tests/boot/test_podman_install.py",
        "host.run(podman_install)",
    ),
    "bootc internals features": (
        "tests/interop/test_readme_commands.py",
        '"bootc internals features"',
    ),
}


def demo() -> ModuleType:
    loader = SourceFileLoader("demo", str(TOP / "examples/debian/demo"))
    module = ModuleType("demo")
    module.__file__ = loader.path
    exec(loader.get_code("demo") or "", module.__dict__)
    return module


def test_who_runs_it_does() -> None:
    for command, (path, words) in RUN_BY.items():
        assert words in (TOP / path).read_text("utf-8"), command


def test_every_command_is_run() -> None:
    shown = demo()
    in_machines = {shown.INSTALL, *shown.BEFORE_UPDATE, *shown.UPDATE, *shown.AFTER_UPDATE}
    missing = [
        command
        for command in commands()
        if command not in RUN_BY and command not in of_containers() and command not in in_machines
    ]
    assert missing == [], "README prints what nobody runs"


def test_what_a_reader_would_copy() -> None:
    found = commands()
    assert found[:2] == ["git clone … pybootc && cd pybootc", "make demo"]
    assert "bootc rollback" in found
    assert len(of_containers()) == 2
    assert not [command for command in found if "#" in command or "\\" in command]


def demo_facts() -> Facts:
    """What the demo's machine has to say when it has staged version 2."""
    image = ImageReference("registry", "registry.example.com/os:v1")
    created = Timestamp.parse("2026-01-01T00:00:00Z")
    items, states, images = [], {}, {}
    for version, deployment, manifest in (VERSION_2, VERSION_1):
        entry = bls.Entry(version=version, linux="/l", options=f"rw composefs={deployment}")
        items.append(Item(f"bootc_{version}.conf", deployment, deployment.hex, entry))
        origin = Origin(image=image, boot_type=BootType.BLS, manifest_digest=manifest)
        states[deployment] = StateFacts(deployment, origin)
        images[manifest] = ImageFacts("amd64", version, created)
    return Facts(
        booted=BootedState(
            VERSION_1[1],
            missing_verity_allowed=False,
            loader=LoaderTraces(Bootloader.SYSTEMD),
            staged=Staged(VERSION_2[1], locked=False),
        ),
        scheme=Scheme(Bootloader.SYSTEMD, BootType.BLS),
        active=Menu((items[1],)),
        staged=Menu(tuple(items)),
        states=states,
        images=images,
    )


def test_the_screen_is_what_the_demo_prints() -> None:
    printed = status_text(compose_host(demo_facts()), verbose=False)
    assert screen() == f"# bootc status\n{printed}"
    assert f"{demo().REGISTRY}/{demo().IMAGE}" in printed


def test_the_boot_paths_are_those_that_are_tested() -> None:
    said, _, head, _, *rows = boot_matrix().splitlines()
    assert re.fullmatch(r"Run at commit [0-9a-f]{12} on \d{4}-\d\d-\d\d, with Linux .+\.", said)
    columns = cells_of(head)[1:]
    assert columns[:2] == list(matrix.Column)
    shown = {
        (title, column): word
        for title, *words in map(cells_of, rows)
        for column, word in zip(columns[:2], words, strict=False)
    }
    tested = {(cell.row.title, cell.column.value) for cell in matrix.CELLS}
    assert {path for path, word in shown.items() if word != matrix.IMPOSSIBLE} == tested
    words = "|".join(matrix.Word)
    results = [word for path, word in shown.items() if path in tested]
    assert [word for word in results if not re.fullmatch(rf"({words})(, \d+ s)?", word)] == []


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_of_boot_paths_is_replaced_whole() -> None:
    text = (TOP / "README.md").read_text("utf-8")
    changed = with_boot_matrix(text, "Run \\1\n\n| a |\n")
    assert boot_matrix(changed) == "Run \\1\n\n| a |\n"
    assert with_boot_matrix(changed, boot_matrix()) == text
    with pytest.raises(SystemExit, match="no place"):
        with_boot_matrix(changed.replace("<!-- end -->", ""), "")
