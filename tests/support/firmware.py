"""A firmware with variables in a directory, and what it starts.

This is a model of its own: it takes load options apart by the UEFI specification and shares no
code with bootc.
"""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Sequence
from pathlib import Path

from bootc.boot.firmware_entries import Firmware, PartitionPlace
from bootc.boot.loader import Bootloader
from bootc.boot.scheme import Scheme

GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
ESP = uuid.UUID("01234567-89ab-cdef-0123-456789abcdef")
PLACE = PartitionPlace(1, 2048, 2097152, ESP)
FALLBACK = "EFI/BOOT/BOOTX64.EFI"


class ModelFirmware(Firmware):
    """A firmware whose variables are plain files."""

    def write_order(self, numbers: Sequence[int]) -> None:
        """Replace the variable as efivarfs does: a shorter content leaves nothing of the longer."""
        path = Path(self.root, f"BootOrder-{GLOBAL}")
        if path.exists():
            os.truncate(path, min(path.stat().st_size, 4 + 2 * len(numbers)))
        super().write_order(numbers)


def firmware_of(path: Path, scheme: Scheme) -> Firmware | None:
    """Return the firmware of a machine below ``path`` if it is the boot menu, else None."""
    if scheme.bootloader is not Bootloader.NONE:
        return None
    variables = path / "efivars"
    if not variables.exists():
        variables.mkdir()
        # No firmware is without variables.
        put(variables, "Lang", b"eng")
    return ModelFirmware(PLACE, root=str(variables))


def put(variables: Path, name: str, payload: bytes) -> None:
    """Set a variable."""
    (variables / f"{name}-{GLOBAL}").write_bytes(b"\x07\0\0\0" + payload)


def get(variables: Path, name: str) -> bytes | None:
    """Return the content of a variable, or None if there is none."""
    path = variables / f"{name}-{GLOBAL}"
    return path.read_bytes()[4:] if path.exists() and path.stat().st_size > 4 else None


def order(variables: Path) -> list[int]:
    """Return the numbers of ``BootOrder``."""
    data = get(variables, "BootOrder") or b""
    return list(struct.unpack(f"<{len(data) // 2}H", data))


def put_order(variables: Path, *numbers: int) -> None:
    """Set ``BootOrder``."""
    put(variables, "BootOrder", struct.pack(f"<{len(numbers)}H", *numbers))


def erase(variables: Path) -> None:
    """Forget all boot entries, as after a reset."""
    for path in variables.glob("Boot*"):
        path.unlink()


def program_of(option: bytes) -> tuple[str, str]:
    """Return the description of an active entry, and its program on the ESP or an empty text."""
    attributes, size = struct.unpack_from("<IH", option)
    text = option[6:].decode("utf-16-le", "ignore")
    title = text.partition("\0")[0]
    path = option[6 + 2 * len(title) + 2 :][:size]
    program, here = "", False
    while path[:1] != b"\x7f":
        length = struct.unpack_from("<H", path, 2)[0]
        if path[:2] == b"\x04\x01":
            here = path[24:40] == ESP.bytes_le
        if path[:2] == b"\x04\x04":
            program = path[4:length].decode("utf-16-le").rstrip("\0").replace("\\", "/").strip("/")
        path = path[length:]
    return title, program if here and attributes & 1 else ""


def started(variables: Path, esp: Path) -> list[tuple[str, Path]]:
    """Return what the firmware tries, in its order: descriptions and programs that exist."""
    options = [(number, get(variables, f"Boot{number:04X}")) for number in order(variables)]
    named = [program_of(option) for _, option in options if option is not None]
    found = [(title, esp / program) for title, program in named if program]
    found = [(title, path) for title, path in found if path.exists()]
    if (esp / FALLBACK).exists():
        found.append(("fallback", esp / FALLBACK))
    return found
