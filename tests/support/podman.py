"""A disk that gives the demo's live machine podman, and an image in its container storage.

``tools/debian-tree`` makes the tree with the real podman. On this machine, podman fills the storage
in seconds; emulated, that would take minutes. The live machine is the same Debian, so its ``/usr``
and that of the tree fit together.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from support import require
from testbed.machine import Machine
from testbed.qemu import BUILD

TREE = BUILD / "podman"
#: The guest mounts the disk here, so that the storage is where podman expects it.
_MOUNT_POINT = "/var/lib/containers"
#: An installation needs no network, and a network for containers needs a firewall.
_CONFIGURATION = b'[containers]\nnetns = "none"\n'
#: Half of the image, which neither the installer nor the boot reads: emulated, each file counts.
_UNNEEDED = (
    "lib/dracut",
    "lib/python3.13/test",
    "lib/sysimage",
    "lib/udev/hwdb.bin",
    "lib/x86_64-linux-gnu/gconv",
    "lib/x86_64-linux-gnu/perl-base",
    "lib/x86_64-linux-gnu/xtables",
    "share/ca-certificates",
    "share/doc",
    "share/i18n",
    "share/perl5",
    "share/zoneinfo",
)
_EXCLUDED = " ".join(f"--exclude=./usr/{path}" for path in _UNNEEDED)

#: $1: the tree, $2: an OCI layout and $3 a tag of it, $4: the name in the storage, $5: an empty
#: directory, $6: the disk.
_FILL = f"""
set -euo pipefail
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount --rbind /sys "$1/sys"
mount -t tmpfs tmpfs "$1/run"
mount -t tmpfs tmpfs "$1/tmp"
mkdir -p "$1/run/oci" "$1{_MOUNT_POINT}" "$5/usr"
mount --bind "$2" "$1/run/oci"
mount --bind "$5" "$1{_MOUNT_POINT}"
image=$(chroot "$1" podman pull --quiet "oci:/run/oci:$3")
root=$(chroot "$1" podman image mount "$image")
chroot "$1" tar -C "$root" --xattrs --xattrs-include=security.\\* {_EXCLUDED} -c . |
    chroot "$1" podman import --quiet --change "LABEL containers.bootc=1" - "$4"
chroot "$1" podman image unmount "$image"
chroot "$1" podman rmi "$image"
# The storage keeps a mount of itself.
umount --recursive "$1{_MOUNT_POINT}"
mount --bind "$1/usr" "$5/usr"
mke2fs -q -t ext4 -d "$5" "$6"
"""


def fill_disk(path: Path, layout: Path, tag: str, name: str) -> None:
    """Make a file system with podman and an image on a disk.

    Args:
        path: The disk; it keeps its size.
        layout: An OCI layout.
        tag: The image in it.
        name: What podman calls the image.
    """
    require.root()
    if not (TREE / "usr/bin/podman").exists():
        require.lacking(f"{TREE} is not made (tools/debian-tree, as in the Makefile)")
    content = path.with_suffix(".content")
    content.mkdir()
    arguments = [str(part) for part in (TREE, layout, tag, name, content, path)]
    try:
        subprocess.run(
            ["unshare", "--mount", "bash", "-c", _FILL, "fill", *arguments],
            check=True,
            timeout=900,
            env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "PODMAN_IGNORE_CGROUPSV1_WARNING": "1"},
        )
    finally:
        shutil.rmtree(content)


def attach(machine: Machine, device: str) -> None:
    """Give a running live machine the podman and the storage of a disk.

    The machine has no ``podman`` of its own. Its files come first where both have a path.
    """
    machine.run(
        f"blockdev --flushbufs {device} && mkdir -p {_MOUNT_POINT}"
        f" && mount {device} {_MOUNT_POINT}"
        f" && mount -t overlay -o lowerdir=/usr:{_MOUNT_POINT}/usr podman /usr"
        " && cat >/etc/containers/containers.conf",
        input_bytes=_CONFIGURATION,
    )
