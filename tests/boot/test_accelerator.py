"""What machines run on: the user's choice, or KVM where it boots a guest."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from testbed import accelerator
from testbed.accelerator import kvm_fault, settle
from testbed.command import Hardware
from testbed.demo_os import DemoOs
from testbed.qemu import Qemu

#: Connects as QEMU does, shows a console, and stays or ends.
EMULATOR = """\
import re, socket, sys, time
words = " ".join(sys.argv)
agent = socket.socket(socket.AF_UNIX)
agent.connect(re.search(r"id=agent,path=(\\S+)", words)[1])
assert "-accel kvm" in words
with open(re.search(r"file:(\\S+)", words)[1], "w") as console:
    print(CONSOLE, file=console)
time.sleep(STAYS)
"""


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTC_QEMU_ACCEL", "auto")
    monkeypatch.setattr(os, "access", lambda path, mode: path == "/dev/kvm")


@pytest.fixture
def demo(tmp_path: Path) -> DemoOs:
    for name in ("vmlinuz", "initramfs.img", "vars.fd"):
        (tmp_path / name).touch()
    return DemoOs(tmp_path)


def emulator(directory: Path, console: str, stays_s: float = 60) -> Qemu:
    script = directory / "emulator.py"
    script.write_text(
        EMULATOR.replace("CONSOLE", repr(console)).replace("STAYS", str(stays_s)), "utf-8"
    )
    return Qemu((sys.executable, str(script)), directory / "code.fd", directory / "vars.fd")


@pytest.mark.parametrize("value", ["", "auto"])
def test_kvm_is_used_if_it_boots_a_kernel(
    value: str, demo: DemoOs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOOTC_QEMU_ACCEL", value)
    qemu = emulator(demo.directory, "[    0.9] Run /init as init process")
    assert settle(demo, qemu) == "Virtual machines use KVM"
    assert Hardware(Path("/v"), []).accelerator == "kvm"


def test_a_kernel_that_never_starts_means_emulation(
    demo: DemoOs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerator, "_PROBE_TIMEOUT_S", 1.0)
    fault = "/dev/kvm can be opened, but does not boot a guest"
    said = settle(demo, emulator(demo.directory, "firmware"))
    assert said == f"Virtual machines are emulated (TCG): {fault}"
    assert Hardware(Path("/v"), []).accelerator == "tcg,thread=multi"


def test_an_emulator_that_ends_means_emulation(demo: DemoOs) -> None:
    assert kvm_fault(demo, emulator(demo.directory, "", 0)) == "QEMU cannot use /dev/kvm"


def test_without_a_device_nothing_is_tried(demo: DemoOs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert kvm_fault(demo, Qemu(("/none",), Path("/c"), Path("/v"))) == "/dev/kvm cannot be opened"


def test_without_a_kernel_nothing_is_tried(demo: DemoOs) -> None:
    (demo.directory / "vmlinuz").unlink()
    fault = kvm_fault(demo, Qemu(("/none",), Path("/c"), Path("/v")))
    assert fault == f"{demo.directory}/vmlinuz is not built, which would be tried with /dev/kvm"


def test_the_user_chooses(demo: DemoOs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTC_QEMU_ACCEL", "hvf")
    said = settle(demo, Qemu(("/none",), Path("/c"), Path("/v")))
    assert said == "Virtual machines run with -accel hvf, as BOOTC_QEMU_ACCEL says"
    assert Hardware(Path("/v"), []).accelerator == "hvf"


@pytest.mark.parametrize("value", [None, "", "auto"])
def test_machines_are_emulated_until_the_probe_was_asked(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BOOTC_QEMU_ACCEL")
    if value is not None:
        monkeypatch.setenv("BOOTC_QEMU_ACCEL", value)
    assert Hardware(Path("/v"), []).accelerator == "tcg,thread=multi"
