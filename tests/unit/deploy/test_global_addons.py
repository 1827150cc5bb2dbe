"""Clean-ups of the add-ons that all unified kernel images of a machine have."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path

import pytest

from bootc.deploy import global_addons
from bootc.deploy.cleanup import CleanupIncomplete, collect_garbage
from support import osimages
from support.bench import Bench
from support.bootdirs import SYSTEMD_UKI
from support.osimages import Images

FOREIGN = "foreign.addon.efi"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return a machine that runs RENAMED, with its global add-on and a foreign one."""
    images = Images(tmp_path / "images", SYSTEMD_UKI.boot_type)
    bench = Bench(SYSTEMD_UKI, tmp_path, images, osimages.OLD, osimages.RENAMED)
    home = bench.machine.esp / "loader/addons"
    home.mkdir()
    for name in (f"bootc_composefs-{osimages.GLOBAL_ADDON}", FOREIGN):
        (home / name).write_bytes(b"add-on")
    return bench


def addons(bench: Bench) -> list[str]:
    return sorted(path.name for path in (bench.machine.esp / "loader/addons").iterdir())


OURS = f"bootc_composefs-{osimages.GLOBAL_ADDON}"


def test_an_addon_is_kept_as_long_as_an_image_has_it(bench: Bench) -> None:
    bench.machine.command(collect_garbage)
    assert addons(bench) == [OURS, FOREIGN]
    bench.update(osimages.NEW)
    assert addons(bench) == [OURS, FOREIGN]  # RENAMED is the rollback
    bench.update(osimages.TURNED)
    bench.machine.command(collect_garbage)
    assert addons(bench) == [FOREIGN]
    assert bench.shown() == ["turned", "new"]


def test_an_update_that_drops_the_addon_keeps_it_until_it_boots(bench: Bench) -> None:
    bench.upgrade(osimages.NEW)
    assert addons(bench) == [OURS, FOREIGN]


def test_an_image_that_cannot_be_read_keeps_all_addons(bench: Bench) -> None:
    bench.update(osimages.NEW)
    bench.update(osimages.TURNED)
    home = bench.machine.esp / "loader/addons"
    (home / OURS).write_bytes(b"add-on")
    streams = bench.machine.physical / "composefs/streams"
    for path in streams.glob("oci-manifest-*"):
        path.unlink()
    with contextlib.suppress(CleanupIncomplete):
        bench.machine.command(collect_garbage)
    assert addons(bench) == [OURS, FOREIGN]


def test_a_shutdown_does_not_read_the_images(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(global_addons, "read_image", lambda *args: pytest.fail("an image is read"))
    bench.machine.command(functools.partial(collect_garbage, repository=False))
    assert addons(bench) == [OURS, FOREIGN]
