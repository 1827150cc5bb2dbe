"""Password entries without an account, removed from the running system.

The merge of ``/etc`` can leave a user in ``/etc/shadow`` whom the new image no longer has.
**systemd-sysusers** refuses to create a user with an entry there, so the entry has to go first.

Each file is replaced atomically, with its owner, mode and extended attributes. A file without such
entries is not touched.

Source: bootc, "systemd units", sysusers-sync.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import stat
import time
from collections.abc import Iterator

from bootc.errors import Error, doing
from bootc.events import Message, Sink
from bootc.formats.shadow import account_names, without_orphans
from bootc.fs import atomic
from bootc.fs.dir import Dir
from bootc.printable import printable

_PAIRS = (("passwd", "shadow"), ("group", "gshadow"))
#: Accounts of the image itself, for nss-altfiles.
_IMAGE_DIRECTORY = "usr/lib"
#: The lock of lckpwdf(3), and how long that function waits for it.
_LOCK = ".pwd.lock"
_LOCK_PATIENCE_S = 15.0
_LOCK_POLL_S = 0.1
_MAX_BYTES = 1 << 26
#: A message names this many removed entries.
_SHOWN = 10


class AccountsBusy(Error):
    """Another program changes the accounts."""


class LinkedAccounts(Error):
    """A file of accounts is a symbolic link."""


class NoAccounts(Error):
    """There is no account at all, so every entry would be removed."""


def remove_orphans(sink: Sink, *, root: str = "/") -> None:
    """Remove the entries of ``shadow`` and ``gshadow`` that belong to no account.

    Args:
        sink: Receives a message for each file that changes.
        root: The root directory of the system.

    Raises:
        AccountsBusy: another program holds the lock of the accounts.
        LinkedAccounts: a file of accounts is a symbolic link. Nothing was changed.
        NoAccounts: ``passwd`` or ``group`` has no account.
        OSError: a file cannot be read or written.
    """
    with Dir.open(root) as top, top.open_dir("etc") as etc, _locked(etc):
        for name in itertools.chain.from_iterable(_PAIRS):
            _refuse_link(etc, name)
        for accounts, secrets in _PAIRS:
            with doing(f"Removing entries without an account from /etc/{secrets}"):
                _clean(top, etc, accounts, secrets, sink)


def _refuse_link(etc: Dir, name: str) -> None:
    """Refuse a link before anything changes: replacing it would leave its target behind."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISLNK(etc.stat(name).st_mode):
            raise LinkedAccounts(
                f"{etc.path.rstrip('/')}/{name} is a symbolic link",
                hint="put a regular file in its place",
            )


def _clean(top: Dir, etc: Dir, accounts: str, secrets: str, sink: Sink) -> None:
    try:
        fd = etc.open_regular(secrets)
    except FileNotFoundError:
        return
    with open(fd, "rb") as file:
        data = etc.read_bytes(secrets, _MAX_BYTES)
        names: set[bytes] = set()
        for directory in ("etc", _IMAGE_DIRECTORY):
            with contextlib.suppress(FileNotFoundError):
                names |= account_names(top.read_bytes(f"{directory}/{accounts}", _MAX_BYTES))
        if not names:
            raise NoAccounts(f"/etc/{accounts} has no account")
        kept, removed = without_orphans(data, names)
        if removed:
            atomic.write_file(etc, secrets, kept, like=file.fileno(), durable=True)
            sink(Message(f"/etc/{secrets}: removed {_listed(removed)}"))


def _listed(names: list[bytes]) -> str:
    shown = ", ".join(printable(name) for name in names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


@contextlib.contextmanager
def _locked(etc: Dir) -> Iterator[None]:
    try:
        fd = etc.open_file(_LOCK, os.O_WRONLY | os.O_CREAT, 0o600)
    except OSError as exc:
        if exc.errno != errno.EROFS:
            raise
        # Nobody can change the accounts. The command succeeds if there is nothing to remove.
        yield
        return
    with open(fd, "wb", buffering=0):
        end = time.monotonic() + _LOCK_PATIENCE_S
        while True:
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as exc:
                if exc.errno not in (errno.EACCES, errno.EAGAIN):
                    raise
                if time.monotonic() > end:
                    raise AccountsBusy(
                        f"another program holds {etc.path.rstrip('/')}/{_LOCK}",
                        hint="repeat the command when it has ended",
                    ) from None
                time.sleep(_LOCK_POLL_S)
        yield
