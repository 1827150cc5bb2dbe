"""Add-ons that the administrator adds to a machine, and what there is then on its ESP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bootc.cli.render.addon import addons_json
from bootc.cli.render.structured import render_json
from bootc.deploy.addons import add_addons, read_addons, remove_addon
from bootc.errors import Error, one_line
from support import osimages, pe
from support.bench import Bench
from support.schemas import check

KEYMAP = pe.signable((b".cmdline", b"vconsole.keymap=de"))
LUKS = pe.signed(pe.signable((b".cmdline", b"rd.luks.uuid=0011-aa\n")))
NAME = "keymap.addon.efi"


def file_of(bench: Bench, data: bytes = KEYMAP, name: str = NAME) -> str:
    path = bench.machine.path / name
    path.write_bytes(data)
    return str(path)


def add(bench: Bench, data: bytes = KEYMAP, name: str = NAME, **options: Any) -> list[str]:
    path = file_of(bench, data, name)
    return bench.machine.command(lambda system, sink: add_addons(system, [path], sink, **options))


def remove(bench: Bench, name: str = NAME, **options: Any) -> list[str]:
    return bench.machine.command(lambda system, sink: remove_addon(system, name, sink, **options))


def refused(bench: Bench, data: bytes = KEYMAP, name: str = NAME, **options: Any) -> str:
    before = on_esp(bench)
    with pytest.raises((Error, OSError)) as caught:
        add(bench, data, name, **options)
    assert on_esp(bench) == before
    return one_line(caught.value)


def extra(bench: Bench, image: osimages.OsImage) -> Path:
    return bench.machine.esp / f"EFI/Linux/bootc/bootc_composefs-{bench.id(image)}.efi.extra.d"


def on_esp(bench: Bench) -> set[str]:
    """Return the tag and the name of each add-on; the name alone if it is global."""
    found = {
        f"{tag}:{path.name}"
        for tag in (image.tag for image in osimages.ALL.values())
        if tag != "rebuilt"
        for path in _names(extra(bench, osimages.ALL[tag]))
    }
    return found | {path.name for path in _names(bench.machine.esp / "loader/addons")}


def _names(home: Path) -> list[Path]:
    return list(home.iterdir()) if home.is_dir() else []


def listed(bench: Bench) -> dict[str, Any]:
    with bench.machine.open() as system:
        found: dict[str, Any] = check("addon-list", render_json(addons_json(read_addons(system))))
        return found
