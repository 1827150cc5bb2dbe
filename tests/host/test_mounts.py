"""Mounting for real: nothing is left behind, and the device knows what was written."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.errors import one_line
from bootc.fs import mounts
from bootc.fs.atomic import write_file
from bootc.fs.dir import Dir
from bootc.kernel.mount import fsconfig_create, fsconfig_set_string, fsmount, fsopen
from support import require

pytestmark = pytest.mark.host


def mount_points() -> list[str]:
    base = Path("/run/bootc/mounts")
    return sorted(os.listdir(base)) if base.exists() else []


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    require.root()
    before = mount_points()
    yield
    assert mount_points() == before


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """A loop device with an empty ext4."""
    image = tmp_path / "image"
    with open(image, "wb") as file:
        file.truncate(16 << 20)
    subprocess.run([require.tool("mkfs.ext4"), "-q", image], check=True)
    losetup = require.tool("losetup")
    done = subprocess.run([losetup, "--show", "-f", image], check=True, stdout=subprocess.PIPE)
    device = done.stdout.decode().strip()
    yield device
    subprocess.run([losetup, "-d", device], check=True)


def test_a_device_is_mounted_for_the_block(device: str) -> None:
    assert not mounts.is_mounted(device)
    with mounts.mounted(device, "ext4") as root:
        assert mounts.is_mounted(device)
        assert mounts.filesystem_of(root) == "ext4"
        write_file(root, "f", b"kept", durable=False)
    assert not mounts.is_mounted(device)
    with mounts.mounted(device, "ext4", read_only=True, options="errors=continue") as root:
        assert root.read_bytes("f") == b"kept"
        with pytest.raises(OSError, match="Read-only file system"):
            root.mkdir("d")


def test_an_exception_unmounts_too(device: str) -> None:
    with pytest.raises(ZeroDivisionError), mounts.mounted(device, "ext4"):
        raise ZeroDivisionError
    assert not mounts.is_mounted(device)


def test_a_file_left_open_delays_the_end(device: str, caplog: pytest.LogCaptureFixture) -> None:
    with mounts.mounted(device, "ext4") as root:
        fd = root.open_file("f", os.O_WRONLY | os.O_CREAT)
    assert "still in use" in caplog.text
    os.write(fd, b"fine")
    os.close(fd)
    with mounts.mounted(device, "ext4") as root:
        assert root.read_bytes("f") == b"fine"


@pytest.mark.parametrize(
    ("fstype", "options", "cause"),
    [("nosuchfs", "", "No such device"), ("ext4", "nonsense", "Invalid argument")],
)
def test_a_failure_names_device_and_type(
    device: str, fstype: str, options: str, cause: str
) -> None:
    with (
        pytest.raises(OSError, match=cause) as caught,
        mounts.mounted(device, fstype, options=options),
    ):
        pass
    assert one_line(caught.value) == f"Mounting {device} ({fstype}): {cause}"


def test_attach_gives_a_detached_mount_a_path() -> None:
    fs_fd = fsopen("tmpfs")
    fsconfig_set_string(fs_fd, "size", "65536")
    fsconfig_create(fs_fd)
    mount_fd = fsmount(fs_fd)
    os.close(fs_fd)
    os.mkdir("d", dir_fd=mount_fd)
    with mounts.attach(mount_fd) as path:
        assert os.listdir(path) == ["d"]
        subprocess.run(["test", "-d", f"{path}/d"], check=True)
    assert not os.path.exists(path)
    os.stat("d", dir_fd=mount_fd)
    os.close(mount_fd)


def test_a_private_namespace_hides_its_mounts(tmp_path: Path) -> None:
    script = (
        "import os\n"
        "from bootc.fs import mounts\n"
        "from bootc.kernel.mount import mount\n"
        "mounts.private_mount_namespace()\n"
        f"mount('none', {str(tmp_path)!r}, 'tmpfs', 0)\n"
        f"assert os.path.ismount({str(tmp_path)!r})\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    assert not os.path.ismount(tmp_path)


def filesystem_options(device: str) -> set[str]:
    """Return the options of a file system itself, whatever each of its mounts has."""
    with open("/proc/self/mountinfo") as table:
        lines = [line.split(" - ")[1].split() for line in table if f" {device} " in line]
    return set(lines[0][2].split(","))


@pytest.fixture
def read_only(device: str, tmp_path: Path) -> Iterator[Path]:
    """Mount the device read-only, lazytime, as somebody else would."""
    place = tmp_path / "place"
    place.mkdir()
    subprocess.run(["mount", "-o", "ro,lazytime", device, place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


@contextlib.contextmanager
def writable(place: Path) -> Iterator[Path]:
    """Make the file system writable through a mount that is writable as such."""
    other = place.parent / "other"
    other.mkdir()
    subprocess.run(["mount", "--bind", place, other], check=True)
    subprocess.run(["mount", "-o", "remount,bind,rw", other], check=True)
    try:
        with (
            Dir.open(other) as directory,
            mounts.writable_filesystem(directory.fileno(), str(other)),
        ):
            yield other
    finally:
        subprocess.run(["umount", other], check=True)


def test_a_file_system_is_read_only_again(device: str, read_only: Path) -> None:
    before = filesystem_options(device)
    assert {"ro", "lazytime"} <= before
    with writable(read_only) as other:
        assert filesystem_options(device) == before - {"ro"} | {"rw"}
        (other / "f").write_text("written")
        with pytest.raises(OSError, match="Read-only file system"):
            (read_only / "g").write_text("")
    assert filesystem_options(device) == before
    assert (read_only / "f").read_text() == "written"


def test_a_file_system_is_read_only_again_after_a_failure(device: str, read_only: Path) -> None:
    with pytest.raises(ZeroDivisionError), writable(read_only):
        raise ZeroDivisionError
    assert "ro" in filesystem_options(device)


def test_a_file_system_that_somebody_writes_to_stays_writable(
    device: str, read_only: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.ExitStack() as stack:
        with writable(read_only) as other:
            subprocess.run(["mount", "-o", "remount,bind,rw", read_only], check=True)
            file = stack.enter_context((read_only / "log").open("w"))
        assert "rw" in filesystem_options(device)
        assert f"{other} stays writable: " in caplog.text
        file.write("all of it")
    assert (read_only / "log").read_text() == "all of it"


def test_a_file_system_that_is_writable_stays_as_it_is(device: str, read_only: Path) -> None:
    subprocess.run(["mount", "-o", "remount,rw", read_only], check=True)
    before = filesystem_options(device)
    with writable(read_only):
        assert filesystem_options(device) == before
    assert filesystem_options(device) == before
