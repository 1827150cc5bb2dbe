"""The units of a boot, for tables of mounts that a test makes up; and the units that we ship."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from bootc.deploy.host import boot_units, overlay_labels, overlays
from bootc.deploy.host.boot_units import RELABEL, SHADOW_SYNC, generate
from bootc.deploy.host.etc_fstab import edit
from bootc.deploy.host.fsck import check_host
from bootc.deploy.host.overlay_labels import relabel_overlays
from bootc.deploy.host.overlays import writable_overlays
from bootc.deploy.old_root import MARK
from bootc.events import Event, Message
from bootc.fs.dir import Dir
from bootc.fs.mounts import Mount
from bootc.repository.repository import Repository
from support import require

DATA = Path(__file__).parents[4] / "data/systemd"
ID = "ab" * 64
STATUS = {
    f"multi-user.target.wants/{unit}": f"/usr/lib/systemd/system/{unit}"
    for unit in (
        "bootc-refresh-boot-menu.service",
        "bootc-security-counter.service",
        "bootc-status-updated.path",
        "bootc-status-updated-onboot.target",
    )
}
SYNC = {f"sysinit.target.wants/{SHADOW_SYNC}": f"/usr/lib/systemd/system/{SHADOW_SYNC}"}
LABEL = {RELABEL: None, f"sysinit.target.wants/{RELABEL}": f"../{RELABEL}"}


def mount(path: str, source: str, fstype: str = "overlay") -> Mount:
    return Mount(1, "0:1", path, fstype, source)


@pytest.fixture(autouse=True)
def read_only(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The places that are read-only; all others are writable."""
    places = {"/"}
    monkeypatch.setattr(
        overlays.os,
        "statvfs",
        lambda path: SimpleNamespace(f_flag=os.ST_RDONLY if path in places else 0),
    )
    return places


def generated(directory: Path) -> dict[str, str | None]:
    """Return the files of a directory, and the targets of links."""
    return {
        str(path.relative_to(directory)): os.readlink(path) if path.is_symlink() else None
        for path in directory.rglob("*")
        if not path.is_dir()
    }


@pytest.mark.parametrize(
    ("mounts", "shadow", "expected"),
    [
        ([mount("/", "/dev/sda2", "ext4")], True, {}),
        ([mount("/", "overlay")], True, {}),
        ([mount("/", f"composefs:{ID}")], True, {**STATUS, **SYNC}),
        ([mount("/", f"composefs:{ID}")], False, STATUS),
        ([mount("/", f"composefs:{ID}"), mount("/etc", "transient")], False, {**STATUS, **LABEL}),
        (
            [mount("/", f"composefs:{ID}"), mount("/var", "/dev/sda2", "ext4")],
            True,
            {**STATUS, **SYNC},
        ),
    ],
)
def test_units_of_a_boot(
    mounts: list[Mount], shadow: bool, expected: dict[str, str | None], tmp_path: Path
) -> None:
    root, units = tmp_path / "root", tmp_path / "units"
    (root / "etc").mkdir(parents=True)
    units.mkdir()
    if shadow:
        (root / "etc/shadow").touch()
    for _ in range(2):
        generate(str(units), mounts, root=str(root))
        assert generated(units) == expected


def test_an_old_system_is_removed_once(tmp_path: Path) -> None:
    root, units = tmp_path / "root", tmp_path / "units"
    units.mkdir()
    (root / "sysroot/etc").mkdir(parents=True)
    (root / "sysroot" / MARK).touch()
    generate(str(units), [mount("/", f"composefs:{ID}")], root=str(root))
    unit = "bootc-destructive-cleanup.service"
    wanted = {f"multi-user.target.wants/{unit}": f"/usr/lib/systemd/system/{unit}"}
    assert generated(units) == {**STATUS, **wanted}
    assert f"ConditionPathExists=/sysroot/{MARK}\n" in (DATA / unit).read_text()


def test_a_root_that_can_be_written(tmp_path: Path, read_only: set[str]) -> None:
    read_only.clear()
    generate(str(tmp_path), [mount("/", f"transient:composefs={ID}")], root=str(tmp_path))
    assert generated(tmp_path) == {**STATUS, **LABEL}


def test_the_topmost_mount_counts(read_only: set[str]) -> None:
    mounts = [mount("/etc", "transient"), mount("/etc", "/dev/sda2", "ext4"), mount("/var", "x")]
    assert writable_overlays(mounts) == ["/var"]
    read_only.add("/var")
    assert writable_overlays(mounts) == []


def test_labels_come_from_the_policy_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = {
        "etc/selinux/config": b"SELINUX=enforcing\nSELINUXTYPE=targeted\n",
        "etc/selinux/targeted/contexts/files/file_contexts": (
            b"/.* system_u:object_r:default_t:s0\n/etc -d system_u:object_r:etc_t:s0\n"
        ),
    }
    for path, data in policy.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    labels = {"/var": b"system_u:object_r:default_t:s0\0"}
    monkeypatch.setattr(overlay_labels, "_ENFORCE", str(tmp_path / "enforce"))
    monkeypatch.setattr(
        overlay_labels, "open_regular", lambda path: os.open(f"{tmp_path}{path}", 0)
    )
    monkeypatch.setattr(
        overlay_labels, "read_mounts", lambda: [mount("/etc", "x"), mount("/var", "x")]
    )
    monkeypatch.setattr(overlay_labels.os, "getxattr", lambda path, name: labels.get(path, b""))
    monkeypatch.setattr(
        overlay_labels.os, "setxattr", lambda path, name, label: labels.update({path: label})
    )
    events: list[Event] = []
    relabel_overlays(events.append)
    assert events == []  # no SELinux
    (tmp_path / "enforce").touch()
    relabel_overlays(events.append)
    assert events == [Message("/etc: labelled system_u:object_r:etc_t:s0")]
    assert labels["/etc"] == b"system_u:object_r:etc_t:s0"
    relabel_overlays(events.append)
    assert len(events) == 1


def test_fstab_is_edited_once(tmp_path: Path) -> None:
    events: list[Event] = []
    with Dir.open(tmp_path) as etc:
        edit(etc, events.append)
        assert (events, os.listdir(tmp_path)) == ([], [])
        (tmp_path / "fstab").write_text("UUID=1 / xfs rw 0 0\n")
        edit(etc, events.append)
        edit(etc, events.append)
    assert len(events) == 1
    assert (tmp_path / "fstab").read_text().endswith("\nUUID=1 / xfs ro 0 0\n")


class NoVerity:
    """The ioctls on a file system without fs-verity."""

    def enable(self, fd: int, algorithm: int) -> None:
        raise AssertionError

    def measure(self, fd: int) -> tuple[int, bytes]:
        raise OSError(61, "No data available")


@pytest.mark.parametrize("tolerated", [True, False])
def test_quick_checks(tolerated: bool, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    with Dir.open(tmp_path) as top, Repository.create(top, secure=False) as repository:
        digest = repository.objects.put(b"content")
        repository.objects.flush()
        booted = SimpleNamespace(missing_verity_allowed=tolerated)
        view = SimpleNamespace(repository=repository, booted=booted)

        def problems() -> dict[str, str | None]:
            return check_host(view, root=str(tmp_path), verity=NoVerity())  # type: ignore[arg-type]

        path = f"objects/{digest.hex[:2]}/{digest.hex[2:]}"
        verity = None if tolerated else f"{path} has no fs-verity"
        assert problems() == {"etc-resolvconf": None, "fsverity": verity}
        (tmp_path / "etc/resolv.conf").touch()
        assert problems()["etc-resolvconf"] == f"{tmp_path}/etc/resolv.conf is an empty file"
        (tmp_path / "etc/resolv.conf").write_text("nameserver ::1\n")
        assert problems()["etc-resolvconf"] is None


# -- what is shipped


def test_the_shipped_units_name_what_is_shipped() -> None:
    shipped = {path.name for path in DATA.iterdir()}
    assert {SHADOW_SYNC, *boot_units.STATUS_UPDATED} <= shipped
    for path in DATA.iterdir():
        named = set(re.findall(r"bootc-[\w-]+\.(?:service|target|path|timer)", path.read_text()))
        assert named <= {*shipped, RELABEL}


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    require.tool("systemd-analyze")
    for path in DATA.glob("*.*"):
        text = path.read_text().replace("/usr/bin/bootc", "/bin/true")
        # The manual pages are not installed here.
        text = re.sub("(?m)^(Documentation|ExecStart=/usr/lib/bootc).*\n", "", text)
        (tmp_path / path.name).write_text(text)
    (tmp_path / RELABEL).write_text(
        boot_units._RELABEL_UNIT.replace("/usr/bin/bootc", "/bin/true").replace("Doc", "#")
    )
    units = [str(path) for path in tmp_path.iterdir() if path.stem != "bootc-root-setup"]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "bootc-" in line]
    assert ours == []


@pytest.mark.parametrize(
    ("cmdline", "called"),
    [
        ("root=/dev/a ro composefs=ab quiet\n", True),
        ("composefs.digest=v1-sha512-12:ab", True),
        ("root=/dev/a\n", False),
        ("xcomposefs=ab systemd.composefs=1\n", False),
        ("", False),
    ],
)
def test_the_generator_costs_nothing_on_other_systems(
    cmdline: str, called: bool, tmp_path: Path
) -> None:
    (tmp_path / "cmdline").write_text(cmdline)
    (tmp_path / "bootc").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "bootc").chmod(0o755)
    script = (DATA / "bootc-systemd-generator").read_text()
    script = script.replace("/proc/cmdline", str(tmp_path / "cmdline"))
    script = script.replace("/usr/bin/bootc", str(tmp_path / "bootc"))
    shell = shutil.which("dash") or "/bin/sh"
    done = subprocess.run(
        [shell, "-eu", "-c", script, "generator", "/n", "/e", "/l"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ("internals systemd-generator /n /e /l\n" if called else "")
    assert done.stderr == ""
