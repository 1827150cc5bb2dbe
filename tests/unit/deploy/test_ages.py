"""Disks of every age of upstream's program: this program takes them over and hands them back.

:mod:`support.upstreamdisk` writes the disks, and :mod:`support.upstream` goes on from what this
program has written.
"""

from __future__ import annotations

import copy
import functools
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bootc.boot.scheme import Scheme
from bootc.deploy.cleanup import collect_garbage
from bootc.deploy.finalize import finalize_staged
from bootc.deploy.host.model import ImageSpec
from bootc.deploy.rollback import delete_deployment, rollback
from bootc.deploy.upgrade import UpdateOptions, switch
from bootc.formats.origin import BootType
from bootc.oci.fsck import check_images
from bootc.repository.fsck import check
from support import osimages
from support.ages import AGES, KEPT, RELABELLED, V1_16_0, V1_16_9, V1_17, Age, later
from support.bench import Bench, upgrade
from support.bootdirs import GRUB, GRUB_UKI, SYSTEMD, SYSTEMD_UKI, scheme_name
from support.machine import FakeMachine
from support.osimages import Channel, Images, OsImage
from support.stored import IN_MEMORY
from support.upstream import Upstream

NEW, OLD, TURNED, RENAMED = osimages.NEW, osimages.OLD, osimages.TURNED, osimages.RENAMED
_NAMED = re.compile(r"composefs(?:\.digest)?=\S+")

#: All disks with one kind of menu, and with the others those that differ in names and spelling.
CASES = [
    pytest.param((scheme, age), id=f"{scheme_name(scheme)}-{age.name.replace(' ', '-')}")
    for scheme in (SYSTEMD, SYSTEMD_UKI, GRUB, GRUB_UKI)
    for age in (AGES if scheme is SYSTEMD else (KEPT, V1_16_0, RELABELLED, V1_17))
]


@pytest.fixture(scope="module")
def images() -> Iterator[Callable[..., Images]]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:

        @functools.cache
        def of(kind: BootType, age: Age, builder: Age | None = None) -> Images:
            name = f"{kind.value} {age.name} by {builder.name if builder else None}"
            return Images(Path(path, name), kind, age=age, builder=builder)

        yield of


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Scheme, Age]:
    found: tuple[Scheme, Age] = request.param
    return found


@pytest.fixture
def age(case: tuple[Scheme, Age]) -> Age:
    return case[1]


@pytest.fixture
def bench(case: tuple[Scheme, Age], top: Path, images: Callable[[BootType, Age], Images]) -> Bench:
    """Return a machine that upstream's program of an age has installed with OLD."""
    scheme, age = case
    return Bench(scheme, top, images(scheme.boot_type, age), OLD, installer=age)


def installed_id(bench: Bench, age: Age) -> str:
    return bench.images.id_in(OLD, age.installed_format)


def whole(machine: FakeMachine) -> list[str]:
    """Return the tags of what the menu boots, after checks of all that it needs."""
    with machine.open() as system:
        assert check_images(system.repository, check(system.repository)).ok
    for shown in machine.menu():
        machine.check_bootable(shown)
    return [machine.images.image(shown.image_id).tag for shown in machine.menu()]


def test_the_disk_as_it_is_found(bench: Bench, age: Age) -> None:
    before = bench.machine.contents(repository=False)
    status = bench.machine.status()["status"]
    booted = status["booted"]
    assert booted["composefs"]["verity"] == installed_id(bench, age) == bench.machine.booted_id
    assert booted["composefs"]["missingVerityAllowed"] is True
    assert booted["image"]["image"] == {"image": str(bench.channel.path), "transport": "oci"}
    assert booted["image"]["imageDigest"] == bench.images.entry(OLD)["digest"]
    assert (status["staged"], status["rollback"], status["rollbackQueued"]) == (None, None, False)
    assert "findings" not in status
    bench.channel.offer(NEW)
    said = bench.check()
    assert said[0].startswith("Update available for")
    after = bench.machine.contents(repository=False)
    assert {p for p in after if before.get(p) != after[p]} == {"run/composefs/cached-update.json"}


def test_the_same_image_is_no_update(bench: Bench, age: Age) -> None:
    bench.upgrade(OLD)
    if bench.id(OLD) != installed_id(bench, age):
        # Upstream's program does the same: the image has another id in the new format.
        assert bench.machine.announced() == (bench.id(OLD), False)
    else:
        assert bench.machine.announced() is None


def test_an_upgrade_and_back(bench: Bench, age: Age) -> None:
    machine, first = bench.machine, installed_id(bench, age)
    bench.update(NEW)
    assert machine.booted_id == bench.id(NEW)
    assert whole(machine) == ["new", "old"]
    assert "findings" not in machine.status()["status"]
    bench.upgrade(NEW)
    assert machine.announced() is None
    machine.command(rollback)
    machine.reboot()
    assert machine.booted_id == first
    assert whole(machine) == ["old", "new"]
    machine.command(lambda s, j: delete_deployment(s, bench.id(NEW), j))
    machine.command(collect_garbage)
    assert whole(machine) == ["old"]


def test_a_switch(bench: Bench, top: Path) -> None:
    other = Channel(top / "other", bench.images, RENAMED)
    target = ImageSpec(other.reference)
    bench.machine.command(lambda s, j: switch(s, target, UpdateOptions(), j))
    bench.machine.reboot()
    assert bench.machine.booted_id == other.image_id
    assert sorted(whole(bench.machine)) == ["old", "renamed"]


def lose_old_names(bench: Bench, age: Age, *updates: OsImage) -> OsImage:
    """Update until no kernel has an old name; return what the machine runs.

    Upstream's program would rename them, and lose the entries that need no new name.
    """
    if age.prefixed:
        return OLD
    for image in updates:
        bench.update(image)
    return updates[-1]


def programs(bench: Bench, age: Age) -> Iterator[tuple[FakeMachine, Upstream]]:
    """Yield a copy of the machine for every age of the program that it may be handed to."""
    unified = bench.machine.scheme.boot_type is BootType.UKI
    found = later(age)
    # Of the other kinds of menu the oldest program and the newest one do.
    for program in found if bench.machine.scheme is SYSTEMD else {found[0], found[-1]}:
        if unified and age is RELABELLED and not program.knows_digests:
            continue  # It takes no unified kernel image of another format.
        machine = bench.machine.copy(bench.machine.path.with_name(program.name))
        yield machine, Upstream(machine, program)


def test_upstream_goes_on_from_an_update(bench: Bench, age: Age) -> None:
    first = installed_id(bench, age)
    if lose_old_names(bench, age, RENAMED) is not OLD:
        first = bench.id(RENAMED)
    bench.update(NEW)
    for machine, upstream in programs(bench, age):
        slots = upstream.slots()
        assert (slots.booted, slots.staged, slots.rollback) == (bench.id(NEW), None, first)
        bench.channel.offer(NEW)
        assert upstream.upgrade(bench.channel) is False
        bench.channel.offer(TURNED)
        assert upstream.upgrade(bench.channel) is True
        assert upstream.finalize() == bench.id(TURNED)
        machine.start()
        assert sorted(whole(machine)) == ["new", "turned"]
        upstream.rollback()
        upstream.collect()
        assert sorted(whole(machine)) == ["new", "turned"]
        # And this program once more, in whatever the other one has written.
        bench.channel.offer(RENAMED)
        machine.command(upgrade())
        machine.reboot()
        assert machine.booted_id == bench.id(RENAMED)
        assert len(whole(machine)) == 2


def test_each_finalizes_what_the_other_has_staged(bench: Bench, age: Age) -> None:
    base = lose_old_names(bench, age, RENAMED, TURNED)
    bench.channel.offer(NEW)
    for machine, upstream in programs(bench, age):
        other = machine.copy(machine.path.with_name(f"{upstream.age.name} stages"))
        machine.command(upgrade())
        assert upstream.finalize() == bench.id(NEW)
        machine.start()
        assert sorted(whole(machine)) == ["new", base.tag]
        Upstream(other, upstream.age).upgrade(bench.channel)
        staged = other.status()["status"]["staged"]
        assert staged["composefs"]["verity"] == bench.id(NEW)
        other.command(finalize_staged)
        other.start()
        assert sorted(whole(other)) == ["new", base.tag]


def test_an_entry_names_one_image(bench: Bench, age: Age) -> None:
    """Whatever spelling an entry has that is written anew, no other one stays behind."""
    if bench.machine.scheme.boot_type is BootType.UKI:
        return
    lose_old_names(bench, age, RENAMED)
    bench.update(NEW)
    (new, old) = sorted(bench.machine.menu(), key=lambda e: e.image_id != bench.machine.booted_id)
    assert _NAMED.findall(new.options) == [f"composefs=?{bench.id(NEW)}"]
    kept = age.argument(installed_id(bench, age), age.installed_format, optional=True)
    if not age.prefixed:
        kept = f"composefs=?{bench.id(RENAMED)}"
    assert _NAMED.findall(old.options) == [kept]
    for machine, upstream in programs(bench, age):
        bench.channel.offer(TURNED)
        upstream.upgrade(bench.channel)
        version = 1 if bench.id(TURNED) == bench.images.id_in(TURNED, 1) else 2
        written = [_NAMED.findall(shown.options) for shown in machine.staged_menu()]
        expected = upstream.age.argument(bench.id(TURNED), version, optional=True)
        assert [expected] in written


@pytest.mark.parametrize(
    ("scheme", "age", "builder"),
    [
        pytest.param(scheme, age, builder, id=f"{scheme_name(scheme)}-{age.name}-{builder.name}")
        for scheme, age, builder in (
            (SYSTEMD_UKI, V1_16_0, V1_16_9),
            (SYSTEMD_UKI, V1_16_0, V1_17),
            (SYSTEMD_UKI, RELABELLED, V1_16_0),
            (SYSTEMD_UKI, RELABELLED, V1_17),
            (SYSTEMD_UKI, V1_16_9, V1_16_0),
            (GRUB_UKI, V1_16_0, V1_16_9),
            (GRUB_UKI, V1_16_9, V1_17),
        )
    ],
)
def test_a_unified_kernel_image_of_another_age(
    top: Path,
    images: Callable[..., Images],
    scheme: Scheme,
    age: Age,
    builder: Age,
) -> None:
    """The image names other formats than that of the repository: bootc makes what it names."""
    old, newer = copy.copy(images(BootType.UKI, age)), images(BootType.UKI, age, builder)
    ids = [newer.id_in(image, version) for image in (NEW, RENAMED) for version in (1, 2)]
    old.kernels = old.kernels | {image_id: newer.kernels[image_id] for image_id in ids}
    bench = Bench(scheme, top, old, OLD, installer=age)
    machine, first = bench.machine, bench.machine.booted_id
    other = Channel(top / "other", newer, NEW)
    target = ImageSpec(other.reference)
    machine.command(lambda s, j: switch(s, target, UpdateOptions(), j))
    assert machine.reboot() is None
    assert machine.booted_id == other.image_id
    machine.command(collect_garbage)
    assert sorted(whole(machine)) == ["new", "old"]
    if builder.knows_digests:
        for version in (1, 2):
            assert (machine.physical / "composefs/images" / newer.id_in(NEW, version)).exists()
    if not age.prefixed:
        return
    upstream = Upstream(machine, V1_17)
    slots = upstream.slots()
    assert (slots.booted, slots.rollback) == (other.image_id, first)
    assert upstream.upgrade(other) is False
    other.offer(RENAMED)
    assert upstream.upgrade(other) is True
    assert upstream.finalize() == other.image_id
    machine.start()
    machine.command(upgrade())
    assert machine.announced() is None
    assert sorted(whole(machine)) == ["new", "renamed"]
