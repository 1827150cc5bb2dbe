"""Which boots the initramfs reports, because no firmware checked what started them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootc.initramfs import secure_boot, setup_root
from bootc.initramfs.secure_boot import UNCHECKED, unchecked_uki
from bootc.initramfs.setup_root import Options
from bootc.kernel.efivars import GLOBAL_GUID, LOADER_GUID

HEX = "77" * 64
OFF, SETUP = UNCHECKED.format(state="off"), UNCHECKED.format(state="in setup mode")
STUB = "systemd-stub 257".encode("utf-16-le")


def firmware(path: Path, *, stub: bool, secure: int | None, setup: int | None) -> str:
    if stub:
        (path / f"StubInfo-{LOADER_GUID}").write_bytes(b"\6\0\0\0" + STUB)
    for name, value in (("SecureBoot", secure), ("SetupMode", setup)):
        if value is not None:
            (path / f"{name}-{GLOBAL_GUID}").write_bytes(b"\6\0\0\0" + bytes([value]))
    return str(path)


@pytest.mark.parametrize(
    ("stub", "secure", "setup", "report"),
    [
        (True, 1, 0, None),
        (True, 1, None, None),
        (True, 0, 0, OFF),
        (True, 0, 1, OFF),
        (True, None, None, OFF),
        (True, 1, 1, SETUP),
        (False, 0, 0, None),
        (False, None, None, None),
    ],
)
def test_what_is_reported(
    tmp_path: Path, stub: bool, secure: int | None, setup: int | None, report: str | None
) -> None:
    root = firmware(tmp_path, stub=stub, secure=secure, setup=setup)
    assert unchecked_uki(root=root) == report


def test_without_efi_variables_nothing_is_reported(tmp_path: Path) -> None:
    assert unchecked_uki(root=str(tmp_path / "none")) is None


@pytest.mark.parametrize(
    ("text", "target", "reported"),
    [
        (f"composefs={HEX}", None, True),
        (f"composefs=?{HEX}", None, False),
        # A soft reboot, which starts no UKI.
        (f"composefs={HEX}", "/run/nextroot", False),
    ],
)
def test_a_sealed_boot_is_reported_and_goes_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str,
    target: str | None,
    reported: bool,
) -> None:
    monkeypatch.setattr(setup_root, "unchecked_uki", lambda: OFF)
    monkeypatch.setattr(setup_root, "check_security_version", lambda *values: None)
    options = Options()
    options.config, options.cmdline, options.target = str(tmp_path / "none"), text, target
    options.sysroot = str(tmp_path)
    with pytest.raises(FileNotFoundError):  # It comes as far as the repository.
        setup_root.setup_root(options)
    assert capsys.readouterr().err == (f"bootc: warning: {OFF}\n" if reported else "")


def test_variables_that_cannot_be_read_stop_no_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / f"StubInfo-{LOADER_GUID}").mkdir()
    monkeypatch.setattr(
        setup_root, "unchecked_uki", lambda: secure_boot.unchecked_uki(root=str(tmp_path))
    )
    setup_root.report_unchecked_uki()
    said = capsys.readouterr().err
    assert said.startswith("bootc: warning: the state of Secure Boot cannot be read: ")
    assert said.endswith("Is a directory\n"), said
