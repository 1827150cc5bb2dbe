"""The kernel mounts what we lay out: images alone, and the whole root of a deployment.

Each case runs in a child process with a mount namespace of its own. Enforcement of
fs-verity is seen in tests/boot, under a kernel that has it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bootc
from bootc.initramfs.setup_root import RECOVERY
from support import require
from support.physical import PROGRAM, PhysicalRoot, make_physical_root

pytestmark = pytest.mark.host

SRC = str(Path(bootc.__file__).parents[1])

PRELUDE = f"""
import json, os, sys
sys.path.append({SRC!r})
from bootc.errors import one_line
from bootc.kernel.libc import AT_FDCWD
from bootc.kernel.mount import *
from bootc.kernel import mount as calls

def read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError as exc:
        return exc.strerror

def write(path):
    try:
        with open(path, "w") as file:
            return file.write("new")
    except OSError as exc:
        return exc.strerror

def names(path):
    try:
        return sorted(os.listdir(path))
    except OSError as exc:
        return exc.strerror

def mounts(below):
    with open("/proc/self/mountinfo") as file:
        lines = [line.split() for line in file]
    return {{
        line[4]: (line[5].split(",")[0], line[line.index("-") + 1], line[line.index("-") + 2])
        for line in lines
        if line[4].startswith(below) or "bootc-layer" in line[4]
    }}

root = sys.argv[1]
calls.unshare(CLONE_NEWNS)
# systemd shares the whole tree in the initramfs, too; others must not see us all the same.
calls.mount(None, "/", None, MS_REC | MS_PRIVATE)
calls.mount(root, root, None, MS_BIND)
calls.mount(None, "/", None, MS_REC | MS_SHARED)
"""

SETUP = (
    PRELUDE
    + """
from bootc.initramfs import setup_root
status = setup_root.main(["setup-root", "--sysroot", root, *sys.argv[3:]])
target = sys.argv[2]
print(json.dumps({
    "status": status,
    "mounts": mounts(root),
    "hostname": read(f"{target}/etc/hostname"),
    "data": read(f"{target}/var/data"),
    "program": read(f"{target}/bin/program"),
    "write": {name: write(f"{target}/{name}/new") for name in ("", "etc", "var", "sysroot")},
    "physical": names(f"{target}/sysroot"),
    "left": [name for name in os.listdir("/run") if name.startswith("bootc-layer")],
}))
"""
)
READ_ONLY = "Read-only file system"


@pytest.fixture(autouse=True)
def _root() -> None:
    require.root()


@pytest.fixture
def physical(tmp_path: Path) -> PhysicalRoot:
    return make_physical_root(tmp_path / "root")


def run(program: str, *args: str | Path) -> tuple[Any, str]:
    done = subprocess.run(
        [sys.executable, "-SI", "-c", program, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout), done.stderr


def setup(
    physical: PhysicalRoot, *, config: str = "", more: str = "", target: Path | None = None
) -> tuple[Any, str]:
    conf = physical.path.parent / "conf.toml"
    conf.write_text(config)
    return run(
        SETUP,
        physical.path,
        target or physical.path,
        *("--config", conf, "--cmdline", f"rw composefs=?{physical.image_hex} {more}"),
        *(("--target", target) if target else ()),
    )


def test_the_image_covers_the_physical_root(physical: PhysicalRoot) -> None:
    seen, stderr = setup(physical)
    assert (seen["status"], stderr) == (0, "")
    assert seen["program"] == PROGRAM.decode()
    assert seen["hostname"] == "state\n"
    assert seen["data"] == "state\n"
    assert seen["write"] == {"": READ_ONLY, "etc": 3, "var": 3, "sysroot": READ_ONLY}
    assert (physical.state / "etc/new").read_text() == "new"
    assert (physical.path / "state/os/default/var/new").read_text() == "new"
    assert seen["physical"] == ["composefs", "state"]
    assert seen["left"] == []

    root = str(physical.path)
    mounts = seen["mounts"]
    assert sorted(mounts) == [root, f"{root}/etc", f"{root}/sysroot", f"{root}/var"]
    assert mounts[root] == ["ro", "overlay", f"composefs:{physical.image_hex}"]
    assert [mounts[f"{root}/{name}"][0] for name in ("etc", "sysroot", "var")] == ["rw", "ro", "rw"]


def test_a_soft_reboot_prepares_another_place(physical: PhysicalRoot, tmp_path: Path) -> None:
    target = tmp_path / "nextroot"
    target.mkdir()
    seen, stderr = setup(physical, target=target)
    assert (seen["status"], stderr) == (0, "")
    assert seen["program"] == PROGRAM.decode()
    assert seen["hostname"] == "state\n"
    # The running system keeps its physical root.
    assert list(seen["mounts"]) == [str(physical.path)]


def test_a_root_that_forgets(physical: PhysicalRoot) -> None:
    seen, stderr = setup(physical, config="[root]\ntransient = true")
    assert (seen["status"], stderr) == (0, "")
    assert seen["program"] == PROGRAM.decode()
    assert seen["hostname"] == "state\n"
    assert seen["write"] == {"": 3, "etc": 3, "var": 3, "sysroot": READ_ONLY}
    assert seen["mounts"][str(physical.path)] == [
        "rw",
        "overlay",
        f"transient:composefs={physical.image_hex}",
    ]


def test_directories_that_forget(physical: PhysicalRoot) -> None:
    seen, stderr = setup(physical, config="[etc]\ntransient = true\n[var]\nmount = 'transient'")
    assert (seen["status"], stderr) == (0, "")
    assert seen["hostname"] == "image\n"
    assert seen["data"] == "image\n"
    assert seen["write"] == {"": READ_ONLY, "etc": 3, "var": 3, "sysroot": READ_ONLY}
    assert seen["mounts"][f"{physical.path}/etc"] == ["rw", "overlay", "transient"]
    assert not (physical.state / "etc/new").exists()
    assert seen["left"] == []


def test_everything_may_forget_at_once(physical: PhysicalRoot) -> None:
    seen, stderr = setup(physical, config="[root]\ntransient = true\n[etc]\ntransient = true")
    assert (seen["status"], stderr) == (0, "")
    assert seen["hostname"] == "image\n"
    assert seen["write"] == {"": 3, "etc": 3, "var": 3, "sysroot": READ_ONLY}


@pytest.mark.parametrize(
    ("config", "more", "data"),
    [
        ("[var]\nmount = 'none'", "", "image\n"),
        ("", "systemd.volatile=state", "image\n"),
        ("", "systemd.volatile=overlay", "image\n"),
        ("", "systemd.volatile=no", "state\n"),
        ("", "systemd.volatile=no systemd.volatile=state systemd.volatile", "image\n"),
        ("", 'systemd.volatile=state "systemd.volatile=no"', "state\n"),
        ("[var]\nmount = 'bind'", "systemd.volatile=state", "state\n"),
    ],
)
def test_var_is_left_to_systemd(physical: PhysicalRoot, config: str, more: str, data: str) -> None:
    seen, stderr = setup(physical, config=config, more=more)
    assert (seen["status"], stderr) == (0, "")
    assert seen["data"] == data


def test_an_image_without_sysroot_boots_with_a_warning(tmp_path: Path) -> None:
    seen, stderr = setup(make_physical_root(tmp_path / "root", without="sysroot"))
    assert stderr == "bootc: warning: the image has no /sysroot directory\n"
    assert (seen["status"], seen["hostname"]) == (0, "state\n")
    assert seen["physical"] == "No such file or directory"


def no_image(physical: PhysicalRoot) -> str:
    (physical.path / "composefs/images" / physical.image_hex).unlink()
    return f"image {physical.image_hex}: not in the repository"


def no_state(physical: PhysicalRoot) -> str:
    (physical.state / "var").unlink()
    (physical.state / "etc/hostname").unlink()
    (physical.state / "etc").rmdir()
    physical.state.rmdir()
    state = f"state/deploy/{physical.image_hex}"
    return f"deployment {physical.image_hex} has no state: {state} is missing"


def no_var(physical: PhysicalRoot) -> str:
    (physical.state / "var").unlink()
    return f"state/deploy/{physical.image_hex}/var: No such file or directory"


def no_erofs(physical: PhysicalRoot) -> str:
    image = physical.path / "composefs/images" / physical.image_hex
    image.write_bytes(bytes(8192))
    return f"mounting image {physical.image_hex}: Invalid argument"


@pytest.mark.parametrize("damage", [no_image, no_state, no_var, no_erofs])
def test_a_failure_names_the_cause_and_leaves_the_place_alone(
    physical: PhysicalRoot, damage: Callable[[PhysicalRoot], str]
) -> None:
    cause = damage(physical)
    seen, stderr = setup(physical)
    assert (seen["status"], stderr) == (1, f"bootc: {cause}\n{RECOVERY}")
    assert list(seen["mounts"]) == [str(physical.path)]
    assert seen["left"] == []


def test_the_second_image_boots_if_the_first_is_missing(physical: PhysicalRoot) -> None:
    """The deployment is the one with the v1 id; the root says which image is mounted."""
    v1 = "ab" * 64
    physical.state.rename(physical.state.with_name(v1))
    line = f"rw composefs.digest=?v1-sha512-12:{v1} composefs=?{physical.image_hex}"
    seen, stderr = run(
        SETUP, physical.path, physical.path, *("--config", "/nowhere", "--cmdline", line)
    )
    assert seen["status"] == 0
    assert stderr == (
        f"bootc: warning: the repository does not have image {v1};"
        f" mounting {physical.image_hex}, which the command line names, too\n"
    )
    assert (seen["hostname"], seen["data"]) == ("state\n", "state\n")
    source = seen["mounts"][str(physical.path)][2]
    assert source == f"composefs:{physical.image_hex}"


def test_a_sealed_argument_demands_verity(physical: PhysicalRoot) -> None:
    seen, stderr = run(
        SETUP,
        physical.path,
        physical.path,
        *("--config", "/nowhere", "--cmdline", f"composefs={physical.image_hex}"),
    )
    assert seen["status"] == 1
    assert stderr == f"bootc: image {physical.image_hex}: not protected by fs-verity\n{RECOVERY}"
    assert list(seen["mounts"]) == [str(physical.path)]


@pytest.mark.parametrize("config", ["", "[root]\ntransient = true"])
@pytest.mark.parametrize("place", ["", "nextroot"])
def test_half_a_root_is_not_left_behind(tmp_path: Path, place: str, config: str) -> None:
    physical = make_physical_root(tmp_path / "root", without="etc")
    target = physical.path / place
    target.mkdir(exist_ok=True)
    seen, stderr = setup(physical, target=target, config=config)
    assert (seen["status"], stderr) == (1, "bootc: attaching /etc: No such file or directory\n")
    assert seen["program"] == "No such file or directory"
    assert list(seen["mounts"]) == [str(physical.path)]


MOUNT = (
    PRELUDE
    + """
from bootc.repository.mounting import mount_composefs
image_fd = os.open(f"{root}/composefs/images/{sys.argv[2]}", os.O_RDONLY)
objects_fd = os.open(f"{root}/composefs/objects", os.O_PATH)
before = len(os.listdir("/proc/self/fd"))
mount_fd = mount_composefs(image_fd, objects_fd, name="x" * 128, verity=sys.argv[3] == "verity")
print(json.dumps({
    "program": read(f"/proc/self/fd/{mount_fd}/bin/program"),
    "hostname": read(f"/proc/self/fd/{mount_fd}/etc/hostname"),
    "mounts": mounts(root),
    "new_fds": len(os.listdir("/proc/self/fd")) - before,
}))
"""
)


def test_an_image_mounts_detached(physical: PhysicalRoot) -> None:
    seen, _ = run(MOUNT, physical.path, physical.image_hex, "no")
    assert seen["program"] == PROGRAM.decode()
    assert seen["hostname"] == "image\n"
    assert list(seen["mounts"]) == [str(physical.path)]
    assert seen["new_fds"] == 1


def test_objects_without_verity_are_refused_where_it_is_demanded(physical: PhysicalRoot) -> None:
    seen, _ = run(MOUNT, physical.path, physical.image_hex, "verity")
    assert seen["hostname"] == "image\n"
    assert seen["program"] == "Input/output error"


ATTACHED = (
    PRELUDE
    + """
from bootc.deploy.host.boot_state import files_verified
from bootc.fs.mounts import attach, read_mounts
from bootc.repository.mounting import mount_composefs
image_fd = os.open(f"{root}/composefs/images/{sys.argv[2]}", os.O_RDONLY)
objects_fd = os.open(f"{root}/composefs/objects", os.O_PATH)
mount_fd = mount_composefs(
    image_fd, objects_fd, name=sys.argv[2], verity=sys.argv[3] == "verity"
)
with attach(mount_fd) as path:
    print(json.dumps(files_verified(read_mounts(), path)))
"""
)


@pytest.mark.parametrize("demanded", [True, False])
def test_the_table_of_mounts_tells_whether_files_are_verified(
    physical: PhysicalRoot, demanded: bool
) -> None:
    argument = "verity" if demanded else "no"
    seen, _ = run(ATTACHED, physical.path, physical.image_hex, argument)
    assert seen is demanded


REFUSED = (
    PRELUDE
    + """
fs_fd = fsopen("overlay")
try:
    fsconfig_set_flag(fs_fd, "nonsense")
except OSError as exc:
    print(json.dumps(one_line(exc)))
"""
)


def test_the_words_of_the_kernel_join_the_error(physical: PhysicalRoot) -> None:
    line, _ = run(REFUSED, physical.path)
    assert line == "overlay: Unknown parameter 'nonsense': Invalid argument"
