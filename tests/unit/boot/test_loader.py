from __future__ import annotations

from pathlib import Path

import pytest

from bootc.boot.loader import (
    Bootloader,
    LoaderTraces,
    identify,
    named_loader,
    read_traces,
)
from bootc.kernel.efivars import LOADER_GUID

UUID = "01234567-89AB-cdef-0123-456789abcdef"
OUR_UKI = r"\EFI\Linux\bootc/bootc_composefs-" + "ab" * 64 + ".efi"


@pytest.mark.parametrize(
    ("text", "bootloader"),
    [
        ("systemd-boot 257.8-1", Bootloader.SYSTEMD),
        ("SYSTEMD-BOOT", Bootloader.SYSTEMD),
        ("GRUB CC 2.12", Bootloader.GRUB_CC),
        ("GRUB 2.12", Bootloader.GRUB),
        ("rEFInd", None),
        ("", None),
    ],
)
def test_the_name_of_a_loader(text: str, bootloader: Bootloader | None) -> None:
    assert named_loader(f"{text}\0".encode("utf-16-le")) is bootloader


def test_odd_bytes_are_no_failure() -> None:
    assert named_loader("systemd-boot".encode("utf-16-le") + b"\0") is Bootloader.SYSTEMD
    assert named_loader(b"\xff\xd8\xff") is None
    assert named_loader(None) is None


def firmware(path: Path, **variables: str) -> str:
    for name, text in variables.items():
        data = b"\x06\0\0\0" + f"{text}\0".encode("utf-16-le")
        (path / f"{name}-{LOADER_GUID}").write_bytes(data)
    return str(path)


@pytest.mark.parametrize(
    ("variables", "traces"),
    [
        ({}, LoaderTraces()),
        (
            {
                "LoaderInfo": "systemd-boot 257.13-1",
                "LoaderDevicePartUUID": UUID,
                "LoaderImageIdentifier": r"\EFI\systemd\systemd-bootx64.efi",
            },
            LoaderTraces(Bootloader.SYSTEMD, None, UUID.lower()),
        ),
        (
            {"LoaderInfo": "systemd-boot 257.13-1", "StubInfo": "systemd-stub 257"},
            LoaderTraces(Bootloader.SYSTEMD),
        ),
        (
            {"LoaderInfo": "GRUB 2.14-4", "LoaderDevicePartUUID": UUID},
            LoaderTraces(Bootloader.GRUB, None, UUID.lower()),
        ),
        (
            {
                "LoaderInfo": "GRUB 2.14-4",
                "StubInfo": "systemd-stub 257.13",
                "LoaderDevicePartUUID": UUID,
                "LoaderImageIdentifier": OUR_UKI,
            },
            LoaderTraces(Bootloader.GRUB, None, UUID.lower()),
        ),
        (
            {
                "StubInfo": "systemd-stub 257.13",
                "LoaderDevicePartUUID": UUID,
                "LoaderImageIdentifier": OUR_UKI,
            },
            LoaderTraces(None, OUR_UKI.replace("\\", "/"), UUID.lower()),
        ),
        ({"StubInfo": "systemd-stub 257.13"}, LoaderTraces(None, "")),
        ({"LoaderImageIdentifier": OUR_UKI}, LoaderTraces()),
        ({"LoaderInfo": "rEFInd", "StubInfo": "systemd-stub 257"}, LoaderTraces()),
        ({"LoaderDevicePartUUID": "../../x"}, LoaderTraces()),
    ],
)
def test_what_each_loader_leaves(
    tmp_path: Path, variables: dict[str, str], traces: LoaderTraces
) -> None:
    assert read_traces(efivars_root=firmware(tmp_path, **variables)) == traces


@pytest.mark.parametrize(
    ("traces", "recorded", "our_uki", "bootloader"),
    [
        # No record and no variable: as upstream.
        (LoaderTraces(), None, False, Bootloader.GRUB),
        (LoaderTraces(), "systemd", False, Bootloader.SYSTEMD),
        (LoaderTraces(), "grub", False, Bootloader.GRUB),
        (LoaderTraces(), "lilo", False, Bootloader.GRUB),
        # The loader that started the machine tells where it looks for its menu.
        (LoaderTraces(Bootloader.SYSTEMD), "grub", False, Bootloader.SYSTEMD),
        (LoaderTraces(Bootloader.GRUB), "systemd", False, Bootloader.GRUB),
        # The firmware started a UKI whose machine has a loader.
        (LoaderTraces(None, "/EFI/Linux/bootc/x.efi"), "systemd", True, Bootloader.SYSTEMD),
        (LoaderTraces(None, "/EFI/Linux/bootc/x.efi"), None, True, Bootloader.NONE),
        (LoaderTraces(None, "/EFI/Linux/bootc/x.efi"), None, False, Bootloader.GRUB),
        (LoaderTraces(None, "EFI/BOOT/ukiboot_a.efi"), None, False, Bootloader.UKIBOOT),
        (LoaderTraces(None, "/EFI/fedora/UKIBOOT_B.EFI"), None, False, Bootloader.UKIBOOT),
        (LoaderTraces(None, "ukiboot_a.efi"), None, False, Bootloader.UKIBOOT),
        (LoaderTraces(None, "/xukiboot_a.efi"), None, False, Bootloader.GRUB),
        (LoaderTraces(None, "EFI/BOOT/ukiboot_a.efi"), "ukiboot", False, Bootloader.UKIBOOT),
        (LoaderTraces(None, ""), None, False, Bootloader.GRUB),
    ],
)
def test_which_loader_a_machine_has(
    traces: LoaderTraces, recorded: str | None, our_uki: bool, bootloader: Bootloader
) -> None:
    assert identify(traces, recorded=recorded, our_uki=our_uki) is bootloader
