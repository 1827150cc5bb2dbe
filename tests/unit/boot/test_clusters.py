"""The room that menus take is what they then have taken, and hardly more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bootc.boot.clusters import (
    exchange_clusters,
    removal_clusters,
    staged_clusters,
    staging_clusters,
)
from bootc.boot.menu_compose import compose_menu
from bootc.boot.menu_read import read_menu
from bootc.boot.replacing import commit_staged, remove_entry, write_staged
from bootc.boot.scheme import BootDirs, Scheme
from support.bootdirs import (
    GRUB,
    GRUB_UKI,
    SYSTEMD,
    SYSTEMD_UKI,
    deployment,
    item_of,
    open_boot,
    scheme_name,
)
from support.room import CLUSTER_BYTES, Volume, limited

FOREIGN = 'menuentry "Windows {}" {{\n    chainloader /EFI/other/{}.efi\n}}\n'
#: For a temporary name, and for the names in directories above the menu.
MORE = 2

each_kind = pytest.mark.parametrize(
    "scheme", [SYSTEMD, SYSTEMD_UKI, GRUB, GRUB_UKI], ids=scheme_name
)


@contextmanager
def machine(path: Path, scheme: Scheme) -> Iterator[tuple[BootDirs, Volume]]:
    """Open a machine that boots 1 and could boot 2."""
    with open_boot(path, scheme) as dirs:
        write_staged(dirs, composed(dirs, 1, 2))
        commit_staged(dirs, deployment(1))
        yield dirs, Volume(Path(dirs.menu.path))


def composed(dirs: BootDirs, *numbers: int) -> tuple[tuple[str, bytes], ...]:
    return compose_menu(dirs.scheme, [item_of(dirs.scheme, number) for number in numbers])


def add_foreign(dirs: BootDirs, *numbers: int, size: int = 0) -> None:
    path = Path(dirs.menu.path, dirs.scheme.entries)
    for number in numbers:
        if dirs.scheme.menu_is_file:
            path.write_text(path.read_text() + FOREIGN.format(number, number))
        else:
            (path / f"other-{number}.conf").write_text("x" * size)


@each_kind
@pytest.mark.parametrize("foreign", [0, 1, 5, 40])
def test_staging(tmp_path: Path, scheme: Scheme, foreign: int) -> None:
    with machine(tmp_path, scheme) as (dirs, volume):
        add_foreign(dirs, *range(foreign), size=700)
        files = composed(dirs, 3, 1, 2)
        before, said = volume.used(), staging_clusters(dirs, files, CLUSTER_BYTES)
        write_staged(dirs, files)
        taken = volume.used() - before
        assert taken <= said <= taken + MORE
        assert staged_clusters(dirs, CLUSTER_BYTES) in (taken, taken - 1)


@each_kind
def test_what_was_said_is_enough(tmp_path: Path, scheme: Scheme) -> None:
    with machine(tmp_path, scheme) as (dirs, volume), limited(volume):
        add_foreign(dirs, *range(7))
        files = composed(dirs, 3, 1, 2)
        volume.leave(staging_clusters(dirs, files, CLUSTER_BYTES))
        write_staged(dirs, files)
        # Whatever is staged leaves its room to the next menu.
        volume.leave(0)
        files = composed(dirs, 3, 1, 2, 4)
        more = staging_clusters(dirs, files, CLUSTER_BYTES) - staged_clusters(dirs, CLUSTER_BYTES)
        assert more > 0
        volume.leave(more)
        write_staged(dirs, files)
        assert commit_staged(dirs, deployment(3))


@each_kind
def test_the_exchange(tmp_path: Path, scheme: Scheme) -> None:
    with machine(tmp_path, scheme) as (dirs, volume), limited(volume):
        assert exchange_clusters(dirs, CLUSTER_BYTES) == 0
        add_foreign(dirs, 1, size=600)
        write_staged(dirs, composed(dirs, 3, 1))
        assert exchange_clusters(dirs, CLUSTER_BYTES) == 0
        add_foreign(dirs, *range(2, 9), size=600)
        said = exchange_clusters(dirs, CLUSTER_BYTES)
        assert said >= (3 if scheme.menu_is_file else 7 * 2)
        volume.leave(said)
        assert commit_staged(dirs, deployment(3))
        assert len(read_menu(dirs, staged=False).foreign) == 8


def test_a_damaged_file_needs_no_room(tmp_path: Path) -> None:
    with machine(tmp_path, GRUB_UKI) as (dirs, _):
        Path(dirs.menu.path, GRUB_UKI.staged).write_text("menuentry {")
        assert exchange_clusters(dirs, CLUSTER_BYTES) == 0


def test_removing_from_a_file(tmp_path: Path) -> None:
    with machine(tmp_path, GRUB_UKI) as (dirs, volume), limited(volume):
        volume.leave(removal_clusters(dirs, CLUSTER_BYTES))
        remove_entry(dirs, read_menu(dirs, staged=False).items[1])
        assert len(read_menu(dirs, staged=False).items) == 1
        assert [path.name for path in Path(dirs.menu.path, "grub2").iterdir()] == ["user.cfg"]
