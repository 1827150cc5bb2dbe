"""/home of a machine on its second drive, as the how-to says, and whether it is still there."""

from __future__ import annotations

from journeys import Journey

from support import howto

_WRITTEN = "/home/somebody/written"


def set_up(journey: Journey) -> None:
    """Follow the how-to on a machine where a user already has a file."""
    machine = journey.machine
    machine.run(f"mkdir -p {_WRITTEN.rpartition('/')[0]} && echo before >{_WRITTEN}")
    for command in howto.commands("second-drive"):
        said = machine.run(command, timeout_s=300).stdout
    # The last one shows the change.
    assert '"fstab"' in said
    check(journey, "before")
    machine.run(f"echo on the drive >{_WRITTEN}")


def check(journey: Journey, text: str = "on the drive") -> None:
    """Check that /home is on the drive, with what was written there."""
    machine = journey.machine
    assert machine.run("findmnt -no SOURCE /var/home").stdout.strip() == "/dev/vdb1"
    assert machine.run(f"cat {_WRITTEN}").stdout == f"{text}\n"
