"""Password entries without an account, in the files of a made-up system."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from bootc.deploy.host import accounts
from bootc.deploy.host.accounts import (
    AccountsBusy,
    LinkedAccounts,
    NoAccounts,
    remove_orphans,
)
from bootc.events import Event, Message
from bootc.fs.dir import Dir
from support.children import exit_status_of_fork

PASSWD = "root:x:0:0::/root:/bin/sh\n"
GROUP = "root:x:0:\nstaff:x:50:\n"
FILES = {
    "etc/passwd": PASSWD,
    "etc/group": GROUP,
    "usr/lib/passwd": "altfiles:x:7:7::/:/bin/false\n",
    "etc/shadow": "root:*:::::::\ngone:!:::::::\naltfiles:!:::::::\nroot:again:::::::\n",
    "etc/gshadow": "root:*::\nstaff:!::\nusers:!::\n",
}


def make(root: Path, files: Mapping[str, str] = FILES) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def clean(root: Path) -> list[str]:
    """Return the messages of a run."""
    events: list[Event] = []
    remove_orphans(events.append, root=str(root))
    return [event.text for event in events if isinstance(event, Message)]


def test_orphans_and_repetitions_go(tmp_path: Path) -> None:
    make(tmp_path)
    shadow = tmp_path / "etc/shadow"
    shadow.chmod(0o640)
    assert clean(tmp_path) == ["/etc/shadow: removed gone, root", "/etc/gshadow: removed users"]
    assert shadow.read_text() == "root:*:::::::\naltfiles:!:::::::\n"
    assert stat.S_IMODE(shadow.stat().st_mode) == 0o640
    assert (tmp_path / "etc/gshadow").read_text() == "root:*::\nstaff:!::\n"
    inode = shadow.stat().st_ino
    assert clean(tmp_path) == []
    assert shadow.stat().st_ino == inode
    assert set(os.listdir(tmp_path / "etc")) == {
        *("passwd", "group", "shadow", "gshadow", ".pwd.lock")
    }


def test_without_the_files(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    assert clean(tmp_path) == []


@pytest.mark.parametrize("passwd", ["", "# root:x:0\n", "+::::::\n"])
def test_a_system_without_accounts_keeps_its_passwords(tmp_path: Path, passwd: str) -> None:
    make(tmp_path, {**FILES, "etc/passwd": passwd, "usr/lib/passwd": ""})
    with pytest.raises(NoAccounts):
        clean(tmp_path)
    assert (tmp_path / "etc/shadow").read_text() == FILES["etc/shadow"]


def test_many_names_make_no_long_message(tmp_path: Path) -> None:
    entries = "".join(f"u{number}\x1b:!:\n" for number in range(12))
    make(tmp_path, {"etc/passwd": PASSWD, "etc/shadow": entries})
    (message,) = clean(tmp_path)
    assert message.startswith(r"/etc/shadow: removed u0\x1b, u1\x1b, ")
    assert message.endswith(r"u9\x1b and 2 more")


@pytest.mark.parametrize("target", ["../elsewhere", "nowhere"])
@pytest.mark.parametrize("name", ["passwd", "shadow", "group", "gshadow"])
def test_a_link_is_not_replaced(tmp_path: Path, name: str, target: str) -> None:
    make(tmp_path)
    (tmp_path / "etc" / name).rename(tmp_path / "elsewhere")
    (tmp_path / "etc" / name).symlink_to(target)
    with pytest.raises(LinkedAccounts) as caught:
        clean(tmp_path)
    assert caught.value.message == f"{tmp_path}/etc/{name} is a symbolic link"
    assert (tmp_path / "elsewhere").read_text() == FILES[f"etc/{name}"]
    # Both pairs are checked before the first file changes.
    for other in {"shadow", "gshadow"} - {name}:
        assert (tmp_path / "etc" / other).read_text() == FILES[f"etc/{other}"]


def test_etc_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path)
    opened = Dir.open_file

    def open_file(self: Dir, name: str, flags: int = os.O_RDONLY, mode: int = 0o644) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), f"{self.path}/{name}")
        return opened(self, name, flags, mode)

    monkeypatch.setattr(Dir, "open_file", open_file)
    with pytest.raises(OSError, match="Read-only file system"):
        clean(tmp_path)
    make(tmp_path, {"etc/shadow": "root:*:::::::\n", "etc/gshadow": "root:*::\n"})
    assert clean(tmp_path) == []


def test_another_program_changes_accounts(tmp_path: Path, monkeypatch) -> None:
    make(tmp_path)
    monkeypatch.setattr(accounts, "_LOCK_PATIENCE_S", 0.2)

    def refused() -> None:
        with pytest.raises(AccountsBusy, match=r"\.pwd\.lock"):
            clean(tmp_path)

    with (tmp_path / "etc/.pwd.lock").open("wb") as lock:
        # A lock of lockf(3) belongs to a process.
        fcntl.lockf(lock, fcntl.LOCK_EX)
        assert exit_status_of_fork(refused) == 0
        assert (tmp_path / "etc/shadow").read_text() == FILES["etc/shadow"]
    assert len(clean(tmp_path)) == 2
