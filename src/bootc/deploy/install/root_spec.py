"""The kernel arguments that mount the file systems of an installation to existing file systems.

The order and the spelling are upstream's: ``root=``, arguments of the running system, ``rw``,
``boot=``, and ``systemd.mount-extra=`` for a separate ``/boot``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from bootc.deploy.install.config import InstallConfig
from bootc.deploy.install.filesystem import Filesystem
from bootc.deploy.install.request import FilesystemRequest, InstallRefused
from bootc.deploy.install.target_filesystem import TargetFilesystems
from bootc.formats import cmdline
from bootc.formats.cmdline import CmdlineError
from bootc.fs.dir import open_regular, read_all
from bootc.kernel import proc

_CMDLINE = "/proc/cmdline"
_FSTAB = "etc/fstab"
_MAX_FSTAB_BYTES = 1 << 20
#: Arguments of the running system that concern its root: by name, and by the start of the name.
_INHERITED = ("root", "rootflags")
_INHERITED_START = "rd."


def root_arguments(
    request: FilesystemRequest, config: InstallConfig, found: TargetFilesystems
) -> tuple[str, ...]:
    """Return the arguments.

    Raises:
        InstallRefused: a file system that an argument must name has no UUID, or the user's
            specification cannot be an argument.
    """
    spec = _first(request.root_mount_spec, config.root_mount_spec)
    arguments = [*_root(spec, found, existing=request.existing_root), "rw"]
    source = _first(request.boot_mount_spec, config.boot_mount_spec)
    if source is None:
        source = _boot_source(request, found)
    if source:
        arguments += [f"boot={source}", f"systemd.mount-extra={source}:/boot:auto:ro"]
    for argument in arguments:
        try:
            cmdline.check(argument)
        except CmdlineError as exc:
            raise InstallRefused(exc.message, hint=exc.hint) from None
    return tuple(arguments)


def _first(asked: str | None, configured: str | None) -> str | None:
    return configured if asked is None else asked


def _root(spec: str | None, found: TargetFilesystems, *, existing: bool) -> Sequence[str]:
    if spec is not None:
        return [f"root={spec}"] if spec else []
    if existing:
        return list(_inherited())
    arguments = [f"root=UUID={_uuid(found.root.uuid, found.path)}"]
    if found.filesystem is Filesystem.BTRFS:
        arguments.append(f"rootflags=subvol={found.subvolume}")
    return arguments


def _inherited() -> Iterator[str]:
    text = os.fsdecode(b" ".join(proc.read_table(_CMDLINE)))
    for argument in cmdline.parse(text):
        key = cmdline.key_of(argument)
        if key in _INHERITED or key.startswith(_INHERITED_START):
            yield argument


def _boot_source(request: FilesystemRequest, found: TargetFilesystems) -> str | None:
    if found.boot is None:
        return None
    if request.existing_root and (source := _fstab_source(request.root)) is not None:
        return source
    return f"UUID={_uuid(found.boot.uuid, found.boot.path or found.boot.device)}"


def _fstab_source(root: str) -> str | None:
    """Return the source of ``/boot`` in the fstab of a system, if it is a UUID."""
    path = os.path.join(root, _FSTAB)
    with contextlib.suppress(FileNotFoundError), open(open_regular(path), "rb") as file:
        for line in read_all(file.fileno(), path, _MAX_FSTAB_BYTES).split(b"\n"):
            fields = line.split()
            if len(fields) > 1 and fields[1] == b"/boot" and fields[0].startswith(b"UUID="):
                return os.fsdecode(fields[0])
    return None


def _uuid(uuid: str, where: str) -> str:
    if not uuid:
        raise InstallRefused(
            f"No filesystem uuid found for {where}",
            hint="say how the machine mounts it with --root-mount-spec or --boot-mount-spec",
        )
    return uuid
