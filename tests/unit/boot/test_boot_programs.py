"""Which programs start a deployment, and whether they have a signature."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootc.boot.boot_programs import read_programs
from bootc.boot.scheme import BootDirs, Scheme
from bootc.boot.secure_boot import BootPrograms, Program
from bootc.fs.dir import Dir
from support import pe
from support.bootdirs import GRUB_UKI, NONE_UKI, SYSTEMD, SYSTEMD_UKI

UNSIGNED = pe.signable(*pe.UKI_SECTIONS)
SIGNED = pe.signed(pe.program(*pe.UKI_SECTIONS))
UKI = "EFI/Linux/bootc/os.efi"


@pytest.mark.parametrize(
    ("scheme", "uki", "expected"),
    [
        (
            SYSTEMD_UKI,
            f"/{UKI}",
            BootPrograms(
                (Program("EFI/systemd/SYSTEMD-BOOTX64.EFI", True),),
                Program(UKI, True),
                (
                    Program(f"{UKI}.extra.d/a.addon.efi", False),
                    Program("loader/addons/b.addon.efi", None),
                ),
            ),
        ),
        (SYSTEMD, None, BootPrograms((Program("EFI/systemd/SYSTEMD-BOOTX64.EFI", True),))),
        (
            GRUB_UKI,
            "/EFI/none.efi",
            BootPrograms(
                (Program("EFI/debian/grubx64.efi", False), Program("EFI/debian/shimx64.efi", True)),
                Program("EFI/none.efi", None),
                (Program("loader/addons/b.addon.efi", None),),
            ),
        ),
        (NONE_UKI, None, BootPrograms()),
    ],
)
def test_the_programs_of_a_boot(
    tmp_path: Path, scheme: Scheme, uki: str | None, expected: BootPrograms
) -> None:
    files = {
        "EFI/systemd/SYSTEMD-BOOTX64.EFI": SIGNED,
        "EFI/debian/shimx64.efi": SIGNED,
        "EFI/debian/grubx64.efi": UNSIGNED,
        "EFI/debian/fwupdx64.efi": UNSIGNED,
        UKI: SIGNED,
        f"{UKI}.extra.d/a.addon.efi": UNSIGNED,
        f"{UKI}.extra.d/a.cred": b"",
        "loader/addons/b.addon.efi": b"no program",
    }
    for path, data in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    with Dir.open(tmp_path) as esp:
        assert read_programs(BootDirs(scheme, esp, esp), uki) == expected
