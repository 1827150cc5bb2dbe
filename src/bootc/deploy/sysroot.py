"""The disks of an installed system, opened once and passed down.

Owns the handles: the physical root, its repository and the ESP. Promises:
reading a system changes nothing on it. The ESP is mounted read-only and at no
place that others could see, the repository is opened for reading, and both are
let go of at the end of the block.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass

from bootc.boot import partitions
from bootc.boot.partitions import NoBackingDevice
from bootc.errors import Error, doing, one_line
from bootc.fs.dir import Dir
from bootc.repository.repository import Repository

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sysroot:
    """An open system.

    Without an ESP that can be read ``esp`` is None; a system must be able to show
    what it runs even then. ``read_only`` says that its disk refuses writes.
    """

    physical: Dir
    repository: Repository
    esp: Dir | None
    read_only: bool = False


@contextlib.contextmanager
def open_sysroot(*, root: str = "/") -> Iterator[Sysroot]:
    """Open the system mounted at ``root`` for reading.

    Raises:
        NotARepository: the physical root holds no repository.
        Error: the repository cannot be honoured.
        OSError: there is no physical root, or it cannot be read.
    """
    with contextlib.ExitStack() as stack:
        with doing("Opening the physical root"):
            physical = stack.enter_context(Dir.open(os.path.join(root, "sysroot")))
        # What the disk demands is honoured; a system that tolerates missing fs-verity,
        # or was installed by those who do not ask for it, must still show what it runs.
        repository = stack.enter_context(Repository.open(physical, require_verity=False))
        try:
            device = partitions.backing_device(physical)
        except NoBackingDevice as exc:
            _log.warning("boot entries are unknown: %s", one_line(exc))
            yield Sysroot(physical, repository, None)
            return
        yield Sysroot(physical, repository, _enter_esp(stack, device), _refuses_writes(device))


def _enter_esp(stack: contextlib.ExitStack, device: str) -> Dir | None:
    try:
        esp = partitions.find_esp(device)
        if esp is not None:
            return stack.enter_context(partitions.open_esp(esp))
        reason = f"no EFI system partition belongs to {device}"
    except (Error, OSError) as exc:
        reason = one_line(exc)
    _log.warning("boot entries are unknown: %s", reason)
    return None


def _refuses_writes(device: str) -> bool:
    # Not statvfs: the physical root of a booted image is mounted read-only on any disk.
    with doing(f"Inspecting {device}"):
        return partitions.is_read_only(device)
