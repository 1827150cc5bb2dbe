from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bootc.boot.findings import FindingKind
from bootc.boot.menu import open_menu, read_menu
from bootc.boot.menu_compose import CannotCompose
from bootc.boot.menu_ukiboot import PayloadChanged, UnknownSlot
from bootc.boot.menu_write import NotStaged
from bootc.boot.scheme import BootDirs
from bootc.boot.space import NoSpaceOnBoot
from bootc.fs import rawdevice
from bootc.fs.dir import Dir
from bootc.fs.readback import NotOnDisk
from support import slots
from support.bootdirs import UKIBOOT, deployment, item_of
from support.failing import dies, failing
from support.pe import program
from support.stored import IN_MEMORY


def uki(number: int, *, size: int = 300) -> bytes:
    line = f"rw composefs={deployment(number).hex}".encode()
    release = b'ID=demo\nVERSION_ID=1\nPRETTY_NAME="Demo 1"\n'
    kernel = b"kernel" * size
    return program(
        (b".cmdline", line), (b".osrel", release), (b".linux", kernel), (b".initrd", b"initrd")
    )


class Machine:
    """A machine that was started from slot A, with 1 in slot A and 2 in slot B."""

    def __init__(self, path: Path, *, made: bool = False, booted: str | None = "a") -> None:
        self.path, self.booted = path, booted
        self.root = path / "sysroot"
        if not made:
            self.root.mkdir(parents=True)
            slots.slots_of(path, UKIBOOT)
            for number, slot in ((1, "a"), (2, "b")):
                self.state(number).mkdir(parents=True)
                self.fill(slot, uki(number))
            slots.put(path, (15, 0, 1), (14, 0, 1))

    def state(self, number: int) -> Path:
        return self.root / "state/deploy" / deployment(number).hex

    def record(self, name: str) -> Path:
        return self.root / "state/boot/aboot" / name

    def fill(self, slot: str, data: bytes) -> None:
        with (self.path / "parts" / slot).open("r+b") as file:
            file.write(data.ljust(slots.SLOT_BYTES, b"\0"))

    def publish(self, number: int, data: bytes | None = None) -> Path:
        path = self.state(number) / "aboot/aboot.img"
        path.parent.mkdir(parents=True)
        path.write_bytes(uki(number) if data is None else data)
        return path

    @contextmanager
    def open(self) -> Iterator[BootDirs]:
        with Dir.open(self.root) as root:
            parts = slots.slots_of(self.path, UKIBOOT, self.booted)
            yield BootDirs(UKIBOOT, root, root, slots=parts)

    def starts(self) -> str:
        """Return the deployments that the loader would start, in its order."""
        found = [slots.content(self.path, slot) for slot in slots.order(self.path)]
        names = {uki(number).rstrip(b"\0"): str(number) for number in range(10)}
        return "".join(names.get(data, "?") for data in found)

    def menu(self, *, staged: bool = False) -> str:
        with self.open() as dirs:
            return "".join(str(d.raw[0]) for d in read_menu(dirs, staged=staged).deployments)

    def findings(self) -> list[tuple[str, FindingKind, str]]:
        with self.open() as dirs:
            menus = [read_menu(dirs, staged=staged) for staged in (False, True)]
        assert {f.subject for f in menus[0].findings if f.kind is FindingKind.MISSING} == set(
            menus[0].missing
        )
        return [(f.subject, f.kind, f.text) for menu in menus for f in menu.findings]

    def stage(self, *numbers: int) -> None:
        with self.open() as dirs:
            known = {item.deployment: item for item in read_menu(dirs, staged=False).items}
            order = [known.get(deployment(n)) or item_of(UKIBOOT, n) for n in numbers]
            open_menu(dirs).write_staged(order)

    def commit(self, number: int) -> bool:
        with self.open() as dirs:
            return open_menu(dirs).commit(deployment(number))

    def update(self) -> None:
        self.stage(3, 1)
        self.commit(3)

    def roll_back(self) -> None:
        self.stage(2, 1)
        self.commit(2)

    def refresh(self) -> None:
        with self.open() as dirs:
            open_menu(dirs).refresh()

    def reboot(self) -> None:
        """Start again, and run the unit that refreshes the menu."""
        self.booted = slots.start(self.path)
        self.refresh()


@pytest.fixture
def top() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        yield Path(path)


@pytest.fixture
def machine(top: Path) -> Machine:
    return Machine(top / "machine")


def test_the_partitions_are_the_menu(machine: Machine) -> None:
    assert (machine.menu(), machine.menu(staged=True), machine.findings()) == ("12", "", [])
    slots.put(machine.path, (14, 0, 1), (15, 1, 0))
    assert machine.menu() == machine.starts() == "21"
    slots.put(machine.path, (15, 0, 1), (0, 0, 0))
    assert machine.menu() == machine.starts() == "1"
    slots.put(machine.path, (7, 0, 1), (7, 0, 1))
    assert machine.menu() == machine.starts() == "12"


def test_an_update_and_what_upstreams_program_reads_of_it(machine: Machine) -> None:
    payload = machine.publish(3)
    machine.stage(3, 1)
    assert (machine.starts(), machine.menu(), machine.menu(staged=True)) == ("12", "12", "31")
    assert machine.record("pending").read_text() == (
        f'{{"boot_image_sha256":"{hashlib.sha256(uki(3)).hexdigest()}",'
        f'"depl_id":"{deployment(3).hex}",'
        '"finalization_locked":true,"vbmeta_image_sha256":null}'
    )
    assert machine.commit(3)
    assert (machine.starts(), machine.menu(), machine.menu(staged=True)) == ("31", "31", "")
    assert slots.get(machine.path) == [[14, 0, 1], [15, 7, 0]]
    attempted = json.loads(machine.record("attempted").read_text())
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert attempted == {"boot_id": boot_id, "depl_id": deployment(3).hex}
    assert payload.exists()
    assert not machine.commit(3)
    machine.reboot()
    assert slots.get(machine.path) == [[14, 0, 1], [15, 0, 1]]
    assert sorted(os.listdir(machine.record(""))) == ["slots"]
    assert machine.record("slots/b").read_text() == deployment(3).hex
    assert not payload.parent.exists()
    assert machine.findings() == []


def test_rolling_back_and_again(machine: Machine) -> None:
    machine.roll_back()
    assert machine.starts() == machine.menu() == "21"
    assert json.loads(machine.record("rollback").read_text())["depl_id"] == deployment(2).hex
    machine.stage(1, 2)
    assert machine.commit(1)
    assert machine.starts() == machine.menu() == "12"
    assert not machine.record("rollback").exists()
    machine.roll_back()
    machine.reboot()
    assert (machine.booted, machine.starts()) == ("b", "21")
    # The next update takes the place of 1, which does not run.
    machine.publish(3)
    machine.stage(3, 2)
    machine.commit(3)
    assert machine.starts() == machine.menu() == "32"


def test_an_order_without_the_default(machine: Machine) -> None:
    machine.roll_back()
    machine.stage(1)
    assert machine.commit(1)
    assert machine.starts() == machine.menu() == "1"


def test_an_entry_is_removed(machine: Machine) -> None:
    with machine.open() as dirs:
        menu = open_menu(dirs)
        menu.remove_entry(read_menu(dirs, staged=False).items[1])
        menu.remove_recounted("nothing")
    assert machine.starts() == machine.menu() == "1"


def cuts(path: Path, work: Callable[[Machine], object]) -> Iterator[Machine]:
    """Yield a machine for each change at which the power can fail during some work."""
    Machine(path / "first").publish(3)
    for at in itertools.count(1):
        shutil.copytree(path / "first", path / str(at))
        machine = Machine(path / str(at), made=True)
        cut = dies(at, lambda machine=machine: work(machine))  # type: ignore[misc]
        yield machine
        if not cut:
            assert at > 2
            return


def test_a_power_cut_at_any_change_of_an_update(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old deployment boots before the commit, and the new one after it."""
    # Several pieces, so that a slot can be half-written.
    monkeypatch.setattr(Dir, "read_chunks", _in_pieces)
    seen = []
    for machine in cuts(top, Machine.update):
        first = machine.starts()[0]
        seen.append(first)
        assert machine.menu() == machine.starts()
        assert set(machine.starts()) <= {"1", "2", "3"}
        machine.reboot()
        assert machine.findings() == []
        assert (machine.booted == "b") is (first == "3")
        if first == "1":
            machine.update()
            assert machine.starts() == "31"
    assert sorted(seen) == seen
    assert set(seen) == {"1", "3"}


def test_a_power_cut_at_any_change_of_a_rollback(top: Path) -> None:
    for machine in cuts(top, Machine.roll_back):
        assert machine.starts() in ("12", "21")
        assert machine.menu() == machine.starts()
        machine.reboot()
        assert machine.findings() == []
    assert machine.starts() == "21"


def test_a_deployment_that_does_not_boot(machine: Machine) -> None:
    machine.publish(3)
    machine.update()
    started = [slots.start(machine.path) for _ in range(8)]
    assert started == [*["b"] * 7, "a"]
    machine.booted = "a"
    machine.refresh()
    assert machine.starts() == machine.menu() == "1"
    assert machine.menu(staged=True) == ""
    assert sorted(os.listdir(machine.record(""))) == ["slots"]
    ((subject, kind, text),) = machine.findings()
    assert (subject, kind) == ("ukiboot_b", FindingKind.FAILED)
    assert "bootc upgrade" in text
    machine.publish(4)
    machine.stage(4, 1)
    machine.commit(4)
    assert machine.starts() == "41"


@pytest.mark.parametrize("damage", [b"", b"\x08\xe1\xab\x54torn"], ids=["zeroed", "torn"])
@pytest.mark.parametrize("booted", ["a", "b"])
def test_a_damaged_control_block(machine: Machine, damage: bytes, booted: str) -> None:
    machine.booted = booted
    control = machine.path / "parts/control"
    control.write_bytes(damage.ljust(4096, b"\0"))
    assert machine.starts() == machine.menu() == "12"
    ((subject, kind, text),) = machine.findings()
    assert (subject, kind) == ("ukibootctl", FindingKind.MISSING)
    assert "starts slot a first" in text
    machine.refresh()
    assert machine.findings() == []
    assert machine.menu() == machine.starts() == ("12" if booted == "a" else "21")


def test_garbage_in_the_slot_that_starts_next(machine: Machine) -> None:
    slots.put(machine.path, (14, 0, 1), (15, 7, 0))
    machine.fill("b", b"garbage")
    assert machine.menu() == "1"
    ((subject, kind, text),) = machine.findings()
    assert (subject, kind) == ("ukiboot_b", FindingKind.MISSING)
    assert "bootc upgrade replaces it" in text
    machine.refresh()
    assert machine.findings() == []
    assert machine.starts() == "1"


def test_a_payload_that_changed_is_not_written(machine: Machine) -> None:
    payload = machine.publish(3)
    machine.stage(3, 1)
    payload.write_bytes(uki(4))
    with pytest.raises(PayloadChanged, match="has changed since it was staged"):
        machine.commit(3)
    assert machine.starts() == "12"


def test_a_disk_that_keeps_something_else(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.publish(3)
    monkeypatch.setattr(rawdevice, "_write_chunk", lambda fd, chunk: os.write(fd, chunk[::-1]))
    with pytest.raises(NotOnDisk, match="does not have the content"):
        machine.update()
    assert machine.starts() == machine.menu() == "1"


def test_any_change_of_a_commit_may_fail(machine: Machine) -> None:
    machine.publish(3)
    machine.stage(3, 1)
    for at in itertools.count(1):
        with failing(at, errno.EIO) as changes, suppress(OSError):
            machine.commit(3)
        if not changes.failed:
            break
        assert machine.starts()[0] == "1"
    assert at > 4
    assert machine.starts() == "31"


def test_a_kernel_that_is_larger_than_the_partition(machine: Machine) -> None:
    with machine.open() as dirs:
        menu = open_menu(dirs)
        menu.check_kernel({"os.efi": slots.SLOT_BYTES})
        with pytest.raises(NoSpaceOnBoot, match=r"ukiboot_b only 64\.0 KiB"):
            menu.check_kernel({"os.efi": slots.SLOT_BYTES + 1})
        assert menu.copies_bytes([]) == 0


@pytest.mark.parametrize(
    ("numbers", "words"),
    [((3, 1, 2), "boots from two partitions"), ((3, 2), "is needed for the new one")],
)
def test_too_many_deployments(machine: Machine, numbers: tuple[int, ...], words: str) -> None:
    machine.publish(3)
    with pytest.raises(CannotCompose, match=words) as caught:
        machine.stage(*numbers)
    assert "bootc unpin" in (caught.value.hint or "")


def test_what_is_in_no_partition_and_not_staged(machine: Machine) -> None:
    with pytest.raises(NotStaged):
        machine.commit(3)
    machine.publish(3)
    machine.stage(3, 1)
    with machine.open() as dirs:
        open_menu(dirs).discard_staged()
    assert machine.menu(staged=True) == ""
    with pytest.raises(NotStaged):
        machine.commit(3)


def test_without_the_running_slot_nothing_is_written(machine: Machine) -> None:
    machine.publish(3)
    machine.booted = None
    for change in (machine.update, machine.refresh):
        with pytest.raises(UnknownSlot):
            change()
    assert machine.starts() == "12"
    machine.roll_back()
    assert machine.starts() == "21"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"depl_id": "x"}'])
def test_a_damaged_record(machine: Machine, text: str) -> None:
    machine.publish(3)
    machine.stage(3, 1)
    machine.record("pending").write_text(text)
    assert machine.menu(staged=True) == ""
    assert [kind for _, kind, _ in machine.findings()] == [FindingKind.MALFORMED]
    machine.stage(3, 1)
    assert machine.commit(3)


def _in_pieces(self: Dir, relpath: str) -> Iterator[bytes]:
    data = self.read_bytes(relpath, 1 << 20)
    return (data[at : at + 500] for at in range(0, len(data), 500))
