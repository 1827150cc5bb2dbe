"""Commands that replace a file or two: power fails, the process ends, or the disk is full.

For every n the n-th change does not happen. After it each file is as before or as after, and the
same command again ends as if nothing had happened.
"""

from __future__ import annotations

import errno
import io
import itertools
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bootc.boot.firmware_entries import ProgramPlace, ensure_entry
from bootc.boot.uki_unpack import AlreadyUnpacked, unpack_uki
from bootc.deploy.host import etc_fstab
from bootc.deploy.host.accounts import remove_orphans
from bootc.events import null_sink
from bootc.fs.dir import Dir
from bootc.kernel import efivars
from support.failing import dies, failing, killed
from support.pe import UKI_SECTIONS, program

LIMIT = 100
ACCOUNTS = {
    "etc/passwd": "root:x:0:0::/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/shadow": "root:*:::::::\ngone:!:::::::\nroot:again:::::::\n",
    "etc/gshadow": "root:*::\nusers:!::\n",
}
FSTAB = {"etc/fstab": "/dev/vda1 / ext4 defaults 0 1\n/dev/vda2 /home ext4 rw 0 2\n"}


def clean_accounts(root: Path) -> None:
    remove_orphans(null_sink, root=str(root))


def edit_fstab(root: Path) -> None:
    with Dir.open(root / "etc") as etc:
        etc_fstab.edit(etc, null_sink)


COMMANDS = {"sysusers-sync": (ACCOUNTS, clean_accounts), "fixup-etc-fstab": (FSTAB, edit_fstab)}


def make(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def contents(root: Path) -> dict[str, str]:
    """Return the files of a tree, without temporary ones and the lock."""
    paths = (path for path in root.rglob("*") if path.is_file() and path.name[0] != ".")
    return {str(path.relative_to(root)): path.read_text() for path in paths}


def fails(at: int, work: Callable[[], None]) -> bool:
    with failing(at, errno.ENOSPC) as changes, suppress(OSError):
        work()
    return changes.failed


@pytest.mark.parametrize("ends", [dies, killed, fails])
@pytest.mark.parametrize("command", COMMANDS)
def test_each_file_is_old_or_new(
    tmp_path: Path, command: str, ends: Callable[[int, Callable[[], None]], bool]
) -> None:
    files, run = COMMANDS[command]
    run(make(tmp_path / "whole", files))
    before, after = files, contents(tmp_path / "whole")
    assert before != after
    for at in itertools.count(1):
        assert at < LIMIT
        root = make(tmp_path / str(at), files)
        interrupted = ends(at, lambda root=root: run(root))  # type: ignore[misc]
        found = contents(root)
        assert found.keys() == before.keys()
        for path, text in found.items():
            assert text in (before[path], after[path])
        run(root)
        assert contents(root) == after
        shutil.rmtree(root)
        if not interrupted:
            assert found == after
            break
    assert at > 2


@pytest.mark.parametrize("ends", [dies, killed, fails])
def test_a_uki_is_unpacked_completely_or_visibly_not(
    tmp_path: Path, ends: Callable[[int, Callable[[], None]], bool]
) -> None:
    """A crash leaves a directory that the next run refuses; a failure leaves nothing."""
    sections = dict(UKI_SECTIONS)
    data = program(*sections.items(), (b".uname", b"6.12"))
    whole = {"vmlinuz": sections[b".linux"], "initramfs.img": sections[b".initrd"]}
    for at in itertools.count(1):
        assert at < LIMIT
        output = tmp_path / str(at)

        def run(output: Path = output) -> None:
            unpack_uki(io.BytesIO(data), "a.efi", str(output))

        interrupted = ends(at, run)
        found = {path.name: path.read_bytes() for path in output.glob("6.12/[!.]*")}
        assert found.items() <= whole.items()
        if not interrupted:
            assert found == whole
            break
        if ends is fails:
            assert not output.exists()
        elif (output / "6.12").exists():
            with pytest.raises(AlreadyUnpacked):
                run()
            shutil.rmtree(output)
        run()
        assert {path.name for path in (output / "6.12").iterdir()} == whole.keys()
    assert at > 3


@pytest.mark.parametrize("at", [1, 2])
def test_an_interrupted_entry_of_the_firmware_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    place = ProgramPlace(2, 4096, 2097152, uuid.UUID(int=1), "EFI/systemd/systemd-bootx64.efi")
    order = tmp_path / f"BootOrder-{efivars.GLOBAL_GUID}"
    order.write_bytes(b"\x07\0\0\0\5\0")
    write, count = efivars.write_variable, itertools.count(1)

    def interrupted(*args: Any, **settings: Any) -> None:
        if next(count) == at:
            raise KeyboardInterrupt
        write(*args, **settings)

    monkeypatch.setattr(efivars, "write_variable", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ensure_entry(place, "Linux", root=str(tmp_path))
    assert order.read_bytes() == b"\x07\0\0\0\5\0"
    assert ensure_entry(place, "Linux", root=str(tmp_path))
    assert order.read_bytes() == b"\x07\0\0\0\0\0\5\0"
    assert sorted(path.name[:9] for path in tmp_path.iterdir()) == ["Boot0000-", "BootOrder"]
