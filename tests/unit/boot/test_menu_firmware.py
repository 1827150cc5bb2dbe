from __future__ import annotations

import errno
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bootc.boot.fallback import FALLBACK
from bootc.boot.findings import FindingKind
from bootc.boot.menu import open_menu, read_menu
from bootc.boot.menu_firmware import NoCommit
from bootc.boot.menu_write import NotStaged
from bootc.boot.scheme import BootDirs, Scheme, uki_file
from bootc.formats.origin import BootType
from bootc.formats.osrelease import OsRelease
from bootc.kernel import efivars
from support import firmware
from support.bootdirs import NONE_UKI, SYSTEMD, deployment, item_of, open_boot
from support.failing import dies, failing
from support.pe import program
from support.room import Volume, limited
from support.stored import IN_MEMORY

HOME = "EFI/Linux/bootc"
#: Entries of other systems, by number.
WINDOWS, NETWORK = 0, 7


def uki(number: int) -> bytes:
    line = f"rw composefs={deployment(number).hex}".encode()
    return program((b".cmdline", line), (b".linux", b"kernel" * 300), (b".initrd", b"initrd"))


def publish(esp: Path, number: int, **addons: bytes) -> None:
    path = esp / HOME / uki_file(deployment(number).hex)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(uki(number))
    for name, content in addons.items():
        directory = Path(f"{path}.extra.d")
        directory.mkdir(exist_ok=True)
        (directory / f"{name}.addon.efi").write_bytes(content)


def stage(dirs: BootDirs, *numbers: int) -> None:
    open_menu(dirs).write_staged([item_of(NONE_UKI, number) for number in numbers])


class Machine:
    """A machine with two foreign entries that boots 1 and then 2."""

    def __init__(self, path: Path, *, may_write: bool = True, made: bool = False) -> None:
        path.mkdir(exist_ok=True)
        self.path = path
        self.may_write = may_write
        self.esp, self.variables = path / "esp", path / "efivars"
        if not made:
            self.install()

    def install(self) -> None:
        with self.open() as dirs:
            for number in (1, 2):
                publish(self.esp, number)
            for number, title in ((WINDOWS, "Windows"), (NETWORK, "Network")):
                option = b"\1\0\0\0\4\0" + f"{title}\0".encode("utf-16-le") + b"\x7f\xff\4\0"
                firmware.put(self.variables, f"Boot{number:04X}", option)
            firmware.put_order(self.variables, NETWORK, WINDOWS)
            stage(dirs, 1, 2)
            assert open_menu(dirs).commit(deployment(1))

    @contextmanager
    def open(self) -> Iterator[BootDirs]:
        with open_boot(self.path, NONE_UKI) as dirs:
            assert dirs.firmware is not None
            yield replace(dirs, firmware=replace(dirs.firmware, may_write=self.may_write))

    def starts(self) -> list[str]:
        """Return what the firmware would start, by the deployments in the programs."""
        names = {uki(number): str(number) for number in range(10)}
        return [names[path.read_bytes()] for _, path in firmware.started(self.variables, self.esp)]

    def deployments(self, *, staged: bool = False) -> list[int]:
        with self.open() as dirs:
            return [found.raw[0] for found in read_menu(dirs, staged=staged).deployments]

    def missing(self) -> list[str]:
        with self.open() as dirs:
            menu = read_menu(dirs, staged=False)
        kind = FindingKind.MISSING
        assert [f.subject for f in menu.findings if f.kind is kind] == list(menu.missing)
        return list(menu.missing)

    def update(self) -> None:
        with self.open() as dirs:
            stage(dirs, 3, 1)
            open_menu(dirs).commit(deployment(3))

    def refresh(self) -> None:
        with self.open() as dirs:
            open_menu(dirs).refresh()


@pytest.fixture
def top() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        yield Path(path)


@pytest.fixture
def machine(top: Path) -> Machine:
    return Machine(top / "machine")


def test_entries_come_before_foreign_ones_and_the_second_is_the_fallback(machine: Machine) -> None:
    assert machine.starts() == ["1", "2", "2"]
    assert firmware.order(machine.variables) == [1, 2, NETWORK, WINDOWS]
    titles = [title for title, _ in firmware.started(machine.variables, machine.esp)]
    short = [deployment(number).hex[:8] for number in (1, 2)]
    assert titles == [*(f"bootc Fedora Linux 43 43 {i}" for i in short), "fallback"]
    assert machine.missing() == []


def test_our_part_of_the_order_keeps_its_place(machine: Machine) -> None:
    firmware.put_order(machine.variables, WINDOWS, 2, NETWORK, 1)
    publish(machine.esp, 3)
    assert machine.deployments() == [2, 1]
    machine.update()
    # Number 2 is free again: its deployment is gone.
    assert firmware.order(machine.variables) == [WINDOWS, 3, 1, NETWORK]
    assert firmware.get(machine.variables, "Boot0002") is None
    assert machine.starts() == ["3", "1", "1"]


def test_staging_and_dropping_change_no_variable(machine: Machine) -> None:
    before = {path: path.read_bytes() for path in machine.variables.iterdir()}
    with machine.open() as dirs:
        stage(dirs, 2, 1)
        assert machine.deployments(staged=True) == [2, 1]
        open_menu(dirs).discard_staged()
    assert machine.deployments(staged=True) == []
    assert {path: path.read_bytes() for path in machine.variables.iterdir()} == before


def cuts(path: Path, work: Callable[[Machine], object], **options: bool) -> Iterator[Machine]:
    """Yield a machine for each change at which the power can fail during some work."""
    publish(Machine(path / "first", **options).esp, 3)
    for at in itertools.count(1):
        shutil.copytree(path / "first", path / str(at))
        machine = Machine(path / str(at), made=True, **options)
        cut = dies(at, lambda machine=machine: work(machine))  # type: ignore[misc]
        yield machine
        if not cut:
            assert at > 5
            return


@pytest.mark.parametrize("may_write", [True, False], ids=["order", "fallback"])
def test_a_power_cut_at_any_change_of_an_update(top: Path, may_write: bool) -> None:
    """The old deployment boots before the commit, and the new one after it."""
    seen = []
    for machine in cuts(top, Machine.update, may_write=may_write):
        first = machine.starts()[0]
        seen.append(first)
        assert machine.deployments()[0] == int(first)
        assert set(machine.starts()) <= {"1", "2", "3"}
        # The next boot mends the rest, and what boots stays the same.
        machine.refresh()
        assert machine.starts()[0] == first
        if may_write:
            assert machine.missing() == []
        machine.update()
        assert machine.starts()[: 2 if may_write else 1] == (["3", "1"] if may_write else ["3"])
        assert machine.deployments() == [3, 1]
    assert sorted(seen) == seen
    assert set(seen) == {"1", "3"}


def test_a_power_cut_at_any_change_of_a_removal(top: Path) -> None:
    def remove(machine: Machine) -> None:
        with machine.open() as dirs:
            item = next(
                i for i in read_menu(dirs, staged=False).items if i.name.endswith("-0.conf")
            )
            open_menu(dirs).remove_entry(item)

    for machine in cuts(top, remove):
        assert machine.starts()[0] == "1"
    assert machine.starts() == ["1", "1"]
    assert machine.deployments() == [1]


def test_a_commit_that_the_firmware_refuses(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(machine.esp, 3)

    def full(name: str, *args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)

    with monkeypatch.context() as patch:
        patch.setattr(efivars, "write_variable", full)
        with pytest.raises(OSError, match="boot order of the firmware"):
            machine.update()
    assert machine.starts() == ["1", "2", "2"]
    assert machine.deployments(staged=True) == [3, 1]


def test_what_follows_the_commit_may_fail(machine: Machine) -> None:
    publish(machine.esp, 3)
    with machine.open() as dirs:
        stage(dirs, 3, 1)
        # The third change is the first after the two variables.
        with failing(3, errno.EIO):
            assert open_menu(dirs).commit(deployment(3))
    assert machine.starts()[:2] == ["3", "1"]
    assert machine.deployments()[0] == 3


def test_committing_twice_and_something_else(machine: Machine) -> None:
    publish(machine.esp, 3)
    machine.update()
    with machine.open() as dirs:
        menu = open_menu(dirs)
        assert not menu.commit(deployment(3))
        with pytest.raises(NotStaged):
            menu.commit(deployment(2))


@pytest.mark.parametrize("lost", [(), (1,)], ids=["all", "second"])
def test_entries_that_the_firmware_lost(machine: Machine, lost: tuple[int, ...]) -> None:
    firmware.erase(machine.variables)
    if lost:
        machine.refresh()
        first, _ = firmware.order(machine.variables)
        firmware.put_order(machine.variables, first)
    # Without any entry the firmware starts the fallback: the second deployment.
    assert machine.starts()[0] == ("1" if lost else "2")
    assert machine.deployments() == ([1, 2] if lost else [2, 1])
    assert machine.missing() == (
        ["bootc_fedora-43-0.conf"] if lost else ["bootc_fedora-43-1.conf", "bootc_fedora-43-0.conf"]
    )
    machine.refresh()
    assert machine.starts() == ["1", "2", "2"]
    assert machine.missing() == []


def test_an_order_that_somebody_changed_is_recorded(machine: Machine) -> None:
    firmware.put_order(machine.variables, 2, 1)
    machine.refresh()
    assert machine.deployments() == [2, 1]
    firmware.erase(machine.variables)
    machine.refresh()
    assert machine.starts() == ["2", "1", "1"]


def test_inactive_entries_and_lost_programs_start_nothing(machine: Machine) -> None:
    option = firmware.get(machine.variables, "Boot0001")
    assert option is not None
    firmware.put(machine.variables, "Boot0001", b"\0" + option[1:])
    assert machine.deployments() == [2, 1]
    (machine.esp / HOME / uki_file(deployment(2).hex)).unlink()
    assert machine.starts() == ["2"]  # the fallback
    machine.refresh()
    # The entry is written again, and its inactive twin removed.
    assert machine.starts()[0] == "1"


def test_a_program_of_another_system_is_no_fallback(machine: Machine) -> None:
    (machine.esp / FALLBACK).write_bytes(b"MZ Windows")
    publish(machine.esp, 3)
    machine.update()
    assert (machine.esp / FALLBACK).read_bytes() == b"MZ Windows"
    assert machine.missing() == [FALLBACK]
    assert firmware.order(machine.variables)[:2] == [3, 1]


def test_the_fallback_has_the_add_ons_of_its_image(machine: Machine) -> None:
    def addons() -> dict[str, bytes]:
        directory = Path(f"{machine.esp / FALLBACK}.extra.d")
        return {path.name: path.read_bytes() for path in directory.glob("*")}

    publish(machine.esp, 1, console=b"1", debug=b"2")
    publish(machine.esp, 3, console=b"3")
    machine.update()
    assert addons() == {"console.addon.efi": b"1", "debug.addon.efi": b"2"}
    publish(machine.esp, 4)
    with machine.open() as dirs:
        stage(dirs, 4, 3)
        open_menu(dirs).commit(deployment(4))
        assert addons() == {"console.addon.efi": b"3"}
        open_menu(dirs).remove_entry(read_menu(dirs, staged=False).items[1])
    assert machine.starts() == ["4", "4"]
    assert addons() == {}


def test_without_variables_add_ons_must_not_change(top: Path) -> None:
    machine = Machine(top / "machine", may_write=False)
    publish(machine.esp, 3, debug=b"2")
    with pytest.raises(NoCommit, match="add-ons"):
        machine.update()
    assert machine.starts() == ["1"]


def test_without_variables_the_old_program_is_never_removed_first(top: Path) -> None:
    machine = Machine(top / "machine", may_write=False)
    publish(machine.esp, 3)
    # The present one boots nothing of the next menu.
    with machine.open() as dirs:
        stage(dirs, 3)
        volume = Volume(machine.esp)
        with limited(volume):
            volume.leave(2)
            with pytest.raises(OSError, match="No space left"):
                open_menu(dirs).commit(deployment(3))
    assert machine.starts() == ["1"]


def test_a_long_title_is_cut(machine: Machine) -> None:
    publish(machine.esp, 3)
    name = OsRelease({"ID": "x", "PRETTY_NAME": "long " * 1000})
    with machine.open() as dirs:
        open_menu(dirs).write_staged([item_of(NONE_UKI, 3, name)])
        open_menu(dirs).commit(deployment(3))
    option = firmware.get(machine.variables, "Boot0003")
    assert option is not None
    assert firmware.program_of(option)[0] == f"bootc {'long ' * 12}long {deployment(3).hex[:8]}"


def test_variables_that_became_read_only(machine: Machine) -> None:
    publish(machine.esp, 3)
    machine.may_write = False
    with pytest.raises(NoCommit, match="boot order of the firmware cannot be written"):
        machine.update()
    assert machine.starts() == ["1", "2", "2"]


@pytest.mark.parametrize("may_write", [True, False])
def test_a_program_that_is_missing(top: Path, may_write: bool) -> None:
    machine = Machine(top / "machine", may_write=may_write)
    before = machine.starts()
    with pytest.raises(NoCommit, match="is missing, which the firmware would start"):
        machine.update()
    assert machine.starts() == before
    assert machine.deployments() == [1, 2]


def test_kernels_of_a_former_boot_loader(machine: Machine) -> None:
    """They stay in the record, and the firmware never starts one."""
    publish(machine.esp, 3)
    kernel = item_of(SYSTEMD, 5)
    with machine.open() as dirs:
        open_menu(dirs).write_staged([item_of(NONE_UKI, 3), kernel])
        assert open_menu(dirs).commit(deployment(3))
        assert machine.starts() == ["3", "2"]
        assert machine.deployments() == [3, 5]
        open_menu(dirs).write_staged([kernel, item_of(NONE_UKI, 3)])
        with pytest.raises(NoCommit, match="only unified kernel images"):
            open_menu(dirs).commit(deployment(5))
    assert machine.deployments() == [3, 5]


def test_the_space_of_the_next_fallback(machine: Machine) -> None:
    publish(machine.esp, 3, debug=bytes(5000))
    size = len(uki(1))
    with machine.open() as dirs:
        menu = open_menu(dirs)

        def needed(*numbers: int) -> int:
            return menu.copies_bytes([item_of(NONE_UKI, number) for number in numbers])

        # It is a copy of 2 now.
        assert needed(3, 2) == 0
        assert needed(3, 1) == 0  # in place of the old one, which nothing needs
        assert needed(3, 1, 2) == size
        assert needed(1, 3) == 5000


def test_a_menu_in_files_needs_no_more(top: Path) -> None:
    scheme = Scheme(SYSTEMD.bootloader, BootType.BLS)
    with open_boot(top, scheme) as dirs:
        menu = open_menu(dirs)
        assert menu.copies_bytes([item_of(scheme, 1), item_of(scheme, 2)]) == 0
        menu.refresh()
