"""What the systemd generator of bootc makes: units and links for this boot.

Only a system that was booted from an image gets any. The directory is in ``/run``, so nothing has
to be durable or removed.

- ``bootc-sysusers-shadow-sync.service``, if there is a ``/etc/shadow``.
- ``bootc-early-overlay-relabel.service``, if ``/``, ``/etc`` or ``/var`` is a writable overlay.
- ``bootc-refresh-boot-menu.service``. Its conditions restrict it to machines without boot loader,
  and those with ukiboot.
- ``bootc-security-counter.service``. Its conditions restrict it to machines with a TPM and Secure
  Boot whose image states a minimum security version.
- ``bootc-destructive-cleanup.service``, if the installer left its mark.
- ``bootc-status-updated.path`` and ``bootc-status-updated-onboot.target``.

Source: bootc, "systemd units"; systemd.generator(7).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from bootc.deploy.host.boot_state import booted_image
from bootc.deploy.host.overlays import writable_overlays
from bootc.deploy.old_root import MARK
from bootc.errors import doing
from bootc.fs import atomic
from bootc.fs.dir import Dir
from bootc.fs.mounts import Mount

SHADOW_SYNC = "bootc-sysusers-shadow-sync.service"
RELABEL = "bootc-early-overlay-relabel.service"
REFRESH_MENU = "bootc-refresh-boot-menu.service"
SECURITY_COUNTER = "bootc-security-counter.service"
REMOVE_OLD_ROOT = "bootc-destructive-cleanup.service"
STATUS_UPDATED = ("bootc-status-updated.path", "bootc-status-updated-onboot.target")
_UNITS = "/usr/lib/systemd/system"
_RELABEL_UNIT = """\
# Made by bootc-systemd-generator
[Unit]
Description=Label the Writable Overlays of the Booted Image
Documentation=man:bootc-internals(8)
DefaultDependencies=no
ConditionSecurity=selinux
After=local-fs.target
Before=sysinit.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/bootc internals relabel-overlay-mountpoints
"""


def generate(directory: str, mounts: Sequence[Mount], *, root: str = "/") -> None:
    """Write the units and links of this boot.

    Args:
        directory: The directory of the generator for units of normal priority.
        mounts: The mounts of the system.
        root: The root directory of the system.

    Raises:
        OSError: the directory cannot be written.
    """
    if booted_image(mounts) is None:
        return
    with doing(f"Generating units in {directory}"), Dir.open(directory) as units:
        if os.path.exists(os.path.join(root, "etc/shadow")):
            _link(units, "sysinit.target", SHADOW_SYNC, f"{_UNITS}/{SHADOW_SYNC}")
        if writable_overlays(mounts):
            atomic.write_file(units, RELABEL, _RELABEL_UNIT.encode(), durable=False)
            _link(units, "sysinit.target", RELABEL, f"../{RELABEL}")
        if os.path.lexists(os.path.join(root, "sysroot", MARK)):
            _link(units, "multi-user.target", REMOVE_OLD_ROOT, f"{_UNITS}/{REMOVE_OLD_ROOT}")
        for unit in (REFRESH_MENU, SECURITY_COUNTER, *STATUS_UPDATED):
            _link(units, "multi-user.target", unit, f"{_UNITS}/{unit}")


def _link(units: Dir, target: str, unit: str, path: str) -> None:
    with units.ensure_dir(f"{target}.wants") as wants:
        atomic.replace_symlink(wants, unit, path)
