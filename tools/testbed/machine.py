"""A virtual machine as a context manager.

Entering starts the emulator, leaving ends it, however it is left. What the machine needs
meanwhile is in a temporary directory, which leaving deletes. Disks and the firmware's
variables are the caller's files: one machine can install, and the next one boot the result.

    with Machine(hardware) as machine:
        machine.wait_ready()
        print(machine.run("uname -r").stdout)
        machine.power_off()

A machine can be saved while it runs and resumed later (``saved.py``).
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.agent import Agent, AgentError, NoAnswerYetError, OnOutput, Result
from testbed.command import Hardware, qemu_command
from testbed.credentials import agent_credentials, network_credentials
from testbed.monitor import Monitor, MonitorError
from testbed.qemu import Qemu, find_qemu
from testbed.saved import Saved, copies_in, copy_storage
from testbed.tpm import start as start_tpm

#: Emulated and on a busy host, a boot takes its time.
BOOT_TIMEOUT_S = 400.0
#: How a console says that the boot stopped.
EMERGENCY = re.compile(r"(?i)reached target .*emergency|you are in (emergency|rescue) mode")
#: How a console says that the kernel is up, how long it may be silent before, and how often that
#: is looked at.
_INIT = "as init process"
_INIT_TIMEOUT_S = 120.0
_INIT_ROUNDS = 4
_CONSOLE_TAIL_LINES = 40
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])|\r|\x00")


class MachineError(Exception):
    """The machine did not do what was asked; the end of its console is in the message."""


class CommandError(MachineError):
    """A command in the machine failed."""

    def __init__(self, result: Result, console: str) -> None:
        ending = "out of time" if result.rc is None else f"exit status {result.rc}"
        super().__init__(
            f"{result.command!r}: {ending}\n"
            f"--- stdout\n{result.stdout}\n--- stderr\n{result.stderr}\n--- console\n{console}"
        )
        self.result = result


class Machine:
    """One run of a machine, from power-on or from where it was saved, to its end."""

    def __init__(
        self,
        hardware: Hardware,
        *,
        qemu: Qemu | None = None,
        keep_console: Path | None = None,
        resume: Saved | None = None,
    ) -> None:
        """Describe a machine.

        Args:
            hardware: Its parts; credentials for the agent and the network are added.
            qemu: The emulator, by default the one that :func:`find_qemu` finds.
            keep_console: Where a copy of the console's text is left afterwards, and beside it
                what was run in the machine (``.commands``): the time since power-on, how long
                it took, and the command.
            resume: Go on where this machine was saved. ``hardware`` is a copy of its parts
                (:meth:`Saved.copy`).
        """
        credentials = {**agent_credentials(), **hardware.credentials}
        if hardware.network:
            credentials.update(network_credentials())
        self._hardware = replace(hardware, credentials=credentials)
        self._qemu = qemu or find_qemu()
        self._keep_console = keep_console
        self._resume = resume
        self._process: subprocess.Popen[bytes] | None = None
        self._tpm: subprocess.Popen[bytes] | None = None
        self._agent: Agent | None = None
        # The kernel of a saved machine is up, and the console does not show its boot again.
        self._kernel_is_up = resume is not None

    def __enter__(self) -> Self:
        self._directory = Path(tempfile.mkdtemp(prefix="testbed-"))
        self._commands: list[str] = []
        self._started = time.monotonic()
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _start(self) -> None:
        self._console = self._directory / "console"
        self._console.touch()
        self._errors = self._directory / "stderr"
        self._listener = self._listen("agent")
        self._monitor_listener = self._listen("monitor")
        self._monitor: Monitor | None = None
        control = None
        if self._hardware.tpm is not None:
            control = self._directory / "tpm"
            self._tpm = start_tpm(self._hardware.tpm, control, self._directory / "swtpm")
        argv = qemu_command(
            self._qemu,
            self._hardware,
            console=f"file:{self._console}",
            agent=self._directory / "agent",
            monitor=self._directory / "monitor",
            tpm=control,
            resume=None if self._resume is None else self._resume.state,
        )
        # The emulator must not outlive a test run that is killed.
        setpriv = shutil.which("setpriv")
        if setpriv:
            argv = [setpriv, "--pdeathsig", "KILL", *argv]
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                env={**os.environ, **self._qemu.environment},
            )
        self._connection = self._accept(self._listener)
        self._agent = Agent(self._connection)

    def _listen(self, name: str) -> socket.socket:
        path = self._directory / name
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(1)
        return listener

    def _accept(self, listener: socket.socket) -> socket.socket:
        """Wait for QEMU to connect.

        Raises:
            MachineError: QEMU ended.
        """
        assert self._process is not None
        while True:
            ended = self._process.poll() is not None
            try:
                return listener.accept()[0]
            except TimeoutError:
                if ended:
                    raise MachineError(
                        f"QEMU ended: {self._errors.read_text(errors='replace')}"
                    ) from None

    def _stop(self) -> None:
        for process in (self._process, self._tpm):
            if process is not None:
                process.kill()
                process.wait()
        for endpoint in ("_connection", "_listener", "_monitor_connection", "_monitor_listener"):
            opened: socket.socket | None = getattr(self, endpoint, None)
            if opened is not None:
                opened.close()

    def _end(self) -> None:
        self._stop()
        if self._keep_console is not None and self._console.exists():
            self._keep_console.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._console, self._keep_console)
            self._keep_console.with_suffix(".commands").write_text("".join(self._commands))
        shutil.rmtree(self._directory)

    def starts_kernel(self, timeout_s: float) -> bool:
        """Wait until the kernel starts its first program; return False if it does not in time.

        Raises:
            MachineError: The machine ended before.
        """
        assert self._process is not None
        deadline = time.monotonic() + timeout_s
        while _INIT not in self.console_text():
            if self._process.poll() is not None:
                raise MachineError(f"the machine ended\n{self._console_tail()}")
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.1)
        return True

    def _await_kernel(self) -> None:
        """Wait for the kernel; start the emulator again if it stands still before.

        On a busy host QEMU now and then leaves an emulated processor asleep for good. Up to here
        nothing of the guest's own has run, and only firmware and boot loader have written anything.
        Firmware, GRUB and kernel may be slow, too, but they go on writing.
        The console of the first emulator is kept beside the other (``.hung``).
        """
        if self._kernel_is_up:
            return
        self._kernel_is_up = True
        try:
            for _ in range(_INIT_ROUNDS):
                written = self._console.stat().st_size
                if self.starts_kernel(_INIT_TIMEOUT_S):
                    return
                if self._console.stat().st_size == written:
                    break
        except MachineError:
            return  # the caller waits for something and finds that the machine ended
        if self._keep_console is not None:
            self._keep_console.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._console, self._keep_console.with_suffix(".hung"))
        self._stop()
        self._start()

    def save(self, directory: Path) -> Saved:
        """Save the machine as it runs, in a new directory, and end it.

        If that fails or is interrupted, the directory is deleted.

        Raises:
            MachineError: QEMU could not save it.
            ValueError: One of its disks forgets what is written to it, or it has a TPM.
        """
        if self._hardware.tpm is not None:
            raise ValueError("a machine with a TPM cannot be saved")
        forgetful = [disk.serial for disk in self._hardware.disks if disk.snapshot]
        if forgetful:
            raise ValueError(f"a machine with the snapshot disk {forgetful[0]} cannot be saved")
        directory.mkdir()
        try:
            saved = Saved(directory, copies_in(directory, self._hardware))
            self._connected_monitor().save(saved.state)
            self._stop()
            copy_storage(self._hardware, saved.hardware)
        except BaseException as exc:
            shutil.rmtree(directory)
            if isinstance(exc, MonitorError):
                raise MachineError(f"cannot save: {exc}\n{self._console_tail()}") from exc
            raise
        return saved

    def _go_on(self) -> str:
        """Let a resumed machine run, and set its clock; return the guest's boot id."""
        try:
            self._connected_monitor().go_on()
        except MonitorError as exc:
            raise MachineError(f"cannot resume: {exc}\n{self._console_tail()}") from exc
        # Its clock stands at the time when it was saved.
        self.run(f"date --set=@{time.time():.3f}")
        return self.run("cat /proc/sys/kernel/random/boot_id").stdout.strip()

    def _connected_monitor(self) -> Monitor:
        # QEMU connects when it starts, and only once.
        if self._monitor is None:
            self._monitor_connection = self._accept(self._monitor_listener)
            self._monitor = Monitor(self._monitor_connection)
        return self._monitor

    def wait_ready(self, timeout_s: float = BOOT_TIMEOUT_S) -> str:
        """Wait until commands can be run; return the guest's boot id.

        Raises:
            MachineError: The machine ended, stopped in its emergency mode or took too long.
        """
        if self._resume is not None:
            return self._go_on()
        self._await_kernel()
        assert self._agent is not None
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return self._agent.wait_ready(min(deadline, time.monotonic() + 2))
            except NoAnswerYetError as exc:
                stopped = EMERGENCY.search(self.console_text())
                if time.monotonic() < deadline and not stopped:
                    continue
                why = stopped[0] if stopped else exc
                raise MachineError(f"not ready: {why}\n{self._console_tail()}") from exc
            except AgentError as exc:
                raise MachineError(f"not ready: {exc}\n{self._console_tail()}") from exc

    def wait_running(self, timeout_s: float = BOOT_TIMEOUT_S) -> str:
        """Wait until systemd has finished booting; return the state it is in."""
        state = self.run("systemctl is-system-running --wait", timeout_s=timeout_s, check=False)
        return state.stdout.strip()

    def run(
        self,
        command: str,
        *,
        timeout_s: float = 120,
        check: bool = True,
        input_bytes: bytes = b"",
        on_output: OnOutput | None = None,
    ) -> Result:
        """Run a shell command as root and wait for its end.

        Raises:
            CommandError: It failed, and ``check`` is set.
            MachineError: The machine ended or stopped answering.
        """
        assert self._agent is not None
        began = time.monotonic()
        try:
            result = self._agent.run(
                command, input_bytes=input_bytes, timeout_s=timeout_s, on_output=on_output
            )
        except AgentError as exc:
            raise MachineError(f"{command!r}: {exc}\n{self._console_tail()}") from exc
        finally:
            since, took = began - self._started, time.monotonic() - began
            self._commands.append(f"{since:7.1f} {took:6.1f}  {command!r}\n")
        if check and result.rc != 0:
            raise CommandError(result, self._console_tail())
        return result

    def power_off(self, timeout_s: float = BOOT_TIMEOUT_S) -> None:
        """Shut down in an orderly way and wait for the end."""
        self._leave("systemctl poweroff", timeout_s)

    def reboot(self, timeout_s: float = BOOT_TIMEOUT_S) -> None:
        """Reboot in an orderly way, which ends this machine; start another to go on."""
        self._leave("systemctl reboot", timeout_s)

    def wait_end(self, timeout_s: float = BOOT_TIMEOUT_S) -> None:
        """Wait until the machine has ended by itself.

        Raises:
            MachineError: It runs on.
        """
        assert self._process is not None
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as exc:
            raise MachineError(f"still running\n{self._console_tail()}") from exc

    def console_text(self) -> str:
        """Everything the console showed so far, without control sequences."""
        raw = self._console.read_text(encoding="utf-8", errors="replace")
        return _ESCAPES.sub("", raw)

    def wait_console(
        self, pattern: str, timeout_s: float = BOOT_TIMEOUT_S, *, before_kernel: bool = False
    ) -> re.Match[str]:
        """Wait until the console shows a match of a regular expression.

        Args:
            pattern: The expression.
            timeout_s: How long to wait.
            before_kernel: Firmware or boot loader show it; no kernel has to start.

        Raises:
            MachineError: The machine ended or took too long.
        """
        if not before_kernel:
            self._await_kernel()
        assert self._process is not None
        expression = re.compile(pattern)
        deadline = time.monotonic() + timeout_s
        while True:
            ended = self._process.poll() is not None  # before reading: the last words count
            match = expression.search(self.console_text())
            if match:
                return match
            if ended or time.monotonic() >= deadline:
                how = "ended" if ended else "ran on"
                raise MachineError(
                    f"the machine {how} without showing {pattern!r}\n{self._console_tail()}"
                )
            time.sleep(0.1)

    def _leave(self, command: str, timeout_s: float) -> None:
        assert self._agent is not None
        try:
            self._agent.send(command, input_bytes=b"", timeout_s=timeout_s)
        except AgentError as exc:
            raise MachineError(f"{command}: {exc}\n{self._console_tail()}") from exc
        self.wait_end(timeout_s)

    def _console_tail(self) -> str:
        lines = [line for line in self.console_text().splitlines() if line.strip()]
        lines = lines[-_CONSOLE_TAIL_LINES:]
        errors = self._errors.read_text(errors="replace").strip()
        return "\n".join([*lines, errors] if errors else lines)


def show(stream: str, data: bytes) -> None:
    """Pass a command's output through to this process's own (an ``on_output``)."""
    target = sys.stdout if stream == "stdout" else sys.stderr
    target.buffer.write(data)
    target.buffer.flush()
