"""The Debian example on virtual hardware: the live machine and the installed one.

``examples/debian`` builds into ``build/demo``: ``oci`` (an OCI layout with the tags
``v1`` and ``v2``), and from the same tree ``live.img`` (an ext4 file system without
partitions), ``vmlinuz`` and ``initramfs.img``. ``$BOOTC_DEMO_IMAGE`` names another
directory it was built into.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from testbed import disks
from testbed.command import DirectBoot, Disk, Hardware
from testbed.qemu import BUILD

#: Sparse, so it only takes what is written.
TARGET_SIZE_BYTES = 8 << 30
#: What the live machine calls the blank disk.
TARGET_DEVICE = "/dev/vda"
#: And the disk it was started from.
LIVE_DEVICE = "/dev/vdb"
#: What is late there is not broken: the timer to the kernel, the disk to systemd.
_ON_A_BUSY_HOST = ("no_timer_check", "systemd.default_device_timeout_sec=300")


@dataclass(frozen=True, slots=True)
class DemoOs:
    """The files of a built example."""

    directory: Path = field(
        default_factory=lambda: Path(os.environ.get("BOOTC_DEMO_IMAGE", BUILD / "demo"))
    )

    @property
    def layout(self) -> Path:
        """The OCI layout."""
        return self.directory / "oci"

    @property
    def live_image(self) -> Path:
        """The disk of the live machine."""
        return self.directory / "live.img"

    def missing(self) -> list[Path]:
        """What still has to be built."""
        names = ("oci/index.json", "live.img", "vmlinuz", "initramfs.img")
        return [self.directory / name for name in names if not (self.directory / name).exists()]

    def layout_disk(self) -> Path:
        """A disk that holds the OCI layout, made again when the layout is newer."""
        disk = self.directory / "oci.img"
        index = self.layout / "index.json"
        if not disk.exists() or disk.stat().st_mtime_ns < index.stat().st_mtime_ns:
            unfinished = disks.from_directory(self.layout, self.directory / "oci.img.new")
            unfinished.rename(disk)
        return disk

    def live(
        self,
        target: Path,
        firmware_vars: Path,
        *more: Disk,
        own: Path | None = None,
        network: bool = False,
        bios: bool = False,
    ) -> Hardware:
        """Return the live machine, with a disk to install on.

        It starts from ``own``, a copy of ``live.img`` that keeps what the machine writes to it;
        without one, from ``live.img``, and forgets what it writes.
        """
        return Hardware(
            firmware_vars=firmware_vars,
            disks=[
                Disk(target, "target"),
                Disk(own or self.live_image, "live", snapshot=own is None),
                *more,
            ],
            direct=DirectBoot(
                self.directory / "vmlinuz",
                self.directory / "initramfs.img",
                " ".join([f"root={LIVE_DEVICE} rw console=ttyS0", *_ON_A_BUSY_HOST]),
            ),
            network=network,
            bios=bios,
        )


def installed(
    target: Path,
    firmware_vars: Path,
    *more: Disk,
    network: bool = False,
    bios: bool = False,
    secure_boot: bool = False,
    tpm: Path | None = None,
) -> Hardware:
    """The machine that boots what was installed."""
    return Hardware(
        firmware_vars=firmware_vars,
        disks=[Disk(target, "target"), *more],
        network=network,
        bios=bios,
        secure_boot=secure_boot,
        tpm=tpm,
    )
