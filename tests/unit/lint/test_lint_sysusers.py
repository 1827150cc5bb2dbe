from __future__ import annotations

from pathlib import Path

import pytest

from bootc.lint.sysusers import sysusers
from support.roots import Root, base

PASSWD = "Found /etc/passwd entry without corresponding systemd sysusers.d:\n"
GROUP = "Found /etc/group entry without corresponding systemd sysusers.d:\n"


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return base(tmp_path / "root")


def test_without_accounts(root: Root) -> None:
    root.file("etc/group", "wheel:x:10:\n")
    assert root.found(sysusers) is None


def test_root_is_no_exception(root: Root) -> None:
    root.file("etc/passwd", "root:x:0:0::/root:/bin/sh\nzabbix:x:9:9::/:\n_apt:x:42:9::/:\n")
    assert root.found(sysusers) == f"{PASSWD}  _apt\n  root\n  zabbix\n"
    root.file("etc/group", "root:x:0:\nwheel:x:10:\n")
    assert root.found(sysusers) == (f"{PASSWD}  _apt\n  root\n  zabbix\n{GROUP}  root\n  wheel\n")


def test_what_sysusers_knows(root: Root) -> None:
    root.file("etc/passwd", "root:x:0:0::/root:/bin/sh\n_x:x:7:7::/:\n")
    root.file("etc/group", "root:x:0:\n_x:x:7:\nwheel:x:10:\n")
    root.file("usr/lib/sysusers.d/a.conf", 'u root 0 - /root\nu! "_x" -\ng wheel 10\n')
    assert root.found(sysusers) is None
    root.file("usr/lib/sysusers.d/a.conf", "g root\ng _x\nm wheel root\nr - 100-200\n")
    root.file("usr/lib/sysusers.d/README", "u root\n")
    assert root.found(sysusers) == f"{PASSWD}  _x\n  root\n{GROUP}  wheel\n"


def test_a_group_alone(root: Root) -> None:
    root.file("etc/passwd").file("etc/group", "g:x:1:\n")
    assert root.found(sysusers) == f"{GROUP}  g\n"
