"""Makes the firmware of this machine start the boot loader of a new disk."""

from __future__ import annotations

import logging
import os
import re
import uuid

from bootc.boot.firmware_entries import ProgramPlace, ensure_entry
from bootc.deploy.install.partition import Partition
from bootc.errors import Error, one_line
from bootc.kernel.efivars import EFIVARS

_log = logging.getLogger(__name__)


def ensure_started(
    partition: Partition, program: str, title: str, *, behind: Partition | None = None
) -> bool:
    """Make sure that the firmware has a boot entry, and tell whether it had none.

    Without an entry the firmware starts ``EFI/BOOT`` of the disk, unless another entry comes
    first. Therefore a firmware that refuses the entry is a warning.

    Args:
        partition: The EFI system partition.
        program: The path of the EFI program on it.
        title: The name of a new entry.
        behind: The ESP whose entries come before a new one. Without it a new entry comes first.
    """
    number = re.search(r"[0-9]+\Z", partition.node)
    if number is None or not partition.uuid or not os.path.isdir(EFIVARS):
        return False
    place = ProgramPlace(
        int(number[0]),
        partition.first_sector,
        partition.sectors,
        uuid.UUID(partition.uuid),
        program,
    )
    try:
        before = None if behind is None or not behind.uuid else uuid.UUID(behind.uuid)
        return ensure_entry(place, title, behind=before)
    except (Error, OSError) as exc:
        _log.warning(
            "the firmware has no boot entry for the new disk, and starts its EFI/BOOT: %s",
            one_line(exc),
        )
        return False
