"""Discoverable Partitions: the GPT type identifiers this project reads and writes.

Lower-case, as ``lsblk`` and ``sfdisk`` print them (UAPI Discoverable Partitions
Specification).
"""

from __future__ import annotations

from bootc.errors import Error

#: BIOS boot partition: the second part of GRUB, which is not in a file system.
BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"
#: EFI system partition.
ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
#: Extended boot loader partition: a ``/boot`` of its own.
XBOOTLDR = "bc13c2ff-59e6-4262-a352-b275fd6f7172"

_ROOT = {
    "aarch64": "b921b045-1df0-41c3-af44-4c6f280d3fae",
    "ppc64le": "c31c45e6-3f39-412e-80fb-4809c4980599",
    "riscv64": "72ec70a6-cf74-40e6-bd49-4bda08e8f224",
    "s390x": "5eead9a9-fe09-4a1e-a1d7-520d00531306",
    "x86_64": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
}


class UnsupportedArchitecture(Error):
    """No root partition type is known for this machine."""


def root_type(machine: str) -> str:
    """Return the type of a root partition for ``machine``, a name as ``uname -m`` prints it.

    Raises:
        UnsupportedArchitecture: the type for this machine is unknown.
    """
    try:
        return _ROOT[machine]
    except KeyError:
        raise UnsupportedArchitecture(f"unsupported architecture {machine!r}") from None
