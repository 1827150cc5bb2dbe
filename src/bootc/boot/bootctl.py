"""Installing systemd-boot with ``bootctl``, the tool that belongs to it.

The ESP has to be mounted inside the image's root; ``bootctl`` takes the loader's
binaries from that root, and writes the ESP and the firmware's boot order.
"""

from __future__ import annotations

from bootc.errors import doing
from bootc.fs import process

#: bootctl insists on an ESP that looks like one to udev and on a machine id; a target
#: that is being installed has neither.
_ENVIRONMENT = {"SYSTEMD_RELAX_ESP_CHECKS": "1", "KERNEL_INSTALL_CONF_ROOT": "/tmp"}
#: The first release that can leave out the random seed.
_RANDOM_SEED_OPTION = 257


def install(*, root: str, esp_path: str, generic: bool) -> None:
    """Install systemd-boot from ``root`` to the ESP mounted at ``esp_path`` below it.

    A ``generic`` target is an image for many machines: neither the firmware of
    this one nor a random seed that all would share is written.

    Raises:
        ToolMissing: there is no bootctl.
        CommandFailed: bootctl refused.
    """
    argv = ["bootctl", "install", "--root", root, "--esp-path", esp_path]
    with doing("Installing systemd-boot"):
        if generic:
            argv.append("--no-variables")
            if version() >= _RANDOM_SEED_OPTION:
                argv += ["--random-seed", "no"]
        process.run(argv, env=_ENVIRONMENT)


def version() -> int:
    """Return bootctl's major version, or 0 where its output does not tell.

    Raises:
        ToolMissing: there is no bootctl.
    """
    words = process.run(["bootctl", "--version"]).stdout.split()
    digits = words[1].partition(b"~")[0].partition(b".")[0] if len(words) > 1 else b""
    return int(digits) if digits.isdigit() else 0
