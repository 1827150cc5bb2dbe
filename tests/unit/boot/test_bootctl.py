from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bootc.boot import bootctl
from bootc.fs.process import CommandFailed, ToolMissing

Fake = Callable[..., Path]


@pytest.fixture
def fake_bootctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Put a bootctl on PATH that logs its arguments and environment."""

    def make(version: str, *, fails: bool = False) -> Path:
        log = tmp_path / "log"
        tool = tmp_path / "bin" / "bootctl"
        tool.parent.mkdir()
        tool.write_text(
            "#!/bin/sh\n"
            f'if [ "$1" = --version ]; then echo "{version}"; exit; fi\n'
            'echo "$@" "$SYSTEMD_RELAX_ESP_CHECKS" "$KERNEL_INSTALL_CONF_ROOT" '
            f'"$SYSTEMD_IGNORE_CHROOT" >> {log}\n'
            + ("echo 'Not an ESP' >&2; exit 1\n" if fails else "")
        )
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
        return log

    return make


@pytest.mark.parametrize(
    ("version", "generic", "arguments"),
    [
        ("systemd 257 (257.8-1~deb13u1)", False, ""),
        ("systemd 257 (257.8-1~deb13u1)", True, " --no-variables --random-seed no"),
        ("systemd 258~rc1", True, " --no-variables --random-seed no"),
        ("systemd 258~rc1", False, " --variables=yes"),
        ("systemd 262 (262.1-1)", False, " --variables=yes"),
        ("systemd 256.7 (256.7-1)", True, " --no-variables"),
        ("strange", True, " --no-variables"),
    ],
)
def test_install(fake_bootctl: Fake, version: str, generic: bool, arguments: str) -> None:
    log = fake_bootctl(version)
    bootctl.install(root="/mnt", esp_path="/boot", generic=generic)
    assert log.read_text() == f"install --root /mnt --esp-path /boot{arguments} 1 /tmp 1\n"


def test_a_refusal_is_reported(fake_bootctl: Fake) -> None:
    fake_bootctl("systemd 257", fails=True)
    with pytest.raises(CommandFailed, match="Not an ESP") as caught:
        bootctl.install(root="/mnt", esp_path="/boot", generic=False)
    assert caught.value.__notes__ == ["Installing systemd-boot"]


def test_a_missing_tool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("bootc.fs.process._SYSTEM_PATH", ())
    with pytest.raises(ToolMissing, match="bootctl is not installed"):
        bootctl.install(root="/mnt", esp_path="/boot", generic=False)
