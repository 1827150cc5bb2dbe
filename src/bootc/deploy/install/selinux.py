"""The state of SELinux in an installation, in upstream's words."""

from __future__ import annotations

import enum
import os

from bootc.formats.tree import Directory, Leaf

#: The argument that turns SELinux off.
SELINUX_OFF = "selinux=0"
_CONFIG = "etc/selinux/config"
_HOST = "/sys/fs/selinux/enforce"


class SelinuxState(enum.StrEnum):
    """Whether the installed machine has SELinux, and whether the installing one has."""

    FORCE_TARGET_DISABLED = "force-target-disabled"
    ENABLED = "enabled"
    HOST_DISABLED = "host-disabled"
    DISABLED = "disabled"


def selinux_state(root: Directory, *, disable: bool) -> SelinuxState:
    """Return the state for an image.

    Args:
        root: The tree of the image.
        disable: The user wants no SELinux on the installed machine.
    """
    if not isinstance(root.lookup(_CONFIG), Leaf):
        return SelinuxState.DISABLED
    if disable:
        return SelinuxState.FORCE_TARGET_DISABLED
    return SelinuxState.ENABLED if os.path.exists(_HOST) else SelinuxState.HOST_DISABLED
