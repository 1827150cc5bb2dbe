"""The three partitions of ukiboot."""

from __future__ import annotations

from dataclasses import dataclass

from bootc.formats.ukiboot import SIZE_BYTES, ControlBlock, Name
from bootc.fs import rawdevice


@dataclass(frozen=True, slots=True)
class Slots:
    """The partitions of ukiboot on the disk of a system, by the paths of their nodes.

    Attributes:
        a: Slot A.
        b: Slot B.
        control: The partition that begins with the control block.
        booted: The slot that the running system was started from; None if that is unknown.
    """

    a: str
    b: str
    control: str
    booted: Name | None = None

    def path(self, name: Name) -> str:
        """Return the path of a slot."""
        return self.a if name is Name.A else self.b

    def read_control(self) -> bytes:
        """Return the bytes of the control block.

        Raises:
            OSError: reading failed.
        """
        return rawdevice.read_start(self.control, SIZE_BYTES)

    def write_control(self, block: ControlBlock) -> None:
        """Replace the control block. It is on the disk when this returns.

        Raises:
            OSError: writing failed.
        """
        rawdevice.replace_start(self.control, block.to_bytes())
