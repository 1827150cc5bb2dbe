"""What the firmware says of Secure Boot."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootc.boot.secure_boot import SecureBoot, read_secure_boot
from support.firmware import GLOBAL


@pytest.mark.parametrize(
    ("secure", "setup", "expected", "enforced"),
    [
        (1, 0, SecureBoot(True, False), True),
        (0, 0, SecureBoot(False, False), False),
        (0, 1, SecureBoot(False, True), False),
        # A firmware in setup mode enforces nothing, whatever it says.
        (1, 1, SecureBoot(True, True), False),
        (1, None, SecureBoot(True, None), False),
        (None, None, SecureBoot(), False),
    ],
)
def test_the_variables_of_the_firmware(
    tmp_path: Path, secure: int | None, setup: int | None, expected: SecureBoot, enforced: bool
) -> None:
    for name, value in (("SecureBoot", secure), ("SetupMode", setup)):
        if value is not None:
            (tmp_path / f"{name}-{GLOBAL}").write_bytes(b"\6\0\0\0" + bytes([value]))
    found = read_secure_boot(efivars_root=str(tmp_path))
    assert found == expected
    assert found.enforced is enforced
