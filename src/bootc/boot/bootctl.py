"""Installs systemd-boot with ``bootctl``, its own installer.

The ESP must be mounted inside the root of the image. ``bootctl`` takes the programs of the
loader from that root, and writes the ESP and the boot order of the firmware.
"""

from __future__ import annotations

from bootc.errors import doing
from bootc.fs import process

#: bootctl wants an ESP that udev knows as one, and a machine id. During an installation the
#: target has neither. In a chroot it would not write the boot order.
_ENVIRONMENT = {
    "SYSTEMD_RELAX_ESP_CHECKS": "1",
    "SYSTEMD_IGNORE_CHROOT": "1",
    "KERNEL_INSTALL_CONF_ROOT": "/tmp",
}
#: The first release that can omit the random seed.
_RANDOM_SEED_OPTION = 257
#: The first release that writes no variables with ``--root`` or in a container, unless asked.
_VARIABLES_OPTION = 258


def install(*, root: str, esp_path: str, generic: bool) -> None:
    """Install systemd-boot from ``root`` to the ESP mounted at ``esp_path`` below it.

    A ``generic`` target is an image for many machines. bootctl then writes neither the firmware
    of this machine nor a random seed, which all machines would share.

    Raises:
        ToolMissing: bootctl is not installed.
        CommandFailed: bootctl failed.
    """
    argv = ["bootctl", "install", "--root", root, "--esp-path", esp_path]
    with doing("Installing systemd-boot"):
        if generic:
            argv.append("--no-variables")
            if version() >= _RANDOM_SEED_OPTION:
                argv += ["--random-seed", "no"]
        elif version() >= _VARIABLES_OPTION:
            argv.append("--variables=yes")
        process.run(argv, env=_ENVIRONMENT)


def version() -> int:
    """Return the major version of bootctl, or 0 if its output does not say it.

    Raises:
        ToolMissing: bootctl is not installed.
    """
    words = process.run(["bootctl", "--version"]).stdout.split()
    digits = words[1].partition(b"~")[0].partition(b".")[0] if len(words) > 1 else b""
    return int(digits) if digits.isdigit() else 0
