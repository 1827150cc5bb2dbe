"""What a machine is told from outside, as systemd credentials in SMBIOS strings.

PID 1 reads strings of SMBIOS type 11 that begin with ``io.systemd.credential``
(systemd.system-credentials(7)), and systemd-debug-generator(8), from version 256
on, makes units of those named ``systemd.extra-unit.*`` and drop-ins of those named
``systemd.unit-dropin.*``. So an image needs nothing of ours to be driven.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

AGENT = Path(__file__).with_name("guest_agent.py")
_UNIT = """\
[Unit]
Description=Command agent of the test bed
After=systemd-networkd-wait-online.service

[Service]
LoadCredential=bootc.agent
ExecStart=/usr/bin/python3 -SI %d/bootc.agent
"""
_WANTS = """\
[Unit]
Wants=bootc-agent.service
"""
_NETWORK = """\
[Match]
Type=ether
Kind=!*

[Network]
Address=10.0.2.15/24
Gateway=10.0.2.2
LinkLocalAddressing=no
"""
_NETWORK_WANTS = """\
[Unit]
Wants=systemd-network-generator.service systemd-networkd.service
Wants=systemd-networkd-wait-online.service
"""


def agent_credentials() -> dict[str, bytes]:
    """Credentials that start the command agent with multi-user.target."""
    return {
        "bootc.agent": AGENT.read_bytes(),
        "systemd.extra-unit.bootc-agent.service": _UNIT.encode(),
        "systemd.unit-dropin.multi-user.target": _WANTS.encode(),
    }


def network_credentials() -> dict[str, bytes]:
    """Credentials that give the first Ethernet device its address on QEMU's user network."""
    return {
        "network.network.50-testbed": _NETWORK.encode(),
        "systemd.unit-dropin.multi-user.target~network": _NETWORK_WANTS.encode(),
    }


def root_shell_credentials() -> dict[str, bytes]:
    """Credentials that give whoever holds the console a root shell, no password asked."""
    return {"agetty.autologin": b"root", "login.noauth": b"yes"}


def smbios_options(credentials: Mapping[str, bytes]) -> Sequence[str]:
    """Return QEMU options that hand over credentials."""
    options: list[str] = []
    for name, content in credentials.items():
        value = f"io.systemd.credential.binary:{name}={base64.b64encode(content).decode()}"
        options += ["-smbios", "type=11,value=" + value.replace(",", ",,")]
    return options
