"""Room on the boot partition: what there is, and what kernels and menus take."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from bootc.boot.artifacts import Artifact, ArtifactKind
from bootc.boot.menu import read_menu
from bootc.boot.menu_compose import compose_menu
from bootc.boot.menu_write import commit_staged, remove_entry, write_staged
from bootc.boot.scheme import BootDirs, Scheme
from bootc.boot.space import (
    NoSpaceOnBoot,
    exchange_clusters,
    free_space,
    plan_space,
    removal_clusters,
    sharing_file_system,
    staged_clusters,
    staging_clusters,
)
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

MIB = 1 << 20
CLUSTER = 4096
SPARE = 16 * CLUSTER


def artifact(
    name: str, mib: int = 100, *, age: int = 0, kind: ArtifactKind = ArtifactKind.KERNEL
) -> Artifact:
    return Artifact(name, kind, f"EFI/Linux/{name}", mib * MIB, -age)


OLD, OLDER, USED = artifact("old", age=1), artifact("older", age=2), artifact("used", age=9)
CUT = artifact("cut", 5, kind=ArtifactKind.LEFTOVER)
NEW = {"vmlinuz": 20 * MIB, "initrd": 80 * MIB}


@pytest.mark.parametrize(
    ("free", "evicted"),
    [
        (100 * MIB + SPARE, []),
        (100 * MIB + SPARE - 1, ["cut"]),
        (95 * MIB + SPARE, ["cut"]),
        (95 * MIB + SPARE - 1, ["cut", "older"]),
        (0, ["cut", "older"]),
    ],
)
def test_only_as_much_as_it_takes(free: int, evicted: list[str]) -> None:
    plan = plan_space([OLD, USED, CUT, OLDER], {"used"}, NEW, free, CLUSTER)
    assert [artifact.name for artifact in plan.evict] == evicted
    assert plan.required_bytes == 100 * MIB + SPARE


def test_files_take_whole_clusters() -> None:
    plan = plan_space([], set(), {"a": 1, "b": CLUSTER, "c": CLUSTER + 1, "d": 0}, MIB, CLUSTER)
    assert plan.required_bytes == 4 * CLUSTER + SPARE
    with pytest.raises(NoSpaceOnBoot):
        plan_space([artifact("x", 0)], set(), {}, SPARE - 1, CLUSTER)


def test_what_a_shared_kernel_needs() -> None:
    plan = plan_space([OLD, USED], {"used"}, None, SPARE, CLUSTER)
    assert (plan.evict, plan.required_bytes) == ((), SPARE)
    assert plan_space([OLD, USED], {"used"}, None, 0, CLUSTER).evict == (OLD,)


def test_a_shared_kernel_counts_once() -> None:
    # Three deployments boot with it; it is one artifact, and its name is needed.
    with pytest.raises(NoSpaceOnBoot, match=r"kernels of used 100\.0 MiB$"):
        plan_space([USED], {"used", "used-by-b"}, NEW, 0, CLUSTER)


def test_the_sum_of_what_does_not_fit() -> None:
    with pytest.raises(NoSpaceOnBoot) as caught:
        plan_space([OLD, USED], {"used"}, {"vmlinuz": 220 * MIB}, 30 * MIB, CLUSTER)
    assert caught.value.message == (
        "the boot partition has 30.0 MiB free, but the update needs 220.1 MiB "
        "(vmlinuz 220.0 MiB); removing unneeded kernels would leave 130.0 MiB free; "
        "in use are the kernels of used 100.0 MiB"
    )
    assert caught.value.hint is not None
    assert "bootc delete-deployment" in caught.value.hint


def test_where_grub_keeps_its_artifacts() -> None:
    uki = artifact("uki", kind=ArtifactKind.UKI)
    everything = (OLD, uki, CUT)
    assert sharing_file_system(SYSTEMD, everything) == everything
    assert sharing_file_system(GRUB, everything) == (OLD,)
    assert sharing_file_system(GRUB_UKI, everything) == (uki, CUT)


@pytest.fixture
def dirs(tmp_path: Path) -> Iterator[BootDirs]:
    with open_boot(tmp_path, SYSTEMD) as dirs:
        yield dirs


def test_free_space(dirs: BootDirs) -> None:
    free, cluster = free_space(dirs.binaries)
    assert free > cluster > 0
    assert free % cluster == 0


def test_what_is_reserved(dirs: BootDirs, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = SimpleNamespace(f_bavail=0, f_bfree=7, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda fd: volume)
    assert free_space(dirs.binaries) == (0, 4096)
    assert free_space(dirs.binaries, reserved=True) == (7 * 4096, 4096)


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
