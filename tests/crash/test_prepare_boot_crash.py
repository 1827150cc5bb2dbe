"""A boot entry by hand (``cfs oci prepare-boot``) that fails, or is killed, at each change."""

from __future__ import annotations

import errno
from functools import partial
from pathlib import Path

import pytest

from support import images
from support.cfs import Cfs
from support.failing import Failing, failing, interrupting, killed
from support.ociverbs import BASE, KERNEL

INITRAMFS = b"initramfs" * 50
NEW = {"e/vmlinuz": KERNEL, "e/initramfs.img": INITRAMFS}
ENTRY = "loader/entries/e.conf"


@pytest.fixture
def cfs(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> Cfs:
    cfs = Cfs(tmp_path / "repo", capsysbinary, monkeypatch)
    cfs("init", "--insecure")
    cfs("oci", "pull", images.single(tmp_path / "layout", BASE).reference(), "os")
    return cfs


def files_below(top: Path) -> dict[str, bytes]:
    return {str(p.relative_to(top)): p.read_bytes() for p in top.rglob("*") if p.is_file()}


@pytest.fixture
def older(tmp_path: Path) -> dict[str, bytes]:
    """A boot directory whose entry is about to be replaced."""
    boot = tmp_path / "boot"
    for name in (*NEW, ENTRY):
        (boot / name).parent.mkdir(parents=True, exist_ok=True)
        (boot / name).write_bytes(b"older")
    return files_below(boot)


def prepare(cfs: Cfs, boot: Path) -> tuple[int, bytes, str]:
    return cfs.raw("oci", "prepare-boot", "os", "--bootdir", boot, "--entry-id", "e")


@pytest.mark.parametrize(
    "fails",
    [partial(failing, error=errno.ENOSPC), partial(failing, error=errno.EACCES), interrupting],
)
def test_a_failure_leaves_nothing_half_written(cfs: Cfs, tmp_path: Path, fails: Failing) -> None:
    boot = tmp_path / "boot"
    code, at = 1, 0
    while code:
        at += 1
        with fails(at):
            code, _, err = prepare(cfs, boot)
        if code:
            assert err
            found = files_below(boot)
            entry = found.pop(ENTRY, None)
            # A failure at the last renames leaves complete files, without an entry for them.
            assert found.items() <= NEW.items()
            assert entry is None or len(found) == 2
            # The test of the next change begins where this one did.
            assert found or not boot.exists()
            assert found or not (tmp_path / "state").exists()
    assert at > 10
    assert files_below(boot).keys() == {*NEW, ENTRY}


def test_a_kill_leaves_whole_files(cfs: Cfs, tmp_path: Path, older: dict[str, bytes]) -> None:
    boot = tmp_path / "boot"
    at = 1
    while killed(at, lambda: prepare(cfs, boot)):
        found = {n: d for n, d in files_below(boot).items() if "/.tmp-file-" not in n}
        assert found.keys() == older.keys()
        for name, data in found.items():
            assert data in (b"older", NEW.get(name)) or b"composefs.digest=" in data
        if found[ENTRY] != b"older":
            assert NEW.items() <= found.items()
        at += 1
    assert at > 10
    assert files_below(boot).keys() == older.keys()
    assert NEW.items() <= files_below(boot).items()
