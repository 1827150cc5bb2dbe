"""Refreshing the boot menu at each boot.

Firmwares lose boot entries and add their own. bootc compares them with the menu that it recorded.
ukiboot needs to be told that a slot has booted.
"""

from __future__ import annotations

from bootc.deploy.execute import run
from bootc.deploy.host.session import HostSession
from bootc.deploy.plan.steps import Plan, RefreshMenu
from bootc.events import Sink


def refresh_menu(system: HostSession, sink: Sink) -> None:
    """Bring what depends on the boot menu to its state.

    Raises:
        Error, OSError: the firmware or the boot partition cannot be read or written.
    """
    run(Plan(commit=RefreshMenu()), system, sink, dry_run=False)
