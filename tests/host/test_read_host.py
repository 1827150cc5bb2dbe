"""The status of a system put together from real mounts, all but booted."""

from __future__ import annotations

import ast
import contextlib
import fcntl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.boot import partitions
from bootc.boot.findings import Finding, FindingKind
from bootc.boot.loader import Bootloader, LoaderTraces
from bootc.deploy.host import boot_state
from bootc.deploy.host.gather import gather
from bootc.deploy.host.model import Host, UsrOverlay
from bootc.deploy.host.session import open_host_view
from bootc.deploy.host.status import read_host
from bootc.events import null_sink
from bootc.repository.repository import NotARepository
from support import require
from support.children import lock_held
from support.commands import Commands
from support.sysroot import FakeSysroot, image_id

pytestmark = pytest.mark.host

A, B = image_id("aa"), image_id("bb")
TABLE = """\
label: gpt
size=8MiB, type=c12a7328-f81f-11d2-ba4b-00a0c93ec93b
type=4f68bce3-e8cd-4db1-96e7-fbcaf984b709
"""


def run(*argv: str, input: str | None = None) -> str:
    done = subprocess.run(argv, input=input, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def mounts() -> Iterator[contextlib.ExitStack]:
    require.root()
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def root(tmp_path: Path, mounts: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Mount a root that says it is image A, booted with missing verity allowed."""
    monkeypatch.setattr(boot_state, "read_traces", lambda: LoaderTraces(Bootloader.SYSTEMD))
    path = tmp_path / "root"
    path.mkdir()
    run("mount", "-t", "tmpfs", f"composefs:{A}", str(path))
    mounts.callback(run, "umount", str(path))
    for name in ("proc", "sysroot", "usr"):
        (path / name).mkdir()
    (path / "proc/cmdline").write_text(f"rw composefs=?{B}\n")
    return path


def add_deployments(place: Path) -> None:
    """Put a system at ``place``, a deployment A in it."""
    system = FakeSysroot(place / "made")
    system.add_state(A)
    for part in ("composefs", "state"):
        (system.physical / part).rename(place / part)


def check_booted(host: Host) -> None:
    assert host.status.booted is not None
    composefs = host.status.booted.composefs
    assert composefs.verity == A
    assert composefs.missing_verity_allowed
    assert composefs.bootloader in Bootloader
    assert host.status.rollback is None
    assert not host.status.rollback_queued


def test_a_root_in_memory_has_no_esp(root: Path) -> None:
    add_deployments(root / "sysroot")
    host = read_host(root=str(root))
    check_booted(host)
    assert not host.status.read_only
    assert host.status.findings == (
        Finding(
            FindingKind.UNREADABLE,
            "boot menu",
            f"Looking for the device of {root}/sysroot: "
            f"{root}/sysroot is not on a block device (composefs:{A})",
        ),
    )


@pytest.fixture
def disk(tmp_path: Path, root: Path, mounts: contextlib.ExitStack) -> str:
    """Mount the physical root from a disk whose ESP holds no file system."""
    for tool in ("sfdisk", "losetup", "partx", "mkfs.ext4"):
        require.tool(tool)
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(32 << 20)
    run("sfdisk", "--quiet", str(image), input=TABLE)
    device = run("losetup", "--find", "--show", str(image))
    mounts.callback(run, "losetup", "--detach", device)
    run("partx", "--add", device)
    # May fail on a busy machine; they go with the device as well.
    mounts.callback(subprocess.run, ["partx", "--delete", device], check=False)
    run("mkfs.ext4", "-q", f"{device}p2")
    run("mount", f"{device}p2", str(root / "sysroot"))
    mounts.callback(run, "umount", str(root / "sysroot"))
    return device


def test_an_esp_that_cannot_be_read(root: Path, disk: str) -> None:
    add_deployments(root / "sysroot")
    host = read_host(root=str(root))
    check_booted(host)
    assert [(f.kind, f.subject) for f in host.status.findings] == [
        (FindingKind.UNREADABLE, "boot menu")
    ]
    assert host.status.findings[0].text.startswith(f"Mounting {disk}p1 (vfat): ")


def test_a_disk_that_refuses_writes(root: Path, disk: str) -> None:
    add_deployments(root / "sysroot")
    run("mount", "-o", "remount,ro", str(root / "sysroot"))
    assert not read_host(root=str(root)).status.read_only
    run("blockdev", "--setro", f"{disk}p2")
    assert read_host(root=str(root)).status.read_only


@pytest.mark.parametrize(("options", "mode"), [("ro", "readOnly"), ("rw", "readWrite")])
def test_an_overlay_over_usr(
    root: Path, mounts: contextlib.ExitStack, options: str, mode: str
) -> None:
    add_deployments(root / "sysroot")
    run("mount", "-t", "tmpfs", "-o", options, "overlay", str(root / "usr"))
    mounts.callback(run, "umount", str(root / "usr"))
    assert read_host(root=str(root)).status.usr_overlay == UsrOverlay(mode)  # type: ignore[arg-type]


def test_the_staged_marker_is_read(root: Path) -> None:
    add_deployments(root / "sysroot")
    marker = root / "run/composefs/staged-deployment"
    marker.parent.mkdir(parents=True)
    marker.write_text("{}")
    host = read_host(root=str(root))
    check_booted(host)
    found = Finding(
        FindingKind.MALFORMED,
        str(marker),
        "it is no marker of a staged deployment: KeyError('depl_id')",
    )
    assert found in host.status.findings


def test_a_repository_that_makes_no_sense(root: Path) -> None:
    add_deployments(root / "sysroot")
    (root / "sysroot/composefs/meta.json").write_text("{}")
    host = read_host(root=str(root))
    check_booted(host)
    assert str(root / "sysroot/composefs") in [f.subject for f in host.status.findings]
    assert host.status.booted is not None
    assert host.status.booted.image is not None
    assert host.status.booted.image.architecture == "unknown"


def test_a_repository_that_is_being_collected(root: Path) -> None:
    add_deployments(root / "sysroot")
    with lock_held(root / "sysroot/composefs", fcntl.LOCK_EX):
        host = read_host(root=str(root))
    check_booted(host)
    assert host.status.booted is not None
    assert host.status.booted.image is not None
    assert host.status.booted.image.architecture == "amd64"
    assert not any("in use" in finding.text for finding in host.status.findings)


def test_looking_at_a_system_neither_checks_its_esp_nor_writes_to_it(
    root: Path, disk: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not every kernel that runs the tests has vfat.
    monkeypatch.setattr(partitions, "ESP_FILESYSTEM", "ext4")
    monkeypatch.setattr(partitions, "ESP_OPTIONS", "")
    monkeypatch.delenv("container", raising=False)
    add_deployments(root / "sysroot")
    run("mount", "-o", "remount,ro", str(root / "sysroot"))
    run("mkfs.ext4", "-q", f"{disk}p1")
    check = Commands(tmp_path / "programs", monkeypatch).mock("fsck.ext4", "exit 0")
    before = _contents(disk)
    with open_host_view(null_sink, root=str(root)) as view:
        assert view.boot.menu.names() == ["lost+found"]
        with pytest.raises(OSError, match="Read-only"):
            view.boot.menu.mkdir("x")
        assert gather(view).images
    assert _contents(disk) == before
    assert check.calls == []
    assert not (root / "run").exists()
    with partitions.open_esp_writable(f"{disk}p1"):
        assert check.calls == [["-a", f"{disk}p1"]]


def _contents(disk: str) -> str:
    run("sync")
    run("blockdev", "--flushbufs", f"{disk}p1")
    return run("sha256sum", f"{disk}p1", f"{disk}p2")


def test_without_repository_there_is_no_system(root: Path) -> None:
    with pytest.raises(NotARepository):
        read_host(root=str(root))


def test_what_others_than_root_may_read(
    root: Path, disk: str, mounts: contextlib.ExitStack
) -> None:
    add_deployments(root / "sysroot")
    for path in root.parents:  # those of pytest are its own
        mounts.callback(path.chmod, path.stat().st_mode & 0o7777)
        path.chmod(path.stat().st_mode & 0o7777 | 0o5)
    code = (
        "import os,sys\nfrom bootc.deploy.host.status import read_host\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "print(read_host(root=sys.argv[1]).to_json()['status'])"
    )
    status = ast.literal_eval(run(sys.executable, "-c", code, str(root)))
    assert status["booted"]["composefs"]["verity"] == A.hex
    assert status["booted"]["image"]["image"]["image"] == "quay.io/example/os:43"
    told = {finding["subject"]: finding["text"] for finding in status["findings"]}
    assert told[str(root / "sysroot/composefs")].endswith(
        "Permission denied (run as root to see the rest)"
    )
