"""The facts with which a command begins."""

from __future__ import annotations

from bootc.deploy.host.facts import Facts
from bootc.deploy.host.gather import gather
from bootc.deploy.host.session import HostAccess, opened_to_change
from bootc.deploy.journal import report_damage


def survey(system: HostAccess, *, dry_run: bool) -> Facts:
    """Gather facts, and report damaged deployments to the journal unless it is a dry run.

    Each command calls this once and passes the facts down.
    """
    facts = gather(system)
    if not dry_run:
        report_damage(facts, opened_to_change(system).journal)
    return facts
