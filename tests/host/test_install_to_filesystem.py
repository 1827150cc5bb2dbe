"""``bootc install to-filesystem`` on mounted file systems, and everything it refuses.

bootctl is a fake, the ESP is ext4 on a kernel without vfat, and fs-verity is done without.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bootc.deploy.install.partition import DiskSizes, create_table, read_table
from bootc.formats import dps
from bootc.fs import loopback
from bootc.kernel.mount import MS_BIND, MS_RDONLY, MS_REMOUNT, mount, umount2
from support import images, installer, require
from support.commands import Commands
from support.images import directory, file

pytestmark = pytest.mark.host

MIB = 1 << 20
KERNEL = b"kernel" * 1000


@dataclass
class Target:
    """A disk with an ESP and a root partition, which is mounted. ``esp`` is a node."""

    root: Path
    node: str
    esp: str
    layout: images.Layout

    def install(
        self, *options: str, verb: str = "to-filesystem"
    ) -> subprocess.CompletedProcess[str]:
        source = ("--source-imgref", self.layout.reference())
        updates = ("--target-imgref", "example.com/os:1", "--generic-image")
        loader = ("--bootloader", "systemd")
        return installer.run(verb, *source, *updates, *loader, *options, self.root)

    def refusal(self, *options: str) -> str:
        """Return the line of an installation that is refused, and check that nothing changed."""
        before = self.files()
        done = self.install(*options)
        assert done.returncode == 1, done.stdout
        assert self.files() == before
        return done.stderr.splitlines()[-1]

    def files(self) -> list[str]:
        return sorted(str(path) for path in self.root.rglob("*"))

    @contextlib.contextmanager
    def mounted_esp(self) -> Iterator[Path]:
        with mounted(self.esp, self.root / "boot/efi", installer.esp_filesystem()) as path:
            yield path


@contextlib.contextmanager
def mounted(node: str, path: Path, fstype: str = "ext4") -> Iterator[Path]:
    path.mkdir(parents=True, exist_ok=True)
    mount(node, str(path), fstype, 0)
    try:
        yield path
    finally:
        umount2(str(path), 0)


def image(path: Path) -> images.Layout:
    layer = images.bootable(
        *(directory(name) for name in ("etc", "var", "tmp")),
        file("etc/hostname", b"pristine\n"),
        file("usr/lib/os-release", b"ID=demo\nVERSION_ID=1\n"),
        kernel=KERNEL,
        initramfs=b"initramfs" * 1000,
    )
    return images.single(path, layer)


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    require.root()
    require.tool("sfdisk")
    Commands(tmp_path / "bin", monkeypatch).mock("bootctl", installer.BOOTCTL)
    disk = tmp_path / "disk.img"
    with open(disk, "wb") as raw:
        raw.truncate(1024 * MIB)
    table = create_table(str(disk), "x86_64", DiskSizes(esp_mib=128))
    with contextlib.ExitStack() as stack:
        nodes = []
        for row in (table.root, table.esp):
            assert row is not None
            part = loopback.attached(
                str(disk), offset=512 * row.first_sector, size_bytes=row.size_bytes
            )
            nodes.append(stack.enter_context(part))
        subprocess.run(["mkfs.ext4", "-q", "-b", "4096", "-O", "verity", nodes[0]], check=True)
        installer.make_esp(nodes[1])
        root = stack.enter_context(mounted(nodes[0], tmp_path / "root"))
        yield Target(root, *nodes, image(tmp_path / "layout"))


LENIENT = "--allow-missing-verity"


def uuid_of(node: str) -> str:
    argv = ["blkid", "--probe", "--match-tag", "UUID", "--output", "value", node]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def entry_of(esp: Path) -> str:
    (entry,) = esp.glob("loader/entries/*.conf")
    return entry.read_text()


def test_a_root_and_an_esp_that_are_mounted(target: Target) -> None:
    with target.mounted_esp() as esp:
        done = target.install(LENIENT, "--karg", "quiet")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "Installation complete!"
        uuid = uuid_of(target.node)
        assert f"        Root: ext4 {uuid} on {target.node}" in done.stdout.splitlines()
        assert f"options root=UUID={uuid} rw quiet composefs=?" in entry_of(esp)
        (kernel,) = esp.glob("EFI/Linux/*/vmlinuz")
        assert kernel.read_bytes() == KERNEL
        assert sorted(os.listdir(target.root)) == [
            ".bootc-aleph.json",
            "boot",
            "composefs",
            "lost+found",
            "ostree",
            "state",
        ]
        for path in (target.root, esp):
            with pytest.raises(OSError, match="Read-only"):
                (path / "new").touch()


def test_file_systems_stay_writable_until_they_are_finalized(target: Target) -> None:
    with target.mounted_esp() as esp:
        assert target.install(LENIENT, "--skip-finalize").returncode == 0
        (esp / "new").touch()
        done = installer.run("finalize", target.root)
        assert done.returncode == 0
        assert done.stdout.splitlines() == [f"Finalized {esp}", f"Finalized {target.root}"]
        with pytest.raises(OSError, match="Read-only"):
            (esp / "newer").touch()


def test_an_unfinished_installation_is_not_finalized(target: Target) -> None:
    done = installer.run("finalize", target.root)
    assert f"{target.root} has no complete installation" in done.stderr


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (("--root-mount-spec", "LABEL=os"), "root=LABEL=os rw composefs="),
        (("--root-mount-spec", ""), "rw composefs="),
        (
            ("--root-mount-spec", "", "--boot-mount-spec", "UUID=1"),
            "rw boot=UUID=1 systemd.mount-extra=UUID=1:/boot:auto:ro composefs=",
        ),
    ],
)
def test_mount_specifications(target: Target, options: tuple[str, ...], arguments: str) -> None:
    with target.mounted_esp() as esp:
        assert target.install(LENIENT, *options).returncode == 0
        assert f"options {arguments}" in entry_of(esp)


def test_a_separate_boot(target: Target, tmp_path: Path) -> None:
    other = tmp_path / "boot.img"
    with open(other, "wb") as raw:
        raw.truncate(64 * MIB)
    subprocess.run(["mkfs.ext4", "-q", str(other)], check=True)
    with (
        loopback.attached(str(other)) as node,
        mounted(node, target.root / "boot"),
        target.mounted_esp() as esp,
    ):
        assert target.install(LENIENT).returncode == 0
        source = f"UUID={uuid_of(node)}"
        assert f" rw boot={source} systemd.mount-extra={source}:/boot:auto:ro" in entry_of(esp)


@pytest.mark.parametrize("spec", ["a\nb", 'x"'])
def test_a_mount_specification_that_is_no_argument(target: Target, spec: str) -> None:
    with target.mounted_esp():
        line = target.refusal(LENIENT, "--root-mount-spec", spec)
        assert "bad kernel argument" in line


def test_content_is_refused_unless_it_shall_be_replaced(target: Target) -> None:
    (target.root / "old").mkdir()
    (target.root / "old/file").touch()
    with target.mounted_esp() as esp:
        (esp / "EFI").mkdir()
        (esp / "EFI/old.efi").touch()
        assert "Non-empty root filesystem; found 'old'" in target.refusal(LENIENT)
        done = target.install(LENIENT, "--replace", "alongside")
        assert done.returncode == 0, done.stderr
        assert (target.root / "old/file").exists()
        assert not (esp / "EFI/old.efi").exists()
        assert "composefs=" in entry_of(esp)
        # Not finalized: the old system may still run.
        (target.root / "new").touch()
        line = target.refusal(LENIENT, "--replace", "alongside")
        assert f"{target.root} has an installation already" in line


def test_everything_is_removed_before_an_installation(target: Target, tmp_path: Path) -> None:
    (target.root / "old").mkdir()
    with target.mounted_esp() as esp:
        (esp / "old.efi").touch()
        with mounted("tmpfs", target.root / "old/mounted", "tmpfs") as other:
            line = target.refusal(LENIENT, "--replace", "wipe")
            assert f"Found unexpected mount point {other}" in line
        done = target.install(LENIENT, "--replace", "wipe", "--skip-finalize")
        assert done.returncode == 0, done.stderr
        assert not (target.root / "old").exists()
        assert not (esp / "old.efi").exists()
        # Also an installation of bootc.
        assert target.install(LENIENT, "--replace", "wipe").returncode == 0
        assert "composefs=" in entry_of(esp)


def test_what_is_not_replaced_on_a_shared_esp_stays(target: Target) -> None:
    with target.mounted_esp() as esp:
        (esp / "loader/entries").mkdir(parents=True)
        (esp / "loader/entries/other.conf").write_text("title Other\nlinux /other\n")
        assert target.install(LENIENT).returncode == 0
        names = sorted(path.name for path in esp.glob("loader/entries/*"))
        assert names == ["bootc_demo-1-1.conf", "other.conf"]


def test_a_directory_is_no_mount_point(target: Target, tmp_path: Path) -> None:
    with target.mounted_esp():
        target.root = target.root / "boot"
        assert f"Not a mountpoint: {target.root}" in target.refusal(LENIENT)
    target.root = tmp_path / "none"
    assert f"Not a directory: {target.root}" in target.refusal(LENIENT)


@pytest.mark.parametrize("what", ["root", "esp"])
def test_a_read_only_mount_is_refused(target: Target, what: str) -> None:
    with target.mounted_esp() as esp:
        path = str(target.root if what == "root" else esp)
        mount(None, path, None, MS_REMOUNT | MS_BIND | MS_RDONLY)
        assert f"{path} is mounted read-only" in target.refusal(LENIENT)


def test_a_disk_without_an_esp_is_refused(target: Target) -> None:
    assert "ESP partition not found" in target.refusal(LENIENT)


def test_another_file_system_is_refused(target: Target, tmp_path: Path) -> None:
    with mounted("tmpfs", tmp_path / "other", "tmpfs") as path:
        target.root = path
        assert "Unknown filesystem: tmpfs" in target.refusal(LENIENT)


def test_a_root_that_is_too_small(target: Target) -> None:
    with target.mounted_esp():
        with open(target.root / "lost+found/ballast", "wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, 700 * MIB)
        assert f"{target.root} is too small for the image" in target.refusal(LENIENT)


def test_an_esp_that_is_too_small(target: Target) -> None:
    with target.mounted_esp() as esp:
        volume = os.statvfs(esp)
        with open(esp / "ballast", "wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, volume.f_frsize * volume.f_bavail)
        before = sorted(os.listdir(esp))
        done = target.install(LENIENT)
        assert done.returncode == 1
        assert "(hint: make room on the partition, or make it larger)" in done.stderr
        assert sorted(os.listdir(esp)) == before
        assert sorted(os.listdir(target.root)) == ["boot", "lost+found"]


def test_a_file_system_without_verity_is_refused_for_a_sealed_machine(
    target: Target, tmp_path: Path
) -> None:
    other = tmp_path / "plain.img"
    with open(other, "wb") as raw:
        raw.truncate(512 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-O", "^verity", str(other)], check=True)
    with loopback.attached(str(other)) as node, mounted(node, tmp_path / "plain") as root:
        target.root = root
        with target.mounted_esp():
            assert f"the ext4 on {node} lacks the feature verity" in target.refusal()
            assert target.install(LENIENT).returncode == 0


def test_a_failure_leaves_the_root_as_it_was(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Commands(tmp_path / "bin", monkeypatch).mock("bootctl", "echo 'No such ESP' >&2; exit 1")
    (target.root / "old").mkdir()
    with target.mounted_esp():
        done = target.install(LENIENT, "--replace", "alongside")
        assert done.returncode == 1
        assert "No such ESP" in done.stderr
        lines = done.stdout.splitlines()
        assert f"Removed the unfinished installation from {target.root}" in lines
        assert "The old boot loader is removed, and the new one boots nothing" in lines
        assert "Run the same command again before the machine is restarted" in lines
        assert sorted(os.listdir(target.root)) == ["boot", "lost+found", "old"]


def test_a_killed_installation_is_continued(target: Target) -> None:
    for name in ("composefs/objects", "state"):
        (target.root / name).mkdir(parents=True)
    (target.root / ".bootc-unfinished").write_text("composefs\nstate\n../../etc\n")
    with target.mounted_esp() as esp:
        done = target.install(LENIENT)
        assert done.returncode == 0, done.stderr
        assert not (target.root / ".bootc-unfinished").exists()
        assert "composefs=" in entry_of(esp)


def test_a_dry_run_changes_nothing(target: Target) -> None:
    (target.root / "old").mkdir()
    with target.mounted_esp():
        before = target.files()
        done = target.install(LENIENT, "--dry-run", "--replace", "wipe")
        assert done.returncode == 0
        assert f"1. Remove everything in {target.root}, and later" in done.stdout
        assert target.files() == before


def test_the_arguments_of_a_running_system_are_kept(target: Target) -> None:
    with target.mounted_esp() as esp:
        (target.root / "usr").mkdir()
        options = ("--acknowledge-destructive", "--cleanup")
        done = target.install(LENIENT, *options, verb="to-existing-root")
        assert done.returncode == 0, done.stderr
        # The installed system does the rest.
        assert (target.root / "etc/bootc-destructive-cleanup").exists()
        assert (target.root / "usr").exists()
        inherited = [
            word
            for word in Path("/proc/cmdline").read_text().split()
            if word.startswith(("root=", "rootflags=", "rd."))
        ]
        expected = " ".join(["options", *inherited, "rw composefs=?"])
        assert expected in entry_of(esp)


@pytest.fixture
def kind() -> str:
    """The type of the second partition."""
    return dps.XBOOTLDR


@pytest.fixture
def partitioned(tmp_path: Path, target: Target, kind: str) -> Iterator[Target]:
    """A disk whose partitions the kernel knows; only its root is mounted."""
    disk = tmp_path / "partitioned.img"
    with open(disk, "wb") as raw:
        raw.truncate(1024 * MIB)
    script = f"label: gpt\nsize=64MiB, type={dps.ESP}\nsize=64MiB, type={kind}\n,\n"
    with loopback.attached(str(disk)) as node, contextlib.ExitStack() as stack:
        subprocess.run(["sfdisk", "-q", node], input=script.encode(), check=True)
        subprocess.run(["partx", "--update", node], check=True)
        stack.callback(subprocess.run, ["partx", "--delete", node], check=False)
        installer.make_esp(f"{node}p1")
        installer.make_esp(f"{node}p2")
        subprocess.run(["mkfs.ext4", "-q", "-F", f"{node}p3"], check=True)
        root = stack.enter_context(mounted(f"{node}p3", tmp_path / "partitioned"))
        yield Target(root, f"{node}p3", f"{node}p1", target.layout)


def test_partitions_that_are_not_mounted_are_found(partitioned: Target, tmp_path: Path) -> None:
    done = partitioned.install(LENIENT)
    assert done.returncode == 0, done.stderr
    disk = partitioned.node.removesuffix("p3")
    summary = done.stdout.splitlines()
    assert f"         ESP: {uuid_of(f'{disk}p1')} on {disk}p1" in summary
    assert f"    XBOOTLDR: {uuid_of(f'{disk}p2')} on {disk}p2" in summary
    with mounted(f"{disk}p1", tmp_path / "esp", installer.esp_filesystem()) as esp:
        assert (esp / "EFI/systemd/systemd-bootx64.efi").exists()
        assert not (esp / "EFI/Linux").exists()
    with mounted(f"{disk}p2", tmp_path / "xbootldr", installer.esp_filesystem()) as xbootldr:
        assert "composefs=" in entry_of(xbootldr)
        (kernel,) = xbootldr.glob("EFI/Linux/*/vmlinuz")
        assert kernel.read_bytes() == KERNEL
    (origin,) = partitioned.root.glob("state/deploy/*/*.origin")
    (row, *_) = read_table(disk)
    assert f"esp = {row.uuid}" in origin.read_text().replace("=", " = ").replace("  ", " ")


@pytest.mark.parametrize("kind", [dps.ESP])
@pytest.mark.parametrize("main", [None, 1, 2])
def test_all_esps_of_the_root_are_written(
    partitioned: Target, tmp_path: Path, main: int | None
) -> None:
    """The mounted one is the main one, else the first."""
    disk = partitioned.node.removesuffix("p3")
    main_node = f"{disk}p{main or 1}"
    other_node = f"{disk}p{3 - (main or 1)}"
    partitioned.esp = main_node
    with partitioned.mounted_esp() if main else contextlib.nullcontext():
        done = partitioned.install(LENIENT)
    assert done.returncode == 0, done.stderr
    assert "up to date" not in done.stderr
    summary = done.stdout.splitlines()
    assert f"         ESP: {uuid_of(main_node)} on {main_node}" in summary
    assert f"  Mirror ESP: {uuid_of(other_node)} on {other_node}" in summary
    (origin,) = partitioned.root.glob("state/deploy/*/*.origin")
    rows = {row.node: row.uuid for row in read_table(disk)}
    text = origin.read_text()
    assert f"esp = {rows[main_node]}\n" in text
    assert f"esp_mirrors = {rows[other_node]}\n" in text
    for node in (main_node, other_node):
        with mounted(node, tmp_path / "esp", installer.esp_filesystem()) as esp:
            assert "composefs=" in entry_of(esp)
            (kernel,) = esp.glob("EFI/Linux/*/vmlinuz")
            assert kernel.read_bytes() == KERNEL
            assert (esp / "EFI/systemd/systemd-bootx64.efi").exists()


@pytest.mark.parametrize("kind", [dps.ESP])
def test_a_mirror_of_another_system_is_left_alone(partitioned: Target, tmp_path: Path) -> None:
    disk = partitioned.node.removesuffix("p3")
    with mounted(f"{disk}p2", tmp_path / "esp", installer.esp_filesystem()) as esp:
        (esp / "EFI/Other").mkdir(parents=True)
        (esp / "EFI/Other/boot.efi").write_bytes(b"other")
    done = partitioned.install(LENIENT)
    assert done.returncode == 0, done.stderr
    with mounted(f"{disk}p2", tmp_path / "esp", installer.esp_filesystem()) as esp:
        assert sorted(os.listdir(esp / "EFI")) == ["Other"]
        assert not (esp / "loader").exists()


@pytest.mark.parametrize("kind", [dps.ESP])
def test_a_mirror_without_a_file_system_is_a_warning(partitioned: Target, tmp_path: Path) -> None:
    disk = partitioned.node.removesuffix("p3")
    subprocess.run(["wipefs", "--quiet", "--all", f"{disk}p2"], check=True)
    done = partitioned.install(LENIENT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "Installation complete!"
    assert f"the EFI system partition {disk}p2 is not written: " in done.stderr
    with mounted(f"{disk}p1", tmp_path / "esp", installer.esp_filesystem()) as esp:
        assert "composefs=" in entry_of(esp)


@pytest.mark.parametrize("kind", [dps.ESP])
@pytest.mark.parametrize("others", [(), ("Other",)], ids=["copy", "others"])
def test_what_a_replaced_system_left_on_a_mirror(
    partitioned: Target, tmp_path: Path, others: tuple[str, ...]
) -> None:
    """A copy of the old loader is removed with it; another system is not."""
    disk = partitioned.node.removesuffix("p3")
    for number, names in ((1, ("Old",)), (2, ("Old", *others))):
        with mounted(f"{disk}p{number}", tmp_path / "esp", installer.esp_filesystem()) as esp:
            for name in names:
                (esp / "EFI" / name).mkdir(parents=True)
                (esp / "EFI" / name / "boot.efi").write_bytes(b"old")
    (partitioned.root / "kept").touch()
    done = partitioned.install(LENIENT, "--replace", "alongside")
    assert done.returncode == 0, done.stderr
    assert (partitioned.root / "kept").exists()
    with mounted(f"{disk}p2", tmp_path / "esp", installer.esp_filesystem()) as esp:
        if others:
            assert sorted(os.listdir(esp / "EFI")) == ["Old", "Other"]
        else:
            assert "composefs=" in entry_of(esp)
            assert not (esp / "EFI/Old").exists()
