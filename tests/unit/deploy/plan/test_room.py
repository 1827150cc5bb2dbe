"""Machines whose boot partition is full, or nearly."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bootc.boot.scheme import Scheme
from bootc.boot.space import NoSpaceOnBoot
from bootc.deploy import rollback as orders
from bootc.formats.origin import BootType
from bootc.sizes import exact_size
from support import osimages
from support.bench import Bench, upgrade
from support.bootdirs import (
    GRUB,
    GRUB_UKI,
    MENU_BOOT_TYPES,
    NONE_UKI,
    SCHEMES,
    SYSTEMD,
    SYSTEMD_UKI,
    scheme_name,
)
from support.machine import Command, FakeMachine
from support.osimages import Images
from support.room import Volume, clusters_of, limited
from support.stored import IN_MEMORY

each_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=scheme_name)
Benches = Callable[[Scheme], Bench]
EMPTY = "00" * 64


@pytest.fixture(scope="module")
def made() -> Iterator[dict[BootType, Images]]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        yield {kind: Images(Path(path, kind.value), kind) for kind in MENU_BOOT_TYPES}


@pytest.fixture
def benches(made: dict[BootType, Images]) -> Iterator[Benches]:
    """Return what makes machines that run NEW and can go back to OLD."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        yield lambda scheme: Bench(
            scheme, Path(path), made[scheme.boot_type], osimages.OLD, osimages.NEW
        )


def rollback(*, dry_run: bool = False) -> Command:
    return lambda system, journal: orders.rollback(system, journal, dry_run=dry_run)


def delete(image_id: str) -> Command:
    return lambda system, journal: orders.delete_deployment(system, image_id, journal)


def pin(image_id: str) -> Command:
    return lambda system, journal: orders.set_pin(system, image_id, journal, pinned=True)


def menu_volume(machine: FakeMachine) -> Volume:
    return Volume(machine.menu_root)


def first_fit(machine: FakeMachine, volume: Volume, command: Command) -> int:
    """Run a command in more and more room until it does not refuse; return how much that was."""
    for clusters in itertools.count():
        volume.leave(clusters)
        before = machine.contents(repository=False)
        try:
            machine.command(command)
        except NoSpaceOnBoot:
            assert machine.contents(repository=False) == before
        else:
            return clusters
    raise AssertionError("unreachable")


def generated_clusters(scheme: Scheme) -> int:
    """Return the room for a generated menu of two entries and its copy."""
    return 2 * 4 if scheme.generated else 0


def add_kernel(bench: Bench) -> Path:
    """Leave a kernel there that nothing boots with, and return it."""
    name = f"bootc_composefs-{EMPTY}"
    booted = bench.machine.menu()[0].files[0]
    if bench.machine.scheme.boot_type is BootType.UKI:
        return Path(shutil.copy(booted, booted.parent / f"{name}.efi"))
    return Path(shutil.copytree(booted.parent, booted.parent.parent / name))


# -- updates


@each_scheme
def test_an_update_fits_or_is_refused(scheme: Scheme, benches: Benches) -> None:
    bench = benches(scheme)
    bench.channel.offer(osimages.RENAMED)
    for number in range(12):
        foreign(bench, number)
    volume = Volume(bench.machine.binaries_root)
    with limited(volume):
        clusters = first_fit(bench.machine, volume, upgrade())
        assert 16 < clusters < 90 + generated_clusters(scheme)
        assert bench.machine.reboot() is None
    assert bench.shown() == ["renamed", "new"]


def foreign(bench: Bench, number: int) -> None:
    """Have somebody write an entry into the menu."""
    path = bench.machine.entries
    if bench.machine.scheme.menu_is_file:
        text = f'menuentry "Other {number}" {{\nchainloader /EFI/other/{number}.efi\n}}\n'
        path.write_text(path.read_text() + text)
    else:
        (path / f"other-{number}.conf").write_text("efi /EFI/other.efi\nversion " + "1" * 500)


def test_a_refusal_names_the_copy_that_the_firmware_starts(benches: Benches) -> None:
    bench = benches(NONE_UKI)
    # The copy is one of this kernel, which stays in the menu while the next copy is written.
    bench.machine.command(pin(bench.id(osimages.OLD)))
    bench.channel.offer(osimages.RENAMED)
    volume = Volume(bench.machine.binaries_root)
    kernel = clusters_of(bench.machine.menu()[0].files[0].stat().st_size)
    with limited(volume):
        volume.leave(kernel + 20)
        with pytest.raises(NoSpaceOnBoot) as caught:
            bench.machine.command(upgrade())
        said = "the copy of a kernel that the firmware starts by itself 13.0 KiB)"
        assert said in str(caught.value)
        volume.leave(2 * kernel + 20)
        bench.machine.command(upgrade())
        assert bench.machine.reboot() is None
    assert bench.shown() == ["renamed", "new", "old"]


def test_the_menu_of_an_update_that_has_a_file_system_of_its_own(benches: Benches) -> None:
    bench = benches(GRUB_UKI)
    bench.upgrade(osimages.TURNED)
    bench.channel.offer(osimages.RENAMED)
    volume = menu_volume(bench.machine)
    with limited(volume):
        volume.leave(0)
        before = bench.machine.contents(repository=False)
        for dry_run in (True, False):
            with pytest.raises(NoSpaceOnBoot, match=r"boot has 0 B free, but another boot menu"):
                bench.machine.command(upgrade(dry_run=dry_run))
        # What is staged is so still.
        assert bench.machine.contents(repository=False) == before
        assert first_fit(bench.machine, volume, upgrade()) < 4
        assert bench.machine.reboot() is None
    assert bench.shown() == ["renamed", "new"]


def test_a_kernel_beside_the_menu_goes_for_an_update(benches: Benches) -> None:
    bench = benches(GRUB_UKI)
    leftover = bench.machine.menu_root / f"bootc_composefs-{EMPTY}"
    leftover.mkdir()
    (leftover / "vmlinuz").write_bytes(bytes(4096))
    bench.channel.offer(osimages.RENAMED)
    volume = menu_volume(bench.machine)
    with limited(volume):
        volume.leave(0)
        dry = bench.machine.command(upgrade(dry_run=True))
        assert f"  remove the unused kernel {EMPTY} (4.0 KiB, 4096 bytes)" in dry
        bench.machine.command(upgrade())
    assert not leftover.exists()
    assert bench.machine.reboot() is None
    assert bench.shown() == ["renamed", "new"]


# -- other orders


@each_scheme
def test_going_back_fits_or_is_refused(scheme: Scheme, benches: Benches) -> None:
    bench = benches(scheme)
    volume = menu_volume(bench.machine)
    with limited(volume):
        clusters = first_fit(bench.machine, volume, rollback())
        # Two entries, their directory, and a temporary name.
        assert clusters <= 2 * 2 + 2 + 1 + generated_clusters(scheme)
        bench.machine.reboot()
    assert bench.shown() == ["old", "new"]


def test_what_is_said_where_a_menu_does_not_fit(benches: Benches) -> None:
    bench = benches(SYSTEMD)
    volume = menu_volume(bench.machine)
    volume.leave(1)
    with limited(volume), pytest.raises(NoSpaceOnBoot) as caught:
        bench.machine.command(rollback())
    assert caught.value.message == (
        f"{bench.machine.esp} has 512 B free, but another boot menu needs 3.0 KiB there"
    )
    assert caught.value.hint == (
        "remove files of other systems there, or delete a deployment that does not boot "
        "next: bootc delete-deployment"
    )


@each_scheme
def test_going_back_in_the_room_of_what_is_staged(scheme: Scheme, benches: Benches) -> None:
    bench = benches(scheme)
    bench.upgrade(osimages.RENAMED)
    bench.machine.command(pin(bench.id(osimages.OLD)))
    volume = menu_volume(bench.machine)
    with limited(volume):
        volume.leave(3 if scheme.menu_is_file else 0)
        dry = bench.machine.command(rollback(dry_run=True))
        assert dry[:2] == [
            "  withdraw the announcement of the staged deployment",
            "  remove the staged menu",
        ]
        said = bench.machine.command(rollback())
        assert said[0] == "Next boot: rollback deployment"
        assert bench.machine.reboot() is None
    assert bench.shown() == ["old", "new"]


@pytest.mark.parametrize("scheme", [SYSTEMD, SYSTEMD_UKI, GRUB], ids=scheme_name)
def test_going_back_in_the_room_of_a_kernel_nobody_needs(scheme: Scheme, benches: Benches) -> None:
    bench = benches(scheme)
    leftover = add_kernel(bench)
    volume = menu_volume(bench.machine)
    with limited(volume):
        volume.leave(0)
        size = sum(map(len, next(iter(bench.images.kernels.values()))))
        assert bench.machine.command(rollback(dry_run=True))[:4] == [
            "  remove the staged menu",
            f"  remove the unused kernel {EMPTY} ({exact_size(size)})",
            f"  write the staged menu: {bench.id(osimages.OLD)}, {bench.id(osimages.NEW)}",
            "* exchange the staged menu with the live one",
        ]
        assert leftover.exists()
        bench.machine.command(rollback())
    assert not leftover.exists()
    bench.machine.reboot()
    assert bench.shown() == ["old", "new"]


def test_nothing_goes_while_the_menu_cannot_be_read(benches: Benches) -> None:
    bench = benches(SYSTEMD)
    leftover = add_kernel(bench)
    (bench.machine.entries / "bootc_damaged-1-1.conf").write_bytes(b"\xff")
    volume = menu_volume(bench.machine)
    with limited(volume):
        volume.leave(0)
        with pytest.raises(NoSpaceOnBoot):
            bench.machine.command(rollback())
    assert leftover.exists()


@each_scheme
def test_to_have_what_the_menu_has_fits_or_is_refused(scheme: Scheme, benches: Benches) -> None:
    bench = benches(scheme)
    bench.channel.offer(osimages.OLD)
    volume = menu_volume(bench.machine)
    with limited(volume):
        clusters = first_fit(bench.machine, volume, upgrade())
        assert clusters <= 7 + generated_clusters(scheme)
    bench.machine.reboot()
    assert bench.shown() == ["old", "new"]


@each_scheme
def test_a_deployment_is_deleted_on_a_full_partition(scheme: Scheme, benches: Benches) -> None:
    bench = benches(scheme)
    volume = menu_volume(bench.machine)
    with limited(volume):
        clusters = first_fit(bench.machine, volume, delete(bench.id(osimages.OLD)))
    # Only of GRUB's file there has to be another one.
    rewrites = scheme.menu_is_file or scheme.generated
    assert clusters == (clusters if rewrites else 0) <= 4
    assert bench.shown() == ["new"]


@each_scheme
def test_what_boots_next_is_deleted_or_not(scheme: Scheme, benches: Benches) -> None:
    bench = benches(scheme)
    bench.machine.command(rollback())
    volume = menu_volume(bench.machine)
    with limited(volume):
        clusters = first_fit(bench.machine, volume, delete(bench.id(osimages.OLD)))
        assert 0 < clusters <= 7 + generated_clusters(scheme)
    assert bench.shown() == ["new"]


# -- shutdowns


@each_scheme
def test_what_was_staged_is_finalized_on_a_full_partition(scheme: Scheme, benches: Benches) -> None:
    bench = benches(scheme)
    foreign(bench, 1)
    bench.upgrade(osimages.RENAMED)
    volume = menu_volume(bench.machine)
    with limited(volume):
        volume.leave(0)
        assert bench.machine.reboot() is None
    assert bench.shown() == ["renamed", "new"]


@pytest.mark.parametrize("change", ["pinned", "foreign"])
@each_scheme
def test_a_menu_that_finds_no_room_at_shutdown(
    scheme: Scheme, change: str, benches: Benches
) -> None:
    bench = benches(scheme)
    bench.upgrade(osimages.RENAMED)
    if change == "pinned":
        bench.machine.command(pin(bench.id(osimages.OLD)))
    foreign(bench, 1)
    foreign(bench, 2)
    staged, volume = bench.id(osimages.RENAMED), menu_volume(bench.machine)
    with limited(volume):
        volume.leave(0)
        assert isinstance(bench.machine.reboot(), NoSpaceOnBoot)
        assert bench.shown() == ["new", "old"]
        assert any("has 0 B free, but another boot menu needs" in f for f in bench.findings())
        volume.lift()
        bench.machine.command(upgrade())
        assert bench.machine.reboot() is None
    assert bench.machine.booted_id == staged
    assert not any("boot menu" in finding for finding in bench.findings())


@pytest.mark.parametrize("scheme", [SYSTEMD, SYSTEMD_UKI, GRUB], ids=scheme_name)
@pytest.mark.parametrize("change", ["pinned", "foreign"])
def test_a_menu_that_is_given_room_at_shutdown(
    scheme: Scheme, change: str, benches: Benches
) -> None:
    bench = benches(scheme)
    bench.upgrade(osimages.RENAMED)
    leftover = add_kernel(bench)
    if change == "pinned":
        bench.machine.command(pin(bench.id(osimages.OLD)))
    foreign(bench, 1)
    volume = menu_volume(bench.machine)
    with limited(volume):
        volume.leave(0)
        assert bench.machine.reboot() is None
    assert not leftover.exists()
    pinned = ["old"] if change == "pinned" else []
    assert bench.shown() == ["renamed", "new", *pinned]
