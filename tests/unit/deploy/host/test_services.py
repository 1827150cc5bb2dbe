from __future__ import annotations

import pytest

from bootc.deploy.host.services import reboot
from bootc.fs.process import CommandFailed, ToolMissing
from support.commands import Commands


@pytest.fixture
def commands(tmp_path, monkeypatch) -> Commands:
    return Commands(tmp_path / "bin", monkeypatch)


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("pause", [interrupt, lambda: None])
def test_the_service_manager_is_asked_and_waited_for(commands: Commands, pause) -> None:
    program = commands.mock("systemd-run")
    reboot(pause=pause)
    assert program.calls == [
        ["--quiet", "--", "systemctl", "reboot", "--message=Initiated by bootc"]
    ]


def test_a_refusal_is_not_waited_for(commands: Commands) -> None:
    commands.mock("systemd-run", "echo 'Access denied' >&2; exit 1")
    with pytest.raises(CommandFailed, match="Access denied"):
        reboot(pause=lambda: pytest.fail("waited"))


def test_no_service_manager(commands: Commands) -> None:
    commands.hide_system()
    with pytest.raises(ToolMissing, match="systemd-run is not installed"):
        reboot(pause=lambda: pytest.fail("waited"))
