"""A program that boots nothing: runs commands in a root that looks like a booted system's.

Reads one JSON object from standard input: ``root`` is an empty directory, ``device`` the
disk with the physical root, ``image_id`` what is booted, ``programs`` a directory that comes
first in PATH, ``argument`` the kernel argument that names the image, ``commands`` a list of
command lines of bootc, or of a shell when they are strings. Writes a list of what became of
each: ``code``, ``out``, ``err``, and ``journal``, the messages that a journal would have got,
each with its ``MESSAGE_ID`` and ``MESSAGE``.

It runs in a mount namespace of its own and leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys

from bootc.fs.mounts import private_mount_namespace
from bootc.kernel.mount import MS_BIND, MS_RDONLY, MS_REC, MS_REMOUNT, mount

#: What a booted system has otherwise than the machine that runs the tests.
_OTHERWISE = ("boot", "etc", "run", "sysroot")
_SOCKET = "/run/systemd/journal/socket"


def enter(root: str, device: str, image_id: str, argument: str) -> None:
    """Put the root together and make it ours."""
    private_mount_namespace()
    mount(f"composefs:{image_id}", root, "tmpfs", 0)
    for name in os.listdir("/"):
        path = f"/{name}"
        if os.path.islink(path):
            os.symlink(os.readlink(path), root + path)
        elif os.path.isdir(path) and name not in _OTHERWISE:
            os.mkdir(root + path)
            mount(path, root + path, None, MS_BIND | MS_REC)
    for name in _OTHERWISE:
        os.mkdir(f"{root}/{name}")
    mount(device, f"{root}/sysroot", "ext4", 0)
    etc = f"{root}/sysroot/state/deploy/{image_id}/etc"
    mount(etc, f"{root}/etc", None, MS_BIND)
    # /etc can be written to, the rest of the disk only by who makes it so.
    mount(None, f"{root}/sysroot", None, MS_REMOUNT | MS_BIND | MS_RDONLY)
    with open(f"{root}/cmdline", "w") as file:
        file.write(f"rw {argument}\n")
    mount(f"{root}/cmdline", f"{root}/proc/cmdline", None, MS_BIND)
    os.makedirs(root + os.path.dirname(_SOCKET))
    os.chroot(root)
    os.chdir("/")


def main() -> None:
    """Do what standard input says."""
    task = json.load(sys.stdin)
    enter(task["root"], task["device"], task["image_id"], task["argument"])
    environment = {**os.environ, "PATH": f"{task['programs']}:{os.environ['PATH']}"}
    environment.pop("container", None)
    results = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(_SOCKET)
        journal.setblocking(False)
        for command in task["commands"]:
            shell = isinstance(command, str)
            argv = ["sh", "-ec", command] if shell else [sys.executable, "-m", "bootc", *command]
            done = subprocess.run(
                argv, capture_output=True, text=True, env=environment, check=False
            )
            results.append(
                {
                    "code": done.returncode,
                    "out": done.stdout,
                    "err": done.stderr,
                    "journal": list(_messages(journal)),
                }
            )
    json.dump(results, sys.stdout)


def _messages(journal: socket.socket) -> list[list[str]]:
    """Return id and text of what has arrived. Ours have one line."""
    found = []
    while True:
        try:
            data = journal.recv(1 << 16).decode()
        except BlockingIOError:
            return found
        fields = dict(re.findall(r"^([A-Z_]+)=(.*)$", data, re.MULTILINE))
        found.append([fields["MESSAGE_ID"], fields["MESSAGE"]])


if __name__ == "__main__":
    main()
