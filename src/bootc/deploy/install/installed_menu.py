"""The boot menu that an installation left, to tell whether the machine boots it."""

from __future__ import annotations

from bootc.boot.menu import read_menu
from bootc.boot.scheme import BootDirs
from bootc.deploy.host.statedir import list_states
from bootc.fs.dir import Dir


def boots(boot: BootDirs, root: Dir) -> bool:
    """Tell whether the live menu has an entry for a deployment of a root file system.

    Raises:
        OSError: the deployments cannot be read.
    """
    try:
        deployments = {state.deployment for state in list_states(root)}
    except FileNotFoundError:
        return False
    items = read_menu(boot, staged=False).items
    return any(not deployments.isdisjoint((item.deployment, *item.also)) for item in items)
